"""kill -9 in each phase of a step: nothing is lost, nothing is doubled, and drift stays empty at every instant."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from crowds import watching
from ledger_play import Play
from psycopg.rows import dict_row
from waiting import until
from worker_process import House

BLOCKED = "select pid from pg_stat_activity where wait_event_type = 'Lock' and query like %s"


def held(house: House) -> tuple[UUID, Path]:
    """A job whose first step waits at a gate."""
    gate = house.gate()
    return house.play.submit("held", params={"gate": str(gate)}), gate


def attempts(house: House, gate: Path) -> list[int]:
    return [attempt for _, attempt in house.reached(gate)]


def test_a_worker_killed_before_it_begins_leaves_the_job_queued_for_the_next(house: House) -> None:
    with watching(house.play, house.url, Play.drift) as drift:
        worker = house.start()
        worker.freeze()
        job = house.play.submit("line")
        worker.kill()
        assert (house.play.job(job)["status"], house.play.kinds(job)) == ("queued", ["submitted"])
        house.start()
        assert house.finish(job) == ["completed"]
    assert {run["attempt"] for run in house.play.runs(job)} == {1}
    house.assert_whole(job)
    assert drift.seen == []


def test_a_worker_killed_during_a_step_costs_that_attempt_only(house: House) -> None:
    with watching(house.play, house.url, Play.drift) as drift:
        worker = house.start()
        job, gate = held(house)
        until(lambda: attempts(house, gate) == [1])
        worker.kill()
        house.start()
        until(lambda: attempts(house, gate) == [1, 2])
        gate.touch()
        assert house.finish(job) == ["completed"]
    run = house.play.run(job, "hold")
    assert (run["attempt"], run["losses"], run["failures"]) == (2, 1, 0)
    assert house.play.kinds(job).count("repaired") == 1
    assert house.play.one("select count(*) from step_results") == 2
    house.assert_whole(job)
    assert drift.seen == []


@pytest.mark.parametrize("write", ["commits", "is lost"])
def test_a_worker_killed_between_the_work_and_its_completion_has_its_effect_once(house: House, write: str) -> None:
    """The worker dies while its last write waits for a lock. The server may still carry that write out, or not."""
    with watching(house.play, house.url, Play.drift) as drift:
        worker = house.start()
        job, gate = held(house)
        until(lambda: attempts(house, gate) == [1])
        with psycopg.connect(house.url, row_factory=dict_row) as lock:
            lock.execute("select from jobs where id = %s for no key update", [job])
            gate.touch()
            blocked = until(lambda: house.play.all(BLOCKED, "%ledger.settle%"))
            worker.kill()
            if write == "is lost":
                house.play.all("select pg_terminate_backend(%s)", blocked[0]["pid"])
                until(lambda: not house.play.all(BLOCKED, "%ledger.settle%"))
        house.start()
        assert house.finish(job) == ["completed"]
    assert attempts(house, gate) == ([1] if write == "commits" else [1, 2])
    assert house.play.one("select count(*) from step_results") == 2
    house.assert_whole(job)
    assert drift.seen == []


def test_a_worker_killed_after_the_completion_loses_only_what_it_was_to_go_on_with(house: House) -> None:
    """Killed before it could hear the answer: all was settled, and the next step begun, in one transaction."""
    with watching(house.play, house.url, Play.drift) as drift:
        worker = house.start()
        job, gate = held(house)
        until(lambda: attempts(house, gate) == [1])
        with psycopg.connect(house.url, row_factory=dict_row) as lock:
            lock.execute("select from jobs where id = %s for no key update", [job])
            gate.touch()
            until(lambda: house.play.all(BLOCKED, "%ledger.settle%"))
            worker.freeze()
        until(lambda: house.play.run(job, "hold")["status"] == "completed")
        assert [row["status"] for row in house.play.queue()] == ["doing"]
        worker.kill()
        house.start()
        assert house.finish(job) == ["completed"]
    assert attempts(house, gate) == [1]
    assert [run["attempt"] for run in house.play.runs(job)] == [1, 2]
    house.assert_whole(job)
    assert drift.seen == []


def test_a_worker_killed_in_the_middle_of_many_items_loses_and_doubles_none(house: House) -> None:
    with watching(house.play, house.url, Play.drift) as drift:
        jobs = [house.play.submit("fan", params={"width": 60, "mark": str(n)}) for n in range(2)]
        for part in (20, 70):
            worker = house.start()
            house.follower.until(lambda part=part: house.play.one("select sum(completed) from job_step_totals") >= part)
            worker.kill()
        house.start()
        assert house.finish(*jobs) == ["completed", "completed"]
    for job in jobs:
        assert house.play.one("select completed from job_step_totals where (job_id, step) = (%s, 'double')", job) == 60
        result = house.play.run(job, "total")["result_id"]
        assert house.play.one("select value from step_results where id = %s", result) == {"value": 3540}
    house.assert_whole(*jobs)
    assert drift.seen == []


def test_a_step_that_kills_every_worker_is_stopped(house: House) -> None:
    job, gate = held(house)
    for attempt in (1, 2):
        worker = house.start(max_losses=2)
        until(lambda attempt=attempt: attempts(house, gate)[-1:] == [attempt])
        worker.kill()
    house.start(max_losses=2)
    assert house.finish(job) == ["failed"]
    assert house.play.job(job)["error_code"] == "worker_lost"
    assert attempts(house, gate) == [1, 2]
    other = house.play.submit("line")
    assert house.finish(other) == ["completed"]
    house.assert_whole(job, other)


def test_a_frozen_worker_that_comes_back_cannot_change_anything(house: House) -> None:
    frozen = house.start()
    job, gate = held(house)
    until(lambda: attempts(house, gate) == [1])
    frozen.freeze()
    house.start()
    until(lambda: attempts(house, gate) == [1, 2])
    gate.touch()
    assert house.finish(job) == ["completed"]
    before = house.play.job(job), house.play.events(job), house.play.runs(job)
    silent_since = house.play.one("select heartbeat_at from ops.workers where pid = %s", frozen.pid)
    frozen.thaw()
    until(
        lambda: house.play.all(
            "select from ops.workers where pid = %s and held = '{}' and heartbeat_at > %s", frozen.pid, silent_since
        )
    )
    assert (house.play.job(job), house.play.events(job), house.play.runs(job)) == before
    assert house.play.run(job, "hold")["attempt"] == 2
    house.assert_whole(job)
    assert frozen.alive
