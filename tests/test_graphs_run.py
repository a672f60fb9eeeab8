"""Graphs run by a worker: what their functions give, what is reused, and what happens to jobs when the code changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from ledger_play import Play
from psycopg.rows import dict_row
from waiting import following
from workers import running_worker

from tasks import ledger
from tasks.pipeline import Pipeline, Step
from tasks.pipelines import declared

PACKAGES = ("sample_pipelines", "sample_graphs")


class House:
    """A worker on a database, and somebody who plays beside it."""

    def __init__(self, play: Play, url: str) -> None:
        self.play = play
        self.url = url

    def over(self, job: UUID) -> dict[str, Any]:
        """The job when it is over."""
        with following(self.url) as follower:
            return follower.until(lambda: self._over(job))

    def run(self, pipeline: str, **request: Any) -> UUID:
        """A job that has completed."""
        job = self.play.submit(pipeline, **request)
        row = self.over(job)
        assert (row["status"], row["error_code"]) == ("completed", None)
        return job

    def result(self, job: UUID, step: str) -> Any:
        run = self.play.run(job, step)
        return self.play.one("select value from step_results where id = %s", run["result_id"])

    def called(self, job: UUID) -> list[tuple[str, int | None]]:
        """The step runs for which a function was called: those that were completed and not reused."""
        reused = {(event["step"], event["item"]) for event in self.play.events(job) if event["kind"] == "reused"}
        assert self.play.job(job)["reused"] == len(reused)
        return sorted({(run["step"], run["item"]) for run in self.play.runs(job)} - reused, key=str)

    def submit_as_published(self, pipeline: Pipeline, deploy: str) -> UUID:
        """A job on the graph of another release, which was published for that moment."""
        ledger.publish(self.play.connection, [pipeline], deploy)
        try:
            return self.play.submit(pipeline.name)
        finally:
            ledger.publish(self.play.connection, declared(PACKAGES).values(), "tests")

    def _over(self, job: UUID) -> dict[str, Any] | None:
        row = self.play.job(job)
        return row if row["finished_at"] else None


@pytest.fixture(scope="module")
def house(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    with psycopg.connect(module_database_url, autocommit=True, row_factory=dict_row) as connection:
        play = Play(connection, PACKAGES)
        with running_worker(module_database_url, folder, ",".join(PACKAGES), worker_queues="llm", deploy="ours"):
            yield House(play, module_database_url)
        assert play.drift() == []
        assert play.queue() == []


# What comes out -----------------------------------------------------------------------------------------


def test_item_seven_of_later_maps_runs_while_item_eight_of_the_first_is_running(house: House, tmp_path: Path) -> None:
    def seventh_is_done() -> bool:
        return any(run["item"] == 7 and run["status"] == "completed" for run in house.play.runs(job, "last"))

    job = house.play.submit("row", params={"width": 10, "holds": 8, "folder": str(tmp_path)})
    with following(house.url) as follower:
        follower.until(seventh_is_done)
    assert house.play.run(job, "slow", 8)["status"] == "running"
    assert house.play.run(job, "then", 8)["status"] == "pending"
    (tmp_path / "go").touch()
    assert house.over(job)["status"] == "completed"
    assert house.result(job, "whole") == {"value": sum(11 * (index + 1) for index in range(10))}


@pytest.mark.parametrize(
    ("pipeline", "step", "value"), [("diamond", "bottom", 30), ("nested", "over", 5009), ("choosy", "copes", 9)]
)
def test_a_graph_gives_what_its_functions_say(house: House, pipeline: str, step: str, value: int) -> None:
    job = house.run(pipeline, params={"width": 4})
    assert house.result(job, step) == {"value": value}


def test_what_a_skipped_step_would_have_given_is_none_or_skips_the_next(house: House) -> None:
    job = house.run("choosy", params={"width": 0})
    statuses = {run["step"]: run["status"] for run in house.play.runs(job)}
    assert statuses == {"maybe": "skipped", "needs": "skipped", "copes": "completed"}
    why = {event["step"]: event["message"] for event in house.play.events(job) if event["kind"] == "step_skipped"}
    assert why == {"maybe": "there is no width", "needs": "the step maybe was skipped"}


# Reuse --------------------------------------------------------------------------------------------------


def texts(*, changed: int | None = None, mark: str = "") -> dict[str, Any]:
    return {"texts": [f"{mark} chapter {nr} {'anew' if nr == changed else ''}" for nr in range(40)]}


def test_changing_one_chapter_of_forty_runs_its_steps_and_the_reducers_only(house: House) -> None:
    first = house.run("book", params=texts())
    assert len(house.called(first)) == 1 + 40 + 40 + 2
    second = house.run("book", params=texts(changed=17))
    assert house.called(second) == [
        ("chapters", None), ("judge", 17), ("read", 17), ("report", None), ("summary", None),
    ]  # fmt: skip
    assert house.play.job(second)["reused"] == 78
    assert house.result(second, "report")["value"] == house.result(first, "report")["value"] + 2 * len("anew")


def test_a_change_that_makes_no_difference_is_not_carried_on(house: House) -> None:
    """Chapter 3 is other text of the same length: reading it gives what it gave, so nothing after that runs."""
    house.run("book", params=texts(mark="once"))
    same_length = texts(mark="once")
    same_length["texts"][3] = same_length["texts"][3].replace("chapter", "CHAPTER")
    job = house.run("book", params=same_length)
    assert house.called(job) == [("chapters", None), ("judge", 3), ("read", 3)]


def test_a_fresh_job_calls_every_function_again(house: House) -> None:
    house.run("line", params={"width": 77})
    assert house.called(house.run("line", params={"width": 77}, fresh=True)) == [
        ("first", None), ("second", None), ("third", None),
    ]  # fmt: skip


def test_another_tenant_pays_for_itself(house: House) -> None:
    house.run("line", params={"width": 78})
    other = house.play.add_tenant(uuid4())
    assert len(house.called(house.run("line", params={"width": 78}, tenant_id=other))) == 3
    again = house.run("line", params={"width": 78}, tenant_id=other, idempotency_key="again")
    assert house.called(again) == []


# When the code changes ----------------------------------------------------------------------------------


def changed(step: str, **change: Any) -> Pipeline:
    """The pipeline `line` of another release, in which one step is different."""
    now = declared(PACKAGES)["line"]
    other = Pipeline("line", title="Another release", params=now.params)
    before = now.nodes.get(step, now.nodes["third"])
    assert isinstance(before, Step)
    other.nodes = now.nodes | {step: dataclasses.replace(before, name=step, **change)}
    return other


@pytest.mark.parametrize(
    ("step", "change"), [("vanished", {}), ("second", {"parameters": ()})], ids=["is gone", "takes other inputs"]
)
def test_a_step_that_this_release_does_not_have_so_fails_and_names_the_deploys(
    house: House, step: str, change: dict[str, Any]
) -> None:
    job = house.submit_as_published(changed(step, **change), "the-other")
    row = house.over(job)
    assert (row["status"], row["error_code"]) == ("failed", "step_unknown")
    assert "the-other" not in row["error_message"]
    (failure,) = house.play.failures(job)
    assert (failure["step"], failure["attempt"]) == (step, 1)
    assert "'the-other'" in failure["detail"]
    assert "'ours'" in failure["detail"]


def test_another_version_of_a_step_is_told_and_its_result_does_not_pass_for_the_old_ones(house: House) -> None:
    older = changed("second", version=7)
    job = house.submit_as_published(older, "the-other")
    assert house.over(job)["status"] == "completed"
    told = {event["step"]: event["message"] for event in house.play.events(job) if event["kind"] == "step_completed"}
    assert told["second"].startswith("Done by version 1 of this step")
    assert (told["first"], told["third"]) == ("", "")
    run = house.play.run(job, "second")
    assert house.play.all("select from step_results where identity = %s", run["identity"]) == []
