"""ops.drift sees every way in which the ledger and the queue could disagree: each is made here by force."""

from __future__ import annotations

import re
from typing import LiteralString

import pytest
from ledger_play import Play, items

# What is done behind the ledger's back, and what drift says about it. The job: a fan with one item done, one running,
# two queued.
FORCED: dict[str, tuple[int, LiteralString]] = {
    "a queued step run has no queue job": (
        1,
        "delete from procrastinate.procrastinate_jobs where status = 'todo'",
    ),
    "a running step run has no queue job": (
        1,
        "delete from procrastinate.procrastinate_jobs where status = 'doing'",
    ),
    "a job that is not over has nothing that could move it": (
        1,
        "update job_steps set status = 'cancelled', queue_job_id = null, worker_id = null, finished_at = now()"
        " where status <> 'completed'",
    ),
    "an item waits although its step is open": (
        1,
        "update job_steps set status = 'pending', queue_job_id = null where status = 'queued'",
    ),
    "a step is done and its successor is not open": (
        2,
        "update job_step_totals set completed = total, finished_at = now() where step = 'double'",
    ),
    "a join has counted wrongly": (
        2,
        "update job_step_totals set completed = completed + 1 where step = 'double'",
    ),
    "a step run has two queue jobs": (
        3,
        "insert into procrastinate.procrastinate_jobs (queue_name, task_name, args, status)"
        " select queue_name, task_name, args, status from procrastinate.procrastinate_jobs",
    ),
    "a running step run has no attempt number": (
        3,
        "update job_steps set attempt = 0 where status = 'running'",
    ),
    "a job that is over has a step run that could move": (
        4,
        "update jobs set status = 'cancelled', finished_at = now()",
    ),
    "a job is queued although a step of it runs": (
        5,
        "update jobs set status = 'queued'",
    ),
    "a queue job is taken although its step run does not run": (
        5,
        "update procrastinate.procrastinate_jobs set status = 'doing'",
    ),
}  # fmt: skip


@pytest.fixture
def fan(play: Play) -> Play:
    play.submit("fan")
    play.complete(play.begin(), items=items(4))
    done, _ = play.begin_all(2)
    play.complete(done)
    assert play.statuses(play.one("select id from jobs"), "double") == ["completed", "running", "queued", "queued"]
    return play


def test_nothing_drifts_before_anything_is_forced(fan: Play) -> None:
    assert fan.drift() == []


@pytest.mark.parametrize("problem", FORCED)
def test_drift_reports_that(fan: Play, problem: str) -> None:
    invariant, force = FORCED[problem]
    fan.connection.execute(force)
    found = {(row["invariant"], row["problem"]) for row in fan.drift()}
    assert (invariant, problem) in found
    assert {row["job_id"] for row in fan.drift()} == {fan.one("select id from jobs")}


def test_every_problem_that_drift_knows_is_made_here(play: Play) -> None:
    view = play.one("select pg_get_viewdef('ops.drift'::regclass)")
    assert set(re.findall(r"'(an? [^']+)'::text", view)) == set(FORCED)


@pytest.mark.parametrize(
    "problem",
    ["a queued step run has no queue job", "a running step run has no queue job", "a step run has two queue jobs"],
)
def test_reconciling_ends_the_drift_that_can_be_repaired(fan: Play, problem: str) -> None:
    fan.connection.execute(FORCED[problem][1])
    assert fan.drift() != []
    fan.reconcile(lease=0)
    fan.begin_all()
    fan.reconcile(lease=0, losses=100)
    assert fan.drift() == []
    fan.finish_all()
    assert fan.job(fan.one("select id from jobs"))["status"] == "completed"
