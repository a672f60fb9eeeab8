"""Gates: open without holding anybody, are decided once, and every way on from them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from gate_play import PACKAGES, branching, decide, open_reviews, reviews, waiting, work_on
from ledger_play import Play, Row, refused
from psycopg.rows import dict_row
from waiting import following
from workers import running_worker

from tasks import ledger
from tasks.errors import Refused


@pytest.fixture
def play(connection: psycopg.Connection[Row]) -> Iterator[Play]:
    """Nothing drifts in any of these tests."""
    play = Play(connection, PACKAGES)
    yield play
    assert play.drift() == []


# Open ---------------------------------------------------------------------------------------------------


def test_an_open_gate_holds_no_worker_and_no_queue_job(play: Play) -> None:
    job = waiting(play)
    assert play.queue() == []
    gate = play.run(job, "approval")
    assert (gate["status"], gate["worker_id"], gate["queue_job_id"], gate["due_at"]) == ("gated", None, None, None)
    (review,) = open_reviews(play, job).values()
    assert (review["step_run"], review["decided_by"]) == (gate["id"], None)


def test_a_job_awaits_review_only_when_nothing_else_moves(play: Play) -> None:
    job, works = branching(play)
    assert (play.job(job)["status"], list(open_reviews(play, job))) == ("running", ["approval"])
    for work in works.values():
        play.complete(work, work["item"])
        assert play.job(job)["status"] == "running"
    play.complete(play.begin(), 0)
    assert (play.job(job)["status"], set(open_reviews(play, job))) == ("awaiting_review", {"approval", "second_look"})


def test_a_job_of_two_gates_awaits_review_again_after_the_first_decision(play: Play) -> None:
    job, _ = branching(play)
    for work in play.all("select id, attempt, item from job_steps where status = 'running'"):
        play.complete({"step_run": str(work["id"]), "attempt": work["attempt"]}, work["item"])
    work_on(play)
    decide(play, job, "approval", "approved")
    assert play.job(job)["status"] == "awaiting_review"
    assert play.queue() == []
    decide(play, job, "second_look", "approved")
    assert play.job(job)["status"] == "running"
    assert work_on(play) == [("ending", None)]
    assert play.job(job)["status"] == "completed"


def test_an_open_gate_survives_months_of_reconciling(play: Play) -> None:
    job = play.submit("lenient")
    work_on(play)
    for days in (1, 30, 200):
        play.pass_time(days * 86_400)
        assert play.reconcile() == 0
    assert "approval" in open_reviews(play, job)
    assert play.job(job)["status"] == "awaiting_review"


# Decided ------------------------------------------------------------------------------------------------


def test_approving_goes_on_and_gives_the_decision_to_the_steps_after_the_gate(play: Play) -> None:
    job = waiting(play)
    decide(play, job, "approval", "approved", "very good")
    work = play.begin()
    assert (work["step"], play.job(job)["status"]) == ("final", "running")
    verdict = {"decision": "approved", "comment": "very good", "by": str(play.user), "edits": {}}
    assert work["inputs"]["approval"]["value"] == verdict
    play.complete(work, 1)
    assert (play.job(job)["status"], play.job(job)["percent"]) == ("completed", 100)
    assert reviews(play, job) == [("approval", "approved")]


def test_rejecting_fails_the_job_with_what_the_reviewer_said(play: Play) -> None:
    job = waiting(play)
    decide(play, job, "approval", "rejected", "too short")
    row = play.job(job)
    assert (row["status"], row["error_code"]) == ("failed", "rejected")
    assert row["error_message"] == "A reviewer rejected it: too short"
    assert play.run(job, "approval")["status"] == "failed"
    assert play.begin_all() == []


def test_rejecting_stops_what_is_being_done_beside_the_gate(play: Play) -> None:
    job, works = branching(play)
    decide(play, job, "approval", "rejected")
    assert not play.complete(works[0], 0)
    assert set(play.statuses(job, "beside")) == {"cancelled"}
    assert play.queue() == []


def test_a_decision_is_a_line_of_the_history(play: Play) -> None:
    job = waiting(play)
    decide(play, job, "approval", "approved", "very good")
    lines = {event["kind"]: event for event in play.events(job)}
    assert play.kinds(job)[-4:] == ["gate_opened", "awaiting_review", "gate_decided", "step_completed"]
    decided = lines["gate_decided"]
    assert (decided["actor"], decided["message"], decided["step"]) == (play.user, "very good", "approval")
    assert decided["data"]["decision"] == "approved"
    assert [event["seq"] for event in play.events(job)] == list(range(1, len(play.events(job)) + 1))


def test_a_decision_is_refused_when_there_was_one_and_says_who_and_when(play: Play) -> None:
    job = waiting(play)
    (review,) = open_reviews(play, job).values()
    decide(play, job, "approval", "approved")
    with refused(play.connection, "already_decided", 409) as caught:
        ledger.decide(play.connection, review["id"], play.tenant, uuid4(), "rejected")
    details = caught.value.details
    assert (details["status"], details["decided_by"]) == ("approved", str(play.user))
    assert details["decided_at"] is not None
    assert play.job(job)["status"] == "running"


def test_another_tenants_review_is_refused_as_if_it_were_not_there(play: Play) -> None:
    (review,) = open_reviews(play, waiting(play)).values()
    with refused(play.connection, "review_not_found", 404):
        ledger.decide(play.connection, review["id"], play.add_tenant(), play.user, "approved")


@pytest.mark.parametrize("round", range(5))
def test_of_two_people_at_the_same_instant_one_decides_and_the_other_is_told(
    real_play: Play, database_url: str, round: int
) -> None:
    job = waiting(real_play)
    (review,) = open_reviews(real_play, job).values()
    people = {"approved": uuid4(), "rejected": uuid4()}
    outcomes: dict[str, UUID | Refused] = {}
    ready = threading.Barrier(len(people))

    def press(decision: Any) -> None:
        with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as own:
            ready.wait()
            try:
                outcomes[decision] = ledger.decide(own, review["id"], real_play.tenant, people[decision], decision)
            except Refused as refusal:
                outcomes[decision] = refusal

    threads = [threading.Thread(target=press, args=[decision]) for decision in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [decision for decision, outcome in outcomes.items() if outcome == job]
    (told,) = [outcome for outcome in outcomes.values() if isinstance(outcome, Refused)]
    assert (told.code, told.status) == ("already_decided", 409)
    assert (told.details["status"], told.details["decided_by"]) == (winner, str(people[winner]))
    assert real_play.kinds(job).count("gate_decided") == 1
    assert real_play.drift() == []


# Otherwise ended ----------------------------------------------------------------------------------------


def test_a_gate_that_nobody_decides_in_time_fails_its_job(play: Play) -> None:
    job = waiting(play)
    play.beat()
    play.pass_time(3599)
    play.reconcile()
    assert play.job(job)["status"] == "awaiting_review"
    play.pass_time(3601)
    play.reconcile()
    assert (play.job(job)["status"], play.job(job)["error_code"]) == ("failed", "gate_expired")
    assert reviews(play, job) == [("approval", "expired")]
    assert play.reconcile() == 0


def test_cancelling_a_job_withdraws_its_gate(play: Play) -> None:
    job = waiting(play)
    (review,) = open_reviews(play, job).values()
    assert play.cancel(job) == "awaiting_review"
    assert reviews(play, job) == [("approval", "withdrawn")]
    with refused(play.connection, "already_decided", 409):
        ledger.decide(play.connection, review["id"], play.tenant, play.user, "approved")
    assert play.job(job)["status"] == "cancelled"


def test_a_failure_beside_a_gate_withdraws_it(play: Play) -> None:
    job, works = branching(play)
    play.fail(works[0])
    assert reviews(play, job) == [("approval", "withdrawn")]


@pytest.mark.parametrize("end", ["rejected", "expired"])
def test_retrying_a_job_that_ended_at_its_gate_opens_the_gate_again(play: Play, end: str) -> None:
    job = waiting(play)
    if end == "rejected":
        decide(play, job, "approval", "rejected")
    else:
        play.pass_time(3601)
        play.reconcile()
    play.retry(job)
    assert play.job(job)["status"] == "awaiting_review"
    assert reviews(play, job) == [("approval", end), ("approval", "open")]
    assert play.queue() == []
    decide(play, job, "approval", "approved")
    work_on(play)
    assert play.job(job)["status"] == "completed"


def test_retrying_a_job_that_failed_beside_its_gate_opens_the_gate_and_does_the_rest(play: Play) -> None:
    job, works = branching(play)
    play.complete(works[0], 0)
    play.fail(works[1])
    play.retry(job)
    assert (play.job(job)["status"], set(open_reviews(play, job))) == ("queued", {"approval"})
    assert work_on(play) == [("beside", 1), ("beside", 2), ("gathered", None)]
    assert play.job(job)["status"] == "awaiting_review"


# With workers -------------------------------------------------------------------------------------------


def test_a_gate_outlives_the_workers_before_and_after_it(real_play: Play, database_url: str, tmp_path: Path) -> None:
    def status_is(status: str) -> bool:
        return bool(real_play.job(job)["status"] == status)

    job = real_play.submit("reviewed", params={"width": 2})
    with following(database_url) as follower:
        with running_worker(database_url, tmp_path / "before", "sample_pipelines", worker_queues="llm"):
            follower.until(lambda: status_is("awaiting_review"))
            assert real_play.one("select held from ops.workers") == {}
        assert real_play.drift() == []
        decide(real_play, job, "approval", "approved", "fine")
        with running_worker(database_url, tmp_path / "after", "sample_pipelines", worker_queues="llm"):
            follower.until(lambda: status_is("completed"))
    run = real_play.run(job, "final")
    assert real_play.one("select value from step_results where id = %s", run["result_id"]) == {"value": 6}
    assert real_play.drift() == []
