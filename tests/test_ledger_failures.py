"""Failing, trying again, cancelling and reopening: what stops, what waits, and what may never change again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from ledger_play import Play, Work, items, refused

# Trying again -----------------------------------------------------------------------------------------


def test_a_failure_that_may_pass_waits_in_the_ledger_and_not_in_the_queue(play: Play) -> None:
    job = play.submit("line")
    assert play.fail(play.begin(), "provider_busy", retry_in=60)
    run = play.run(job, "first")
    assert (run["status"], run["failures"], run["error_code"]) == ("retrying", 1, "provider_busy")
    assert (run["queue_job_id"], run["worker_id"], play.queue()) == (None, None, [])
    assert play.job(job)["status"] == "running"
    assert play.drift() == []


def test_the_event_of_a_retry_says_why_and_when(play: Play) -> None:
    job = play.submit("line")
    play.fail(play.begin(), "provider_busy", retry_in=60)
    event, run = play.events(job)[-1], play.run(job, "first")
    assert (event["kind"], event["message"], event["data"]["code"]) == (
        "step_retrying", "It is provider_busy.", "provider_busy",
    )  # fmt: skip
    wait = run["due_at"] - event["at"]
    assert abs(wait - timedelta(seconds=60)) < timedelta(seconds=1)


def test_a_retry_without_delay_is_queued_at_once(play: Play) -> None:
    job = play.submit("line")
    play.fail(play.begin(), retry_in=0)
    assert play.statuses(job) == ["queued"]
    assert play.kinds(job)[-1] == "step_retrying"
    work = play.begin()
    assert (work["attempt"], work["failures"], work["previous_error"]) == (2, 1, "broken")


def test_what_is_due_is_queued_and_nothing_else(play: Play) -> None:
    soon, late = play.submit("line"), play.submit("line")
    play.fail(play.begin(), retry_in=10)
    play.fail(play.begin(), retry_in=100)
    play.pass_time(11)
    promoted = play.all("select * from ledger.promote_due(100)")[0]
    assert promoted["promoted"] == 1
    assert 80 < promoted["next_in"] < 90
    assert (play.statuses(soon), play.statuses(late)) == (["queued"], ["retrying"])
    assert play.run(soon, "first")["due_at"] is None
    assert play.drift() == []


def test_no_more_is_promoted_than_was_asked_for_and_the_oldest_first(play: Play) -> None:
    jobs = [play.submit("line") for _ in range(3)]
    for wait in (3, 1, 2):
        play.fail(play.begin(), retry_in=wait)
    play.pass_time(10)
    assert play.one("select promoted from ledger.promote_due(2)") == 2
    assert [play.statuses(job) for job in jobs] == [["retrying"], ["queued"], ["queued"]]


def test_promoting_says_that_nothing_waits(play: Play) -> None:
    assert play.all("select * from ledger.promote_due(10)") == [{"promoted": 0, "next_in": None}]


def test_a_retried_step_that_succeeds_forgets_its_error(play: Play) -> None:
    job = play.submit("line")
    play.fail(play.begin(), retry_in=0)
    play.complete(play.begin())
    run = play.run(job, "first")
    assert (run["status"], run["error_code"], run["failures"]) == ("completed", None, 1)
    assert play.job(job)["error_code"] is None


# Failing ----------------------------------------------------------------------------------------------


def test_a_failure_says_three_things_and_ends_the_job(play: Play) -> None:
    job = play.submit("line")
    assert play.fail(play.begin(), "file_damaged", detail="byte 17 of the secret file")
    row, run = play.job(job), play.run(job, "first")
    assert (row["status"], row["error_code"], row["error_message"]) == ("failed", "file_damaged", "It is file_damaged.")
    assert row["finished_at"] is not None
    assert (run["status"], run["error_code"], run["failures"]) == ("failed", "file_damaged", 1)
    assert play.kinds(job)[-2:] == ["step_failed", "failed"]
    (failure,) = play.failures(job)
    assert (failure["step"], failure["attempt"], failure["detail"]) == ("first", 1, "byte 17 of the secret file")
    assert play.queue() == play.drift() == []


def test_every_attempts_detail_is_kept_for_the_operator_and_for_nobody_else(play: Play) -> None:
    job = play.submit("line")
    play.fail(play.begin(), retry_in=0, detail="first secret")
    play.fail(play.begin(), detail="second secret")
    assert [failure["detail"] for failure in play.failures(job)] == ["first secret", "second secret"]
    for rows in (play.events(job), play.runs(job), [play.job(job)]):
        assert "secret" not in str(rows)


def test_a_failing_item_stops_its_siblings(play: Play) -> None:
    job = play.submit("fan")
    play.complete(play.begin(), items=items(5))
    done, failing, running = play.begin_all(3)
    play.complete(done)
    play.fail(failing)
    statuses = play.statuses(job, "double")
    assert statuses == ["completed", "failed", "cancelled", "cancelled", "cancelled"]
    assert play.job(job)["status"] == "failed"
    assert not play.complete(running)
    assert play.queue() == play.drift() == []


def test_a_failing_side_stops_the_other_side(play: Play) -> None:
    job = play.submit("diamond")
    play.complete(play.begin())
    left, right = play.begin_all()
    play.fail(left)
    assert not play.complete(right)
    assert play.statuses(job) == ["completed", "failed", "cancelled"]


def test_a_failure_stops_what_waits_for_a_retry(play: Play) -> None:
    job = play.submit("diamond")
    play.complete(play.begin())
    left, right = play.begin_all()
    play.fail(left, retry_in=60)
    play.fail(right)
    assert play.statuses(job) == ["completed", "cancelled", "failed"]
    play.pass_time(100)
    assert play.one("select promoted from ledger.promote_due(10)") == 0


def test_a_stale_failure_is_refused_and_nothing_of_it_is_kept(play: Play) -> None:
    job = play.submit("line")
    stale = play.begin()
    play.release(stale)
    play.begin()
    before = play.job(job), play.events(job), play.runs(job)
    assert not play.fail(stale)
    assert (play.job(job), play.events(job), play.runs(job)) == before
    assert play.failures(job) == []


# Cancelling -------------------------------------------------------------------------------------------


def test_a_queued_job_is_cancelled_at_once(play: Play) -> None:
    job = play.submit("line")
    assert play.cancel(job) == "queued"
    assert (play.job(job)["status"], play.statuses(job)) == ("cancelled", ["cancelled"])
    assert play.job(job)["finished_at"] is not None
    assert play.queue() == play.drift() == []


def test_cancelling_records_who_and_why(play: Play) -> None:
    job = play.submit("line")
    play.cancel(job, "The wrong file.")
    event = play.events(job)[-1]
    assert (event["kind"], event["actor"], event["message"]) == ("cancelled", play.user, "The wrong file.")


def test_a_running_job_is_cancelled_and_its_attempts_are_stale(play: Play) -> None:
    job = play.submit("fan")
    play.complete(play.begin(), items=items(4))
    works = play.begin_all(2)
    assert play.cancel(job) == "running"
    assert play.statuses(job, "double") == ["cancelled"] * 4
    assert [play.complete(works[0]), play.fail(works[1]), play.release(works[1])] == [False] * 3
    assert {str(run) for run in play.beat(*works)} == {work["step_run"] for work in works}
    assert play.queue() == play.drift() == []


def test_a_job_that_waits_for_a_retry_is_cancelled(play: Play) -> None:
    job = play.submit("line")
    play.fail(play.begin(), retry_in=60)
    play.cancel(job)
    play.pass_time(100)
    assert play.one("select promoted from ledger.promote_due(10)") == 0
    assert play.statuses(job) == ["cancelled"]


def test_a_job_that_is_not_there_or_anothers_cannot_be_cancelled(play: Play) -> None:
    foreign = play.submit("line", tenant_id=play.add_tenant())
    for job in (uuid4(), foreign):
        with refused(play.connection, "job_not_found", 404):
            play.cancel(job)
    assert play.job(foreign)["status"] == "queued"


# Reopening --------------------------------------------------------------------------------------------


def test_a_failed_job_goes_on_where_it_failed(play: Play) -> None:
    job = play.submit("line")
    play.complete(play.begin())
    play.fail(play.begin())
    play.retry(job)
    row, run = play.job(job), play.run(job, "second")
    assert (row["status"], row["error_code"], row["finished_at"]) == ("queued", None, None)
    assert (run["status"], run["failures"], run["error_code"], run["attempt"]) == ("queued", 0, None, 1)
    event = play.events(job)[-1]
    assert (event["kind"], event["actor"]) == ("reopened", play.user)
    assert play.drift() == []
    assert play.begin()["attempt"] == 2
    assert play.kinds(job)[-2:] == ["started", "step_started"]


def test_a_reopened_map_runs_only_the_items_that_are_not_done(play: Play) -> None:
    job = play.submit("fan")
    play.complete(play.begin(), items=items(5))
    works = play.begin_all(3)
    play.complete(works[0])
    play.fail(works[1])
    play.retry(job)
    assert play.drift() == []
    works = play.begin_all()
    assert [work["item"] for work in works] == [1, 2, 3, 4]
    assert all(play.complete(work) for work in works)
    play.finish_all()
    assert play.job(job)["status"] == "completed"
    assert play.drift() == []


def test_a_reopened_job_keeps_what_it_has_shown(play: Play) -> None:
    job = play.submit("line")
    play.complete(play.begin())
    work = play.begin()
    play.report(work, 9, 10)
    play.fail(work)
    before = play.job(job)
    play.retry(job)
    after = play.job(job)
    assert (after["percent"], after["started_at"]) == (before["percent"], before["started_at"])


def test_a_job_can_fail_and_be_reopened_again_and_again(play: Play) -> None:
    job = play.submit("line")
    for attempt in range(1, 4):
        work = play.begin()
        assert work["attempt"] == attempt
        play.fail(work)
        play.retry(job)
    play.finish_all()
    assert play.job(job)["status"] == "completed"
    assert play.kinds(job).count("reopened") == 3


@pytest.mark.parametrize("status", ["queued", "running", "completed", "cancelled"])
def test_only_a_failed_job_can_be_reopened(play: Play, status: str) -> None:
    job = _job_that_is(play, status)
    with refused(play.connection, "job_did_not_fail", 409) as caught:
        play.retry(job)
    assert caught.value.details == {"status": status}
    assert status in caught.value.message


def test_a_job_that_is_not_there_or_anothers_cannot_be_reopened(play: Play) -> None:
    foreign = play.submit("line", tenant_id=play.add_tenant())
    play.fail(play.begin())
    for job in (uuid4(), foreign):
        with refused(play.connection, "job_not_found", 404):
            play.retry(job)
    assert play.job(foreign)["status"] == "failed"


def test_a_failed_job_is_not_reopened_beside_its_like(play: Play) -> None:
    old = play.submit("one", params={"width": 1})
    play.fail(play.begin())
    play.submit("one", params={"width": 1})
    with refused(play.connection, "newer_job_exists", 409):
        play.retry(old)
    assert play.job(old)["status"] == "failed"
    assert play.drift() == []


# Terminal is terminal -----------------------------------------------------------------------------------


def _job_that_is(play: Play, status: str) -> UUID:
    job = play.submit("line")
    match status:
        case "running":
            play.begin()
        case "completed":
            play.finish_all()
        case "failed":
            play.fail(play.begin())
        case "cancelled":
            play.cancel(job)
    assert play.job(job)["status"] == status
    return job


CHANGES: dict[str, Callable[[Play, Work], object]] = {
    "complete": lambda play, work: play.complete(work),
    "fail": lambda play, work: play.fail(work),
    "retry a step": lambda play, work: play.fail(work, retry_in=0),
    "release": lambda play, work: play.release(work),
    "report": lambda play, work: play.report(work, 1, 2, "Still here."),
    "promote": lambda play, work: play.all("select ledger.promote_due(100)"),
    "reconcile": lambda play, work: play.reconcile(lease=0, timeout=0, losses=1),
    "claim": lambda play, work: play.begin_all(),
    "beat": lambda play, work: play.beat(work),
}


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
@pytest.mark.parametrize("change", CHANGES)
def test_no_transition_changes_a_job_that_is_over(play: Play, end: str, change: str) -> None:
    job = play.submit("diamond")
    play.complete(play.begin())
    left, right = play.begin_all()
    if end == "completed":
        play.complete(left)
        play.complete(right)
        play.complete(play.begin())
    elif end == "failed":
        play.fail(left)
    else:
        play.cancel(job)
    before = play.job(job), play.events(job), play.runs(job), play.artifacts(job)
    assert before[0]["status"] == end
    play.pass_time(10_000)
    for work in (left, right):
        CHANGES[change](play, work)
    assert (play.job(job), play.events(job), play.runs(job), play.artifacts(job)) == before


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
def test_a_job_that_is_over_cannot_be_cancelled(play: Play, end: str) -> None:
    job = _job_that_is(play, end)
    with refused(play.connection, "job_is_over", 409) as caught:
        play.cancel(job)
    assert caught.value.details == {"status": end}
    assert end in caught.value.message
