"""Upkeep: dead workers, missing queue jobs, queues nobody serves, strays; each repair has its event."""

from __future__ import annotations

from uuid import UUID, uuid4

import psycopg
import pytest
from ledger_play import Play, items
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb


def recover(play: Play, lease: float = 30, losses: int = 3) -> int:
    repairs: int = play.one("select ledger.recover_lost(%s, %s)", lease, losses)
    return repairs


# Beats --------------------------------------------------------------------------------------------------


def test_a_beat_shows_the_worker_and_what_it_holds(play: Play) -> None:
    play.submit("line")
    work = play.begin()
    assert play.beat(work) == []
    (worker,) = play.all("select * from ops.workers")
    assert (worker["id"], worker["queues"], worker["stopping"]) == (play.worker, ["cpu", "llm"], False)
    assert worker["held"] == {work["step_run"]: 1}


def test_a_second_beat_moves_the_time_and_not_the_start(play: Play) -> None:
    play.beat()
    play.pass_time(10)
    play.beat()
    (worker,) = play.all("select heartbeat_at - started_at > interval '9 s' as moved from ops.workers")
    assert worker["moved"]


@pytest.mark.parametrize("end", ["complete", "fail", "cancel", "release", "taken over"])
def test_a_beat_tells_what_is_no_longer_the_workers_own(play: Play, end: str) -> None:
    job = play.submit("line")
    work = play.begin()
    match end:
        case "complete":
            play.complete(work)
        case "fail":
            play.fail(work)
        case "cancel":
            play.cancel(job)
        case "release":
            play.release(work)
        case "taken over":
            play.release(work)
            play.begin(worker=uuid4())
    assert play.beat(work) == [UUID(work["step_run"])]


def test_a_worker_that_signs_off_is_forgotten(play: Play) -> None:
    play.beat()
    play.all("select ledger.sign_off(%s)", play.worker)
    assert play.all("select from ops.workers") == []


# Lost attempts --------------------------------------------------------------------------------------------


def test_the_attempt_of_a_dead_worker_is_queued_again(play: Play) -> None:
    job = play.submit("line")
    stale = play.begin()
    play.beat(stale)
    play.pass_time(31)
    assert recover(play) == 1
    run = play.run(job, "first")
    assert (run["status"], run["losses"], run["failures"], run["worker_id"]) == ("queued", 1, 0, None)
    assert play.kinds(job)[-2:] == ["step_retrying", "repaired"]
    assert play.events(job)[-1]["data"]["case"] == "worker_lost"
    assert play.failures(job)[-1]["code"] == "worker_lost"
    assert play.drift() == []
    assert not play.complete(stale)
    assert play.begin()["attempt"] == 2


def test_the_attempt_of_a_worker_that_never_beat_is_queued_again(play: Play) -> None:
    job = play.submit("line")
    play.begin()
    assert recover(play) == 1
    assert play.statuses(job) == ["queued"]


def test_the_attempt_of_a_living_worker_is_left_alone(play: Play) -> None:
    job = play.submit("line")
    work = play.begin()
    play.pass_time(100)
    play.beat(work)
    play.pass_time(129)
    assert recover(play) == 0
    assert play.statuses(job) == ["running"]


def test_an_attempt_that_a_living_worker_let_go_of_is_queued_again(play: Play) -> None:
    job = play.submit("line")
    play.begin()
    play.beat()
    assert recover(play) == 0
    play.pass_time(31)
    play.beat()
    assert recover(play) == 1
    assert play.statuses(job) == ["queued"]


def test_an_attempt_that_was_just_claimed_is_not_missed_by_the_beat_before(play: Play) -> None:
    play.submit("line")
    play.pass_time(100)
    play.begin()
    play.beat()
    assert recover(play) == 0


def test_a_step_that_kills_its_workers_fails_at_the_cap(play: Play) -> None:
    job = play.submit("fan")
    play.complete(play.begin(), items=items(2))
    for repairs in (2, 2, 1):
        assert len(play.begin_all()) == 2
        assert recover(play) == repairs
    row = play.job(job)
    assert (row["status"], row["error_code"]) == ("failed", "worker_lost")
    assert "died 3 times" in row["error_message"]
    assert sorted(play.statuses(job, "double")) == ["cancelled", "failed"]
    assert [failure["code"] for failure in play.failures(job)] == ["worker_lost"] * 5
    assert play.queue() == play.drift() == []


def test_a_person_may_reopen_what_was_lost_too_often(play: Play) -> None:
    job = play.submit("line")
    play.begin()
    recover(play, losses=1)
    play.retry(job)
    assert play.run(job, "first")["losses"] == 0
    play.finish_all()
    assert play.job(job)["status"] == "completed"


def test_all_that_a_dead_worker_held_is_recovered_in_one_go(play: Play) -> None:
    job = play.submit("fan")
    play.complete(play.begin(), items=items(4))
    other = play.submit("line")
    assert len(play.begin_all()) == 5
    assert recover(play) == 5
    assert (play.statuses(job, "double"), play.statuses(other)) == (["queued"] * 4, ["queued"])
    seqs = [event["seq"] for event in play.events(job)]
    assert seqs == list(range(1, len(seqs) + 1))


def test_a_job_that_somebody_is_moving_is_left_to_them(real_play: Play, database_url: str) -> None:
    job = real_play.submit("line")
    real_play.begin()
    with psycopg.connect(database_url) as other:
        other.execute("select from jobs where id = %s for no key update", [job])
        assert recover(real_play) == 0
    assert recover(real_play) == 1


# Queue jobs and step runs that do not match ------------------------------------------------------------------


def test_a_step_run_without_queue_job_gets_one(play: Play) -> None:
    job = play.submit("line")
    play.connection.execute("delete from procrastinate.procrastinate_jobs")
    assert len(play.drift()) == 1
    assert play.one("select ledger.requeue_orphans()") == 1
    assert play.events(job)[-1]["data"]["case"] == "queue_job_missing"
    assert play.drift() == []
    play.finish_all()
    assert play.job(job)["status"] == "completed"


@pytest.mark.parametrize("status", ["doing", "succeeded", "failed", "cancelled"])
def test_a_queue_job_that_was_ended_behind_the_ledgers_back_is_replaced(play: Play, status: str) -> None:
    job = play.submit("line")
    play.connection.execute(f"update procrastinate.procrastinate_jobs set status = '{status}'")  # type: ignore[arg-type]
    assert play.one("select ledger.requeue_orphans()") == 1
    assert [row["status"] for row in play.queue()] == ["todo"]
    assert play.drift() == []
    play.finish_all()
    assert play.job(job)["status"] == "completed"


def test_what_is_queued_well_is_not_repaired(play: Play) -> None:
    job = play.submit("line")
    assert play.one("select ledger.requeue_orphans()") == 0
    assert play.kinds(job) == ["submitted"]


def test_queue_jobs_without_step_run_are_withdrawn_and_chores_are_not(play: Play) -> None:
    play.submit("line")
    play.connection.execute(
        "insert into procrastinate.procrastinate_jobs (queue_name, task_name, args)"
        " values ('llm', 'run_step', %s), ('llm', 'a_chore', '{}')",
        [Jsonb({"step_run": str(uuid4())})],
    )
    assert play.one("select ledger.withdraw_strays()") == 1
    assert [row["task_name"] for row in play.queue()] == ["run_step", "a_chore"]


# Waiting for nobody ---------------------------------------------------------------------------------------


def test_a_job_that_nobody_came_for_fails_and_says_how_long_it_waited(play: Play) -> None:
    job = play.submit("line")
    play.pass_time(301)
    assert play.reconcile() == 1
    row = play.job(job)
    assert (row["status"], row["error_code"]) == ("failed", "queue_timeout")
    assert row["error_message"] == "It waited 6 minutes to start and no worker picked it up."
    assert play.statuses(job) == ["cancelled"]
    assert play.queue() == play.drift() == []


def test_a_job_is_given_its_time(play: Play) -> None:
    job = play.submit("line")
    play.pass_time(299)
    assert play.reconcile() == 0
    assert play.job(job)["status"] == "queued"


def test_a_long_backlog_that_moves_is_left_alone(play: Play) -> None:
    jobs = [play.submit("line") for _ in range(3)]
    play.pass_time(1000)
    play.beat(play.begin(), took_from=["llm"])
    play.pass_time(1200)
    assert play.one("select ledger.time_out_queued(300)") == 0
    assert [play.job(job)["status"] for job in jobs] == ["running", "queued", "queued"]


def test_a_backlog_that_moved_is_left_alone_when_its_workers_are_replaced(play: Play) -> None:
    play.submit("line")
    job = play.submit("line")
    play.pass_time(1000)
    play.beat(play.begin(), took_from=["llm"])
    play.all("select ledger.sign_off(%s)", play.worker)
    play.pass_time(1001)
    play.beat(worker=uuid4())
    assert play.one("select ledger.time_out_queued(300)") == 0
    assert play.job(job)["status"] == "queued"


def test_a_backlog_that_stopped_moving_fails(play: Play) -> None:
    play.submit("line")
    job = play.submit("line")
    play.beat(play.begin(), took_from=["llm"])
    play.pass_time(301)
    assert play.one("select ledger.time_out_queued(300)") == 1
    assert play.job(job)["error_code"] == "queue_timeout"


def test_a_queue_that_moves_does_not_hide_one_that_nobody_serves(play: Play) -> None:
    crowd = play.submit("fan")
    play.complete(play.begin(), items=items(1100))
    waiting = play.submit("doomed", params={})
    play.pass_time(1000)
    play.beat(took_from=["llm"])
    assert play.one("select ledger.time_out_queued(300)") == 1
    assert (play.job(waiting)["error_code"], play.job(crowd)["status"]) == ("queue_timeout", "running")


def test_a_running_job_whose_next_step_nobody_takes_fails_too(play: Play) -> None:
    job = play.submit("line")
    play.complete(play.begin())
    play.pass_time(301)
    assert play.one("select ledger.time_out_queued(300)") == 1
    assert play.job(job)["status"] == "failed"
    assert play.statuses(job) == ["completed", "cancelled"]


def test_a_job_that_timed_out_can_be_reopened(play: Play) -> None:
    job = play.submit("line")
    play.pass_time(301)
    play.reconcile()
    play.retry(job)
    assert play.reconcile() == 0
    play.finish_all()
    assert play.job(job)["status"] == "completed"


# Reconciling ------------------------------------------------------------------------------------------------


def test_reconciling_one_job_leaves_the_others(play: Play) -> None:
    jobs = [play.submit("line") for _ in range(2)]
    play.begin_all()
    assert play.reconcile(jobs[1]) == 1
    assert [play.statuses(job) for job in jobs] == [["running"], ["queued"]]


def test_reconciling_twice_repairs_once(play: Play) -> None:
    job = play.submit("line")
    play.begin()
    assert [play.reconcile(), play.reconcile()] == [1, 0]
    assert play.kinds(job).count("repaired") == 1


def test_reconciling_forgets_workers_that_are_long_dead(play: Play) -> None:
    play.beat()
    play.pass_time(3600 * 25)
    play.reconcile()
    assert play.all("select from ops.workers") == []


def test_two_sweeps_at_once_repair_once(real_play: Play, database_url: str) -> None:
    job = real_play.submit("line")
    real_play.begin()
    with psycopg.connect(database_url, row_factory=dict_row) as other:
        assert real_play.on(other).reconcile() == 1
        assert real_play.reconcile() == 0
        other.commit()
    assert real_play.reconcile() == 0
    assert real_play.kinds(job).count("repaired") == 1


# Turns ------------------------------------------------------------------------------------------------------


def _take(play: Play, worker: UUID, interval: float = 60) -> bool:
    taken: bool = play.one("select ledger.take_turn('sweep', %s, %s)", worker, interval)
    return taken


def test_a_chore_is_taken_once_an_interval_over_all_workers(play: Play) -> None:
    one, other = uuid4(), uuid4()
    assert [_take(play, one), _take(play, other), _take(play, one)] == [True, False, False]
    play.pass_time(61)
    assert [_take(play, other), _take(play, one)] == [True, False]


def test_a_chore_that_was_taken_and_failed_does_not_look_as_if_it_ran(play: Play) -> None:
    _take(play, play.worker)
    assert play.one("select ran_at from ops.chores") is None
    play.all("select ledger.sign_chore('sweep', %s, 2)", play.worker)
    first = play.one("select ran_at from ops.chores")
    assert first is not None
    play.pass_time(61)
    _take(play, play.worker)
    assert play.one("select ran_at from ops.chores") == first


def test_the_repairs_of_a_chore_add_up(play: Play) -> None:
    for repairs in (2, 0, 3):
        play.all("select ledger.sign_chore('sweep', %s, %s)", play.worker, repairs)
    assert play.one("select repairs from ops.chores") == 5
