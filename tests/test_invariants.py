"""The invariants of the design, one to five, each shown under faults that are made on purpose."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import UUID

import psycopg
import pytest
from crowds import at_once, watching
from ledger_play import Play, Work, items
from psycopg.rows import dict_row

from tasks.errors import Refused

ROUNDS = 20


def assert_whole(play: Play, *jobs: UUID) -> None:
    """Nothing drifts, nothing is left in the queue, and the histories have no gap."""
    assert play.drift() == []
    assert play.queue() == []
    for job in jobs:
        seqs = [event["seq"] for event in play.events(job)]
        assert seqs == list(range(1, play.job(job)["last_seq"] + 1))


@contextmanager
def shut(play: Play, table: str, when: str) -> Iterator[None]:
    """Inside, writing such rows fails, as with a full disk or a bug; so what happens inside must fail as a whole."""
    trigger = (
        f"create trigger shut before insert on {table} for each row when ({when}) execute function pg_temp.refuse()"
    )
    function = "create function pg_temp.refuse() returns trigger language plpgsql as $$ begin raise 'no'; end $$"
    with pytest.raises(psycopg.errors.RaiseException), play.connection.transaction():  # noqa: PT012
        play.connection.execute(function)
        play.connection.execute(trigger)  # type: ignore[arg-type]
        yield


# 1. No orphan -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_1_whatever_happens_in_whatever_order_nothing_is_orphaned(play: Play, seed: int) -> None:
    """A random walk through all transitions, with workers dying on the way; drift is empty after each step."""
    chance = random.Random(seed)
    jobs: list[UUID] = []
    held: list[Work] = []
    for step in range(150):
        play.pass_time(step * 10)
        _move_somehow(play, chance, jobs, held)
        assert play.drift() == []
    play.pass_time(100_000)
    while play.one("select promoted from ledger.promote_due(100)") or play.reconcile(timeout=1e9, losses=1000):
        pass
    play.finish_all()
    assert {play.job(job)["status"] for job in jobs} <= {"completed", "failed", "cancelled"}
    assert_whole(play, *jobs)


WISHES = ["submit", *["claim"] * 2, *["complete"] * 3, "fail", "retry", "release", "cancel", "reopen", "sweep"]


def _move_somehow(play: Play, chance: random.Random, jobs: list[UUID], held: list[Work]) -> None:
    match chance.choice(WISHES):
        case "submit":
            jobs.append(play.submit(chance.choice(["one", "line", "fan", "diamond"])))
        case "claim":
            held += play.begin_all(chance.randint(1, 4))
        case "sweep":
            play.all("select ledger.promote_due(%s)", chance.randint(1, 9))
            play.reconcile(lease=chance.choice([25, 60]), timeout=400)
        case "cancel" | "reopen" as wish if jobs:
            with suppress(Refused), play.connection.transaction():
                (play.cancel if wish == "cancel" else play.retry)(chance.choice(jobs))
        case wish if held:
            _settle(play, wish, chance, held.pop(chance.randrange(len(held))))


def _settle(play: Play, wish: str, chance: random.Random, work: Work) -> None:
    if wish == "complete":
        play.complete(work, work["item"], items(chance.choice([0, 1, 3])) if work["mapped"] else None)
    elif wish == "release":
        play.release(work)
    elif wish in ("fail", "retry"):
        play.fail(work, retry_in=chance.choice([0, 15]) if wish == "retry" else None)


@pytest.mark.parametrize("table", ["jobs", "job_steps", "job_events", "procrastinate.procrastinate_jobs"])
def test_1_submitting_writes_everything_or_nothing(play: Play, table: str) -> None:
    with shut(play, table, "true"):
        play.submit("line")
    tables = ("jobs", "job_steps", "job_step_totals", "job_events", "procrastinate.procrastinate_jobs")
    assert [play.one("select count(*) from " + table) for table in tables] == [0] * 5  # type: ignore[arg-type]


# 2. One step forward is one transaction -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "when"),
    [
        ("step_results", "true"),
        ("job_events", "new.kind = 'step_completed'"),
        ("job_steps", "new.step = 'second'"),
        ("procrastinate.procrastinate_jobs", "true"),
        ("artifacts", "true"),
    ],
)
def test_2_a_step_that_cannot_be_completed_wholly_is_not_completed_at_all(play: Play, table: str, when: str) -> None:
    job = play.submit("line")
    work = play.begin()
    file = {"name": "a.txt", "media_type": "text/plain", "bytes": 1, "sha256": "a" * 64}
    before = play.job(job), play.events(job), play.runs(job), play.queue()
    with shut(play, table, when):
        play.complete(work, artifacts=[file])
    assert (play.job(job), play.events(job), play.runs(job), play.queue()) == before
    assert play.all("select from step_results") == []
    assert play.complete(work, artifacts=[file])
    play.finish_all()
    assert play.job(job)["status"] == "completed"


def test_2_the_last_two_items_at_the_same_moment_open_the_join_once(real_play: Play, database_url: str) -> None:
    for _ in range(ROUNDS):
        job = real_play.submit("fan")
        real_play.complete(real_play.begin(), items=items(2))
        one, other = real_play.begin_all()
        done = at_once(real_play, database_url, lambda p, w=one: p.complete(w), lambda p, w=other: p.complete(w))
        assert done == [True, True]
        assert real_play.statuses(job, "total") == ["queued"]
        real_play.finish_all()
        assert real_play.kinds(job).count("completed") == 1
        assert_whole(real_play, job)


def test_2_two_sides_of_a_diamond_at_the_same_moment_meet_once(real_play: Play, database_url: str) -> None:
    for _ in range(ROUNDS):
        job = real_play.submit("diamond")
        real_play.complete(real_play.begin())
        left, right = real_play.begin_all()
        done = at_once(real_play, database_url, lambda p, w=left: p.complete(w), lambda p, w=right: p.complete(w))
        assert done == [True, True]
        assert real_play.statuses(job, "bottom") == ["queued"]
        real_play.finish_all()
        assert_whole(real_play, job)


# 3. Fenced ------------------------------------------------------------------------------------------------


def test_3_a_frozen_worker_that_comes_back_cannot_change_anything(play: Play) -> None:
    job = play.submit("fan")
    play.complete(play.begin(), items=items(2))
    frozen, _ = play.begin_all()
    play.beat(frozen)
    play.pass_time(31)
    play.reconcile()
    (taken,) = [work for work in play.begin_all() if work["step_run"] == frozen["step_run"]]
    assert taken["attempt"] == frozen["attempt"] + 1
    before = play.job(job), play.events(job), play.runs(job), play.queue(), play.failures(job)
    for late in (play.complete, play.fail, play.release, lambda work: play.report(work, 1, 1)):
        assert not late(frozen)
    assert play.beat(frozen) == [UUID(frozen["step_run"])]
    assert (play.job(job), play.events(job), play.runs(job), play.queue(), play.failures(job)) == before
    assert play.complete(taken)


def test_3_claims_at_the_same_moment_never_get_the_same_step_run(real_play: Play, database_url: str) -> None:
    jobs = {str(real_play.submit("one")) for _ in range(60)}

    def take(play: Play) -> list[str]:
        taken: list[str] = []
        while works := play.begin_all(3):
            taken += [work["job"] for work in works]
        return taken

    hands = at_once(real_play, database_url, *[take] * 6)
    taken = [job for hand in hands for job in hand]
    assert len(taken) == 60
    assert set(taken) == jobs
    assert {run["attempt"] for run in real_play.all("select attempt from job_steps")} == {1}


def test_3_two_results_of_one_attempt_at_the_same_moment_count_once(real_play: Play, database_url: str) -> None:
    for _ in range(ROUNDS):
        real_play.submit("line")
        work = real_play.begin()
        done = at_once(real_play, database_url, *[lambda p, w=work: p.complete(w)] * 2)
        assert sorted(done) == [False, True]
        real_play.finish_all()
    assert real_play.one("select count(*) from step_results") == 3 * ROUNDS


def test_3_a_result_and_a_recovery_at_the_same_moment_do_not_both_win(real_play: Play, database_url: str) -> None:
    for _ in range(ROUNDS):
        job = real_play.submit("one")
        work = real_play.begin()
        completed, recovered = at_once(
            real_play, database_url, lambda p, w=work: p.complete(w), lambda p: p.reconcile(lease=0)
        )
        assert completed != bool(recovered)
        assert real_play.job(job)["status"] == ("completed" if completed else "running")
        real_play.finish_all()
        assert_whole(real_play, job)


# 4. Terminal is terminal ------------------------------------------------------------------------------------


def test_4_cancelling_and_claiming_at_the_same_moment_leaves_nothing_behind(real_play: Play, database_url: str) -> None:
    for _ in range(ROUNDS):
        job = real_play.submit("line")
        works, before = at_once(real_play, database_url, lambda p: p.begin_all(), lambda p, j=job: p.cancel(j))
        assert before == ("running" if works else "queued")
        assert [real_play.complete(work) for work in works] == [False] * len(works)
        assert (real_play.job(job)["status"], real_play.statuses(job)) == ("cancelled", ["cancelled"])
        real_play.claim()
        assert_whole(real_play, job)


def test_4_completing_and_cancelling_at_the_same_moment_ends_one_way(real_play: Play, database_url: str) -> None:
    for _ in range(ROUNDS):
        job = real_play.submit("one")
        work = real_play.begin()
        completed, cancelled = at_once(
            real_play, database_url, lambda p, w=work: p.complete(w), lambda p, j=job: p.cancel(j)
        )
        assert completed != (cancelled == "running")
        if completed:
            assert isinstance(cancelled, Refused)
            assert cancelled.code == "job_is_over"
        assert real_play.job(job)["status"] == ("completed" if completed else "cancelled")
        assert_whole(real_play, job)


def test_4_failing_items_at_the_same_moment_fail_the_job_once(real_play: Play, database_url: str) -> None:
    for _ in range(ROUNDS // 2):
        job = real_play.submit("fan")
        real_play.complete(real_play.begin(), items=items(4))
        failed = at_once(real_play, database_url, *[lambda p, w=work: p.fail(w) for work in real_play.begin_all()])
        assert sorted(failed) == [False, False, False, True]
        assert real_play.kinds(job).count("failed") == 1
        assert_whole(real_play, job)


def test_4_reopening_and_submitting_the_like_at_the_same_moment_makes_one_live_job(
    real_play: Play, database_url: str
) -> None:
    for number in range(ROUNDS):
        old = real_play.submit("one", params={"width": number})
        real_play.fail(real_play.begin())
        reopened, sent = at_once(
            real_play,
            database_url,
            lambda p, j=old: p.retry(j),
            lambda p, n=number: p.send("one", params={"width": n}),
        )
        assert isinstance(reopened, Refused) or not sent.created
        assert real_play.finish_all() == 1
        assert real_play.drift() == []


# 5. Picked up is visible ------------------------------------------------------------------------------------


def test_5_a_pick_up_is_seen_on_job_and_queue_at_the_same_moment(real_play: Play, database_url: str) -> None:
    job = real_play.submit("line")

    def seen() -> tuple[str, str, str]:
        return real_play.job(job)["status"], real_play.run(job, "first")["status"], real_play.queue()[0]["status"]

    with psycopg.connect(database_url, row_factory=dict_row) as worker:
        assert real_play.on(worker).begin()["attempt"] == 1
        assert seen() == ("queued", "queued", "todo")
        worker.commit()
        assert seen() == ("running", "running", "doing")


def test_5_a_claim_that_is_not_committed_leaves_everything_as_it_was(real_play: Play, database_url: str) -> None:
    job = real_play.submit("line")
    with psycopg.connect(database_url, row_factory=dict_row) as worker:
        real_play.on(worker).begin()
        worker.rollback()
    assert real_play.kinds(job) == ["submitted"]
    assert real_play.begin()["attempt"] == 1


# All of them, under load --------------------------------------------------------------------------------------


def test_eight_hands_on_a_wide_fan_never_drift_and_number_their_events_in_commit_order(
    real_play: Play, database_url: str
) -> None:
    jobs = [real_play.submit("fan") for _ in range(2)]
    newest: dict[UUID, int] = dict.fromkeys(jobs, 0)

    def tail(play: Play) -> list[Any]:
        """Read on from the newest event seen; a number that is not the next one is a gap or came too late."""
        wrong = []
        for job in jobs:
            for event in play.all(
                "select seq from job_events where job_id = %s and seq > %s order by seq", job, newest[job]
            ):
                if event["seq"] != newest[job] + 1:
                    wrong.append((job, newest[job], event["seq"]))
                newest[job] = event["seq"]
        return wrong

    with watching(real_play, database_url, Play.drift) as drift, watching(real_play, database_url, tail) as gaps:
        for work in real_play.begin_all():
            real_play.complete(work, items=items(100))
        done = at_once(real_play, database_url, *[_work_on] * 8)
    assert sum(done) == 2 * 100 + 2
    assert (drift.seen, gaps.seen) == ([], [])
    assert min(drift.looks, gaps.looks) > 10
    assert {real_play.job(job)["status"] for job in jobs} == {"completed"}
    assert_whole(real_play, *jobs)


def _work_on(play: Play) -> int:
    """Claim a few at a time and settle them, some only at the second attempt, until the jobs are over."""
    chance, done, deadline = random.Random(), 0, time.monotonic() + 60
    while play.one("select exists (select from jobs where status in ('queued', 'running'))"):
        assert time.monotonic() < deadline
        for work in play.begin_all(chance.randint(1, 5)):
            if work["attempt"] == 1 and chance.random() < 0.2:
                chance.choice([play.release, lambda w: play.fail(w, retry_in=0)])(work)
            else:
                done += play.complete(work, work["item"])
    return done
