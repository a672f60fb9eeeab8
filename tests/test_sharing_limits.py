"""Limits: a busy provider slows everybody, deadlines end jobs, delays cost nothing, and killers are quarantined."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from ledger_play import Play, Row, items, refused
from waiting import following
from workers import running_worker

from tasks import ledger

PACKAGES = ("sample_pipelines", "sample_graphs")


@pytest.fixture
def play(connection: psycopg.Connection[Row]) -> Play:
    return Play(connection, PACKAGES)


# Slow-down ----------------------------------------------------------------------------------------------


def slow_down(play: Play, work: Row, seconds: float) -> None:
    arguments = [work["step_run"], work["attempt"], seconds, seconds]
    play.all("select ledger.fail(%s, %s, 'provider_busy', 'It is busy.', '', %s, %s)", *arguments)


def test_a_provider_that_asks_for_time_stops_its_queue_and_is_the_reason_for_waiting(play: Play) -> None:
    play.connection.execute("select set_config('request.jwt.claims', %s, true)", [f'{{"sub": "{play.user}"}}'])
    play.submit("one")
    other = play.submit("one")
    slow_down(play, play.begin(), 60)
    assert play.begin_all() == []
    waiting = play.one("select access.waiting_for(%s)", other)
    assert (waiting["reason"], waiting["queue"]) == ("rate_limit", "llm")
    assert waiting["until"] is not None
    play.pass_time(61)
    assert play.begin()["job"] == str(other)
    assert play.drift() == []


def test_a_slow_down_leaves_other_queues_alone(play: Play) -> None:
    play.submit("one")
    slow_down(play, play.begin(), 60)
    document = play.submit("reading", document_id=play.add_document())
    assert play.begin()["job"] == str(document)


def test_a_shorter_slow_down_does_not_end_a_longer_one(play: Play) -> None:
    for _ in range(3):
        play.submit("one")
    first, second = play.begin_all(2)
    slow_down(play, first, 60)
    slow_down(play, second, 5)
    play.pass_time(30)
    assert play.begin_all() == []


def test_two_workers_leave_a_busy_provider_alone_until_then(real_play: Play, database_url: str, tmp_path: Path) -> None:
    play = Play(real_play.connection, PACKAGES)

    def slowed() -> Any:
        return play.all("select until from ops.slowdowns")

    def all_over() -> bool:
        return play.one("select count(*) from jobs where status <> 'completed'") == 0

    settings: dict[str, Any] = {"worker_queues": "llm", "heartbeat_s": 0.2}
    with (
        following(database_url) as follower,
        running_worker(database_url, tmp_path / "one", ",".join(PACKAGES), **settings),
        running_worker(database_url, tmp_path / "two", ",".join(PACKAGES), **settings),
    ):
        follower.until(lambda: play.one("select count(*) from ops.workers") == 2)
        busy = play.submit("limited", params={"width": 2})
        (slowdown,) = follower.until(slowed)
        others = [play.submit("one", params={"width": nr}) for nr in range(6)]
        follower.until(all_over)
    first = play.one("select min(started_at) from job_steps where job_id = any(%s)", [*others, busy])
    assert first >= slowdown["until"]
    assert play.run(busy, "ask")["attempt"] == 2
    assert play.drift() == []


# Deadlines ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["queued", "running", "retrying", "held", "awaiting review"])
def test_a_job_that_is_not_done_by_its_deadline_fails_wherever_it_is(play: Play, state: str) -> None:
    job = play.submit("reviewed", deadline_s=100)
    match state:
        case "running":
            play.begin()
        case "retrying":
            play.fail(play.begin(), retry_in=500)
        case "held":
            ledger.pause(play.connection, "tenant", str(play.tenant))
        case "awaiting review":
            play.complete(play.begin(), 1)
    play.pass_time(99)
    play.reconcile()
    assert play.job(job)["status"] != "failed"
    play.pass_time(101)
    assert play.reconcile() == 1
    assert (play.job(job)["status"], play.job(job)["error_code"]) == ("failed", "deadline_exceeded")
    assert play.queue() == []
    assert play.drift() == []


def test_a_job_that_is_done_has_met_its_deadline(play: Play) -> None:
    job = play.submit("one", deadline_s=100)
    play.finish_all()
    play.pass_time(200)
    assert play.reconcile() == 0
    assert play.job(job)["status"] == "completed"


def test_a_person_who_retries_lifts_the_deadline(play: Play) -> None:
    job = play.submit("one", deadline_s=100)
    play.pass_time(101)
    play.reconcile()
    play.retry(job)
    play.finish_all()
    assert (play.job(job)["status"], play.job(job)["deadline_at"]) == ("completed", None)


# Delayed retries ----------------------------------------------------------------------------------------


def test_delayed_retries_are_not_in_the_queue(play: Play) -> None:
    play.submit("fan")
    play.complete(play.begin(), 0, items(50))
    for work in play.begin_all():
        play.fail(work, retry_in=600)
    assert play.queue() == []
    other = play.submit("one")
    assert [row["work"]["job"] for row in play.claim(most=100)] == [str(other)]
    assert play.drift() == []


# Quarantine ---------------------------------------------------------------------------------------------


def lose_worker(play: Play, job: UUID, times: int = 3) -> None:
    for lost in range(1, times + 1):
        play.begin()
        play.pass_time(100 * lost)
        play.reconcile(losses=times)
    assert play.job(job)["error_code"] == "worker_lost"


def test_a_document_that_kills_workers_is_refused_until_a_person_retries(play: Play) -> None:
    document = play.add_document()
    job = play.submit("reading", document_id=document)
    lose_worker(play, job)
    with refused(play.connection, "document_quarantined", 409) as caught:
        play.submit("reading", document_id=document)
    assert caught.value.details == {"job_id": str(job)}
    play.retry(job)
    assert play.begin()["job"] == str(job)
    play.submit("reading", document_id=document)


def test_quarantine_is_for_that_document_and_pipeline_only(play: Play) -> None:
    document = play.add_document()
    job = play.submit("reading", document_id=document)
    lose_worker(play, job)
    play.submit("reading", document_id=play.add_document("Twice."))
    play.submit("one", document_id=None)


def test_a_document_whose_job_failed_otherwise_is_not_quarantined(play: Play) -> None:
    document = play.add_document()
    play.submit("reading", document_id=document)
    play.fail(play.begin())
    play.submit("reading", document_id=document)


# All jobs of a document ---------------------------------------------------------------------------------


def test_all_live_jobs_of_a_document_are_cancelled_at_once(play: Play) -> None:
    document, other = play.add_document(), play.add_document("Twice.")
    done = play.submit("reading", document_id=document)
    play.finish_all()
    running = play.submit("reading", document_id=document)
    work = play.begin()
    queued = play.submit("reading", document_id=document)
    beside = play.submit("reading", document_id=other)
    stopped = ledger.cancel_document(play.connection, document, play.tenant, play.user, "It was withdrawn.")
    assert stopped == 2
    assert [play.job(job)["status"] for job in (done, running, queued, beside)] == [
        "completed", "cancelled", "cancelled", "queued",
    ]  # fmt: skip
    assert not play.complete(work, 1)
    assert play.events(queued)[-1]["message"] == "It was withdrawn."
    assert ledger.cancel_document(play.connection, document, play.tenant, play.user) == 0
    assert play.drift() == []


def test_another_tenant_cannot_cancel_the_jobs_of_a_document(play: Play) -> None:
    document = play.add_document()
    job = play.submit("reading", document_id=document)
    assert ledger.cancel_document(play.connection, document, play.add_tenant(), play.user) == 0
    assert play.job(job)["status"] == "queued"
