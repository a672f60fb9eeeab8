"""Graphs of every shape: what runs when, what fails with whom, and that a job keeps the graph it was submitted with."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from ledger_play import Play, Work, items

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
    assert next(item for step, item in begun if step == failing) in (2, None)
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


def test_a_job_in_flight_keeps_its_graph_when_a_changed_pipeline_is_published(play: Play) -> None:
    job = play.submit("line")
    old_graph = play.job(job)["graph"]
    other = Pipeline("line", title="Another release", params=declared(PACKAGES)["line"].params)
    other.nodes = dict(declared(PACKAGES)["line"].nodes)

    @other.step(stage="exporting", queue="llm")
    async def added(third: int) -> int:
        return third

    ledger.publish(play.connection, [other], "next")
    newer = play.submit("line")
    finish(play)
    assert play.job(job)["graph"] == old_graph != play.job(newer)["graph"]
    assert {run["step"] for run in play.runs(job)} == {"first", "second", "third"}
    assert {run["step"] for run in play.runs(newer)} == {"first", "second", "third", "added"}
    assert {play.job(one)["status"] for one in (job, newer)} == {"completed"}
