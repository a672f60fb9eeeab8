"""Graphs of every shape: what runs when, what fails with whom, and that a job keeps the graph it was submitted with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from ledger_play import Play, Work, items
from psycopg.rows import dict_row
from waiting import following
from workers import running_worker

from tasks import ledger
from tasks.pipeline import Context, Pipeline, PipelineInvalid
from tasks.pipelines import declared

PACKAGES = ("sample_pipelines", "sample_graphs")


@pytest.fixture
def play(connection: psycopg.Connection[dict[str, Any]]) -> Play:
    return Play(connection, PACKAGES)


def finish(play: Play, width: int = 3, **broken: int) -> list[Work]:
    """Work until the queue is empty; the item `broken` names of a step fails for good. Returns what was begun."""
    begun = []
    while works := play.begin_all():
        begun += works
        for work in works:
            if work["step"] in broken and work["item"] in (None, broken[work["step"]]):
                play.fail(work, "odd_one_out")
            else:
                play.complete(work, work["item"], items(width) if work["mapped"] else None)
        assert play.drift() == []
    return begun


def begun_steps(works: list[Work]) -> list[tuple[str, int | None]]:
    return sorted(((work["step"], work["item"]) for work in works), key=str)


# Maps in a row, joins of joins --------------------------------------------------------------------------


def test_an_item_goes_on_alone_through_maps_in_a_row(play: Play) -> None:
    job = play.submit("row")
    play.complete(play.begin(), 0, items(10))
    works = {work["item"]: work for work in play.begin_all()}
    play.complete(works[7], 7)
    (next_work,) = play.begin_all()
    assert (next_work["step"], next_work["item"]) == ("then", 7)
    assert play.run(job, "slow", 8)["status"] == "running"
    play.complete(next_work, 7)
    assert begun_steps(play.begin_all()) == [("last", 7)]
    assert play.statuses(job, "last").count("pending") == 9
    assert play.drift() == []


def test_an_item_waits_for_every_step_it_goes_along_with(play: Play) -> None:
    job = play.submit("row")
    play.complete(play.begin(), 0, items(2))
    first, _ = play.begin_all()
    play.complete(first, 0)
    (second,) = play.begin_all()
    assert play.statuses(job, "last") == ["pending", "pending"]
    assert set(second["inputs"]) == {"slow"}
    play.complete(second, 0)
    (third,) = play.begin_all()
    assert {name: given["value"] for name, given in third["inputs"].items()} == {
        "slow": {"value": 0}, "then": {"value": 0},
    }  # fmt: skip


@pytest.mark.parametrize("width", [0, 1, 4])
def test_maps_in_a_row_run_each_item_of_each_step_once(play: Play, width: int) -> None:
    job = play.submit("row")
    begun = begun_steps(finish(play, width))
    assert begun == sorted(set(begun), key=str)
    assert len(begun) == 1 + 3 * width + 1
    assert play.job(job)["status"] == "completed"


@pytest.mark.parametrize("width", [0, 1, 3])
def test_joins_meet_and_are_mapped_over_again(play: Play, width: int) -> None:
    job = play.submit("nested")
    begun = [step for step, _ in begun_steps(finish(play, width))]
    counts = {step: begun.count(step) for step in ("left", "right", "meet", "again", "over")}
    assert counts == {"left": width, "right": width, "meet": 1, "again": width, "over": 1}
    assert play.job(job)["status"] == "completed"


def test_a_map_that_is_mapped_over_has_to_be_joined_first() -> None:
    twice = Pipeline("twice", title="A map of a map")

    @twice.step(stage="chunking")
    def outer(context: Context) -> list[int]:
        return [1]

    @twice.step(stage="chunking", map="outer")
    def inner(item: int) -> list[int]:
        return [item]

    with pytest.raises(PipelineInvalid, match="join it first"):

        @twice.step(stage="chunking", map="inner")
        def innermost(item: int) -> int:
            return item


# Items that may fail ------------------------------------------------------------------------------------


def test_a_failed_item_within_the_bound_is_left_out_along_all_its_steps(play: Play) -> None:
    job = play.submit("row")
    begun = begun_steps(finish(play, slow=1))
    assert ("then", 1) not in begun
    assert {step: play.run(job, step, 1)["status"] for step in ("slow", "then", "last")} == {
        "slow": "failed", "then": "failed", "last": "failed",
    }  # fmt: skip
    assert play.job(job)["status"] == "completed"
    assert play.one("select count(*) from ledger.gather(%s, 'last')", job) == 2
    failed = [(event["step"], event["item"]) for event in play.events(job) if event["kind"] == "step_failed"]
    assert sorted(failed) == [("last", 1), ("slow", 1), ("then", 1)]


def test_one_failed_item_more_than_allowed_fails_the_job(play: Play) -> None:
    job = play.submit("row")
    play.complete(play.begin(), 0, items(4))
    first, second, *_ = play.begin_all()
    play.fail(first)
    assert play.job(job)["status"] == "running"
    play.fail(second)
    assert (play.job(job)["status"], play.job(job)["error_code"]) == ("failed", "broken")
    assert set(play.statuses(job)) == {"completed", "failed", "cancelled"}
    assert play.drift() == []


def test_a_reopened_job_runs_what_failed_and_nothing_that_was_done(play: Play) -> None:
    job = play.submit("row")
    play.complete(play.begin(), 0, items(4))
    works = play.begin_all()
    play.complete(works[2], 2)
    play.complete(play.begin(), 2)
    for work in works[:2]:
        play.fail(work)
    play.retry(job)
    assert play.drift() == []
    begun = begun_steps(finish(play))
    assert [item for step, item in begun if step == "slow"] == [0, 1, 3]
    assert [item for step, item in begun if step == "then"] == [0, 1, 3]
    assert [item for step, item in begun if step == "last"] == [0, 1, 2, 3]
    assert (play.job(job)["status"], play.job(job)["percent"]) == ("completed", 100)


@pytest.mark.parametrize("failing", ["then", "last", "whole"])
def test_a_reopened_job_leaves_out_the_items_that_failed_in_steps_that_are_done(play: Play, failing: str) -> None:
    """Item 1 failed in the first map, which was allowed and is over; it does not come back in the maps after it."""
    job = play.submit("row")
    finish(play, 4, slow=1, **{failing: 2})
    assert play.job(job)["status"] == "failed"
    play.retry(job)
    assert play.drift() == []
    begun = begun_steps(finish(play))
    assert ("whole", None) in begun
    assert [item for _, item in begun if item == 1] == []
    assert [step for step, _ in begun if step == "slow"] == []
    assert [item for step, item in begun if step == failing][0] in (2, None)
    assert (play.job(job)["status"], play.job(job)["percent"]) == ("completed", 100)
    assert {step: play.run(job, step, 1)["status"] for step in ("then", "last")} == {"then": "failed", "last": "failed"}


# Skipping -----------------------------------------------------------------------------------------------


def test_a_skipped_item_counts_as_done_and_is_not_joined(play: Play) -> None:
    job = play.submit("fan")
    play.complete(play.begin(), 0, items(3))
    for work in play.begin_all():
        play.complete(work, None, **({"skipped": "odd"} if work["item"] == 1 else {}))
    assert play.statuses(job, "double") == ["completed", "skipped", "completed"]
    assert play.one("select count(*) from ledger.gather(%s, 'double')", job) == 2
    finish(play)
    assert play.job(job)["status"] == "completed"
    assert [event["message"] for event in play.events(job) if event["kind"] == "step_skipped"] == ["odd"]


# A job keeps its graph ----------------------------------------------------------------------------------


def changed_line(*, second_version: int = 1, ghost: bool = False) -> Pipeline:
    """The pipeline `line` as another release has it."""
    now = declared(PACKAGES)["line"]
    other = Pipeline("line", title="Another release", params=now.params)
    other.nodes = dict(now.nodes)
    if ghost:

        @other.step(stage="exporting", queue="llm")
        async def vanished(third: int) -> int:
            return third

    return other


def test_a_job_in_flight_keeps_its_graph_when_a_changed_pipeline_is_published(play: Play) -> None:
    job = play.submit("line")
    old_graph = play.job(job)["graph"]
    ledger.publish(play.connection, [changed_line(ghost=True)], "next")
    newer = play.submit("line")
    finish(play)
    assert play.job(job)["graph"] == old_graph != play.job(newer)["graph"]
    assert {run["step"] for run in play.runs(job)} == {"first", "second", "third"}
    assert {run["step"] for run in play.runs(newer)} == {"first", "second", "third", "vanished"}
    assert {play.job(one)["status"] for one in (job, newer)} == {"completed"}


# With a worker ------------------------------------------------------------------------------------------


class House:
    """A worker on a database, and somebody who plays beside it."""

    def __init__(self, play: Play, url: str) -> None:
        self.play = play
        self._url = url

    def over(self, job: UUID) -> dict[str, Any]:
        """The job when it is over."""
        with following(self._url) as follower:
            return follower.until(lambda: self._over(job))

    def result(self, job: UUID, step: str) -> Any:
        run = self.play.run(job, step)
        return self.play.one("select value from step_results where id = %s", run["result_id"])

    def _over(self, job: UUID) -> dict[str, Any] | None:
        row = self.play.job(job)
        return row if row["finished_at"] else None


@pytest.fixture(scope="module")
def house(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    with psycopg.connect(module_database_url, autocommit=True, row_factory=dict_row) as connection:
        play = Play(connection, PACKAGES)
        with running_worker(module_database_url, folder, ",".join(PACKAGES), worker_queues="llm"):
            yield House(play, module_database_url)
        assert play.drift() == []
        assert play.queue() == []


def test_item_seven_of_the_second_map_runs_while_item_eight_of_the_first_is_running(house: House, tmp_path: Path) -> None:
    job = house.play.submit("row", params={"width": 10, "holds": 8, "folder": str(tmp_path)})
    with following(house.play.connection.info.dsn + f" password={house.play.connection.info.password}") as follower:
        follower.until(lambda: house.play.run(job, "last", 7)["status"] == "completed" if house.play.runs(job, "last") else False)
        assert house.play.run(job, "slow", 8)["status"] == "running"
    (tmp_path / "go").touch()
    assert house.over(job)["status"] == "completed"
    assert house.result(job, "whole") == {"value": sum(11 * (index + 1) for index in range(10))}


@pytest.mark.parametrize(("pipeline", "step", "value"), [("diamond", "bottom", 30), ("nested", "over", 5009), ("choosy", "copes", 9)])
def test_a_graph_gives_what_its_functions_say(house: House, pipeline: str, step: str, value: int) -> None:
    job = house.play.submit(pipeline, params={"width": 4})
    assert house.over(job)["status"] == "completed"
    assert house.result(job, step) == {"value": value}


def test_what_a_skipped_step_would_have_given_is_none_or_skips_the_next(house: House) -> None:
    job = house.play.submit("choosy", params={"width": 0})
    assert house.over(job)["status"] == "completed"
    statuses = {run["step"]: run["status"] for run in house.play.runs(job)}
    assert statuses == {"maybe": "skipped", "needs": "skipped", "copes": "completed"}
    why = {event["step"]: event["message"] for event in house.play.events(job) if event["kind"] == "step_skipped"}
    assert why == {"maybe": "there is no width", "needs": "the step maybe was skipped"}


def test_a_step_that_this_release_no_longer_has_fails_and_names_the_deploy_that_had_it(house: House) -> None:
    current = [declared(PACKAGES)["line"]]
    ledger.publish(house.play.connection, [changed_line(ghost=True)], "the-other-deploy")
    try:
        job = house.play.submit("line")
    finally:
        ledger.publish(house.play.connection, declared(PACKAGES).values(), "tests")
    row = house.over(job)
    assert current
    assert (row["status"], row["error_code"]) == ("failed", "step_unknown")
    assert "the-other-deploy" not in row["error_message"]
    (failure,) = house.play.failures(job)
    assert (failure["step"], "the-other-deploy" in failure["detail"]) == ("vanished", True)
