"""Stopping: a worker drains, gives back what takes too long, and lets go at once of what was cancelled."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from processes import ended
from waiting import until
from worker_process import House


def at_gate(house: House, pipeline: str) -> tuple[UUID, Path, int]:
    """A job whose step has come to its gate; the process the step runs in."""
    gate = house.gate()
    job = house.play.submit(pipeline, params={"gate": str(gate)})
    until(lambda: house.reached(gate))
    return job, gate, house.reached(gate)[0][0]


@pytest.mark.parametrize("pipeline", ["held", "caged"])
def test_a_stopping_worker_lets_running_steps_finish_and_begins_no_new_ones(house: House, pipeline: str) -> None:
    worker = house.start()
    job, gate, _ = at_gate(house, pipeline)
    worker.terminate()
    until(lambda: house.play.one("select stopping from ops.workers"))
    late = house.play.submit("line")
    gate.touch()
    assert worker.end() == 0
    assert [event["attempt"] for event in house.play.events(job) if event["kind"] == "step_completed"] == [1]
    assert house.play.job(late)["status"] == "queued"
    assert house.play.all("select from ops.workers") == []
    assert house.play.drift() == []
    house.start()
    assert house.finish(job, late) == ["completed", "completed"]
    assert {run["attempt"] for run in house.play.runs(job)} == {1}
    house.assert_whole(job, late)


@pytest.mark.parametrize("pipeline", ["held", "caged"])
def test_what_takes_longer_than_the_drain_is_given_back_and_taken_up_by_the_next(house: House, pipeline: str) -> None:
    worker = house.start(drain_timeout_s=0.3)
    job, gate, process = at_gate(house, pipeline)
    worker.terminate()
    assert worker.end() == 0
    assert ended(process)
    (run,) = house.play.runs(job)
    assert (run["status"], run["attempt"], run["failures"], run["losses"]) == ("queued", 1, 0, 0)
    assert house.play.kinds(job)[-1] == "step_released"
    assert house.play.failures(job) == house.play.drift() == []
    house.start()
    until(lambda: len(house.reached(gate)) == 2)
    gate.touch()
    assert house.finish(job) == ["completed"]
    house.assert_whole(job)


def test_a_worker_that_is_idle_stops_at_once_and_signs_off(house: House) -> None:
    worker = house.start()
    worker.terminate()
    assert worker.end() == 0
    assert house.play.all("select from ops.workers") == []


def test_cancelling_kills_the_child_and_nothing_is_written_afterwards(house: House) -> None:
    house.start()
    job, gate, child = at_gate(house, "caged")
    assert child != house.workers[0].pid
    house.play.cancel(job)
    until(lambda: ended(child), within=5)
    before = house.play.job(job), house.play.events(job), house.play.runs(job)
    gate.touch()
    other = house.play.submit("caged", params={"gate": str(gate), "size": 1})
    assert house.finish(other) == ["completed"]
    assert (house.play.job(job), house.play.events(job), house.play.runs(job)) == before
    assert house.play.artifacts(job) == house.play.failures(job) == []
    assert before[0]["status"] == "cancelled"
    house.assert_whole(job, other)


def test_cancelling_ends_a_step_that_runs_in_the_workers_own_loop(house: House) -> None:
    house.start()
    job, gate, _ = at_gate(house, "held")
    house.play.cancel(job)
    until(lambda: house.play.one("select held = '{}' from ops.workers"), within=5)
    gate.touch()
    other = house.play.submit("line")
    assert house.finish(other) == ["completed"]
    assert house.play.kinds(job)[-1] == "cancelled"
    house.assert_whole(job, other)


def test_cancelling_one_job_leaves_its_neighbours(house: House) -> None:
    house.start(worker_children=2)
    jobs = [at_gate(house, "caged"), at_gate(house, "caged")]
    house.play.cancel(jobs[0][0])
    until(lambda: ended(jobs[0][2]), within=5)
    assert not ended(jobs[1][2])
    jobs[1][1].touch()
    assert house.finish(jobs[1][0]) == ["completed"]
    house.assert_whole(*(job for job, _, _ in jobs))


def test_a_second_attempt_right_after_the_first_is_cancelled_too(house: House) -> None:
    """The second attempt of a step run begins while the first one is still leaving the worker."""
    house.start()
    job = house.play.submit("doomed", params={"way": "hang"})
    until(lambda: house.play.runs(job)[0]["attempt"] == 2)
    until(lambda: list(house.play.one("select held from ops.workers").values()) == [2])
    house.play.cancel(job)
    until(lambda: house.play.one("select held = '{}' from ops.workers"), within=1.5)
    assert house.play.kinds(job)[-1] == "cancelled"
    house.assert_whole(job)
