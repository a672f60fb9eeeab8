"""Submitting: job, first step runs, queue jobs and first event in one, or a refusal and nothing."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import psycopg
import pytest
import sample_pipelines
from ledger_play import Play, refused
from psycopg.rows import dict_row

from tasks import ledger
from tasks.pipeline import Pipeline


def test_submitting_writes_job_step_run_queue_job_and_event(play: Play) -> None:
    sent = play.send("line", params={"width": 4})
    job = play.job(sent.job_id)
    (run,) = play.runs(sent.job_id)
    (queued,) = play.queue()
    (event,) = play.events(sent.job_id)
    assert sent.created
    assert (job["status"], job["stage"], job["percent"], job["params"]) == ("queued", "initializing", 0, {"width": 4})
    assert (job["created_by"], job["started_at"], job["finished_at"]) == (play.user, None, None)
    assert (run["step"], run["status"], run["attempt"], run["queue_job_id"]) == ("first", "queued", 0, queued["id"])
    assert (queued["status"], queued["queue_name"], queued["lock"]) == ("todo", "llm", None)
    assert (event["seq"], event["kind"], event["actor"]) == (1, "submitted", play.user)
    assert event["data"] == {"pipeline": "line", "status": "queued", "percent": 0}
    assert play.drift() == []


def test_a_queue_job_carries_ids_and_nothing_else(play: Play) -> None:
    play.submit("line", params={"width": 4, "mark": "x" * 5000})
    (queued,) = play.queue()
    assert queued["args"] == {"step_run": str(play.one("select id from job_steps")), "tenant": str(play.tenant)}


def test_every_step_without_upstream_is_queued_at_once(play: Play) -> None:
    twins = Pipeline("twins", title="Two beginnings")

    @twins.step(stage="parsing", queue="llm")
    async def left() -> int:
        return 1

    @twins.step(stage="parsing")
    def right() -> int:
        return 2

    ledger.publish(play.connection, [twins], "tests")
    job = play.submit("twins", params={})
    assert sorted((run["step"], run["queue"]) for run in play.runs(job)) == [("left", "llm"), ("right", "cpu")]
    assert len(play.queue()) == 2


def test_an_unknown_pipeline_is_refused(play: Play) -> None:
    with refused(play.connection, "unknown_pipeline", 422):
        play.send("nonesuch")
    assert play.queue() == []


def test_a_retired_pipeline_is_refused(play: Play) -> None:
    ledger.publish(play.connection, [sample_pipelines.one], "tests")
    with refused(play.connection, "unknown_pipeline", 422):
        play.send("line")
    assert play.send("one").created


def test_a_job_in_flight_finishes_on_the_graph_it_was_submitted_with(play: Play) -> None:
    job = play.submit("line")
    ledger.publish(play.connection, [sample_pipelines.one], "tests")
    play.finish_all()
    assert play.job(job)["status"] == "completed"
    assert [run["step"] for run in play.runs(job)] == ["first", "second", "third"]


def test_a_pipeline_that_changed_since_the_parameters_were_checked_is_refused(play: Play) -> None:
    with refused(play.connection, "pipeline_changed", 409):
        play.send("line", graph="0" * 64)
    assert play.send("line", graph=sample_pipelines.line.digest()).created


def test_a_document_that_is_not_there_is_refused(play: Play) -> None:
    with refused(play.connection, "document_not_found", 404):
        play.send("reading", document_id=uuid4())


def test_another_tenants_document_is_refused_as_if_it_were_not_there(play: Play) -> None:
    foreign = play.add_document(tenant=play.add_tenant())
    with refused(play.connection, "document_not_found", 404):
        play.send("reading", document_id=foreign)


def test_a_kind_of_document_that_the_pipeline_does_not_take_is_refused(play: Play) -> None:
    film = play.add_document(kind="mp4")
    with refused(play.connection, "document_not_accepted", 422) as caught:
        play.send("reading", document_id=film)
    assert caught.value.details == {"kind": "mp4", "accepts": ["txt", "md"]}
    assert "MP4" in caught.value.message


def test_a_pipeline_that_reads_a_document_is_refused_without_one(play: Play) -> None:
    with refused(play.connection, "document_required", 422):
        play.send("reading")


def test_a_refusal_leaves_no_row(play: Play) -> None:
    with refused(play.connection, "document_not_found", 404):
        play.send("reading", document_id=uuid4())
    assert play.all("select from jobs") + play.all("select from job_steps") + play.all("select from job_events") == []
    assert play.queue() == []


# Equal requests -----------------------------------------------------------------------------------


def test_the_same_key_and_request_give_the_same_job(play: Play) -> None:
    first = play.send("line", params={"width": 1}, idempotency_key="k")
    again = play.send("line", params={"width": 1}, idempotency_key="k")
    assert again == ledger.Submitted(first.job_id, created=False)
    assert len(play.queue()) == 1
    assert play.kinds(first.job_id) == ["submitted"]


@pytest.mark.parametrize("other", [{"params": {"width": 2}}, {"pipeline": "one"}, {"fresh": True}])
def test_the_same_key_and_another_request_are_refused_naming_the_first_job(
    play: Play, other: dict[str, object]
) -> None:
    request = {"pipeline": "line", "params": {"width": 1}, "idempotency_key": "k"}
    first = play.submit(**request)
    with refused(play.connection, "idempotency_key_reused", 422) as caught:
        play.send(**(request | other))
    assert caught.value.details == {"job_id": str(first)}
    assert str(first) in caught.value.message


def test_the_same_key_answers_also_when_its_job_has_failed(play: Play) -> None:
    first = play.send("one", params={}, idempotency_key="k")
    play.fail(play.begin())
    assert play.send("one", params={}, idempotency_key="k") == ledger.Submitted(first.job_id, created=False)


def test_two_tenants_may_use_the_same_key(play: Play) -> None:
    first = play.send("one", params={}, idempotency_key="k")
    other = play.send("one", params={}, idempotency_key="k", tenant_id=play.add_tenant())
    assert other.created
    assert other.job_id != first.job_id


def test_different_keys_give_different_jobs_for_equal_requests(play: Play) -> None:
    jobs = {play.submit("one", params={}, idempotency_key=key) for key in ("a", "b", None)}
    assert len(jobs) == 3


def test_without_a_key_an_equal_request_gives_the_job_that_is_live(play: Play) -> None:
    first = play.submit("one", params={"width": 1})
    assert play.send("one", params={"width": 1}) == ledger.Submitted(first, created=False)
    assert play.send("one", params={"width": 2}).created
    assert play.send("one", params={"width": 1}, tenant_id=play.add_tenant()).created


def test_without_a_key_an_equal_request_gives_the_job_that_is_completed(play: Play) -> None:
    first = play.submit("one", params={"width": 1})
    play.finish_all()
    assert play.send("one", params={"width": 1}) == ledger.Submitted(first, created=False)


def test_the_order_of_parameters_makes_no_other_request(play: Play) -> None:
    first = play.submit("one", params={"width": 1, "mark": "m"})
    assert play.submit("one", params={"mark": "m", "width": 1}) == first


def test_a_failed_or_cancelled_job_does_not_answer_for_its_like(play: Play) -> None:
    failed = play.submit("one", params={"width": 1})
    play.fail(play.begin())
    cancelled = play.submit("one", params={"width": 1})
    play.cancel(cancelled)
    third = play.submit("one", params={"width": 1})
    assert len({failed, cancelled, third}) == 3


def test_two_documents_make_two_jobs(play: Play) -> None:
    jobs = {play.submit("reading", params={}, document_id=play.add_document(text)) for text in ("a", "b")}
    assert len(jobs) == 2


def test_a_fresh_job_is_answered_for_while_it_lives_and_not_when_it_is_done(play: Play) -> None:
    first = play.submit("one", params={"width": 1}, fresh=True)
    assert play.submit("one", params={"width": 1}, fresh=True) == first
    play.finish_all()
    assert play.submit("one", params={"width": 1}, fresh=True) != first


def test_a_job_is_not_answered_for_by_a_new_version_of_its_pipeline(play: Play) -> None:
    def version(number: int) -> Pipeline:
        pipeline = Pipeline("versioned", title="Changes", version=number)

        @pipeline.step(stage="parsing", queue="llm")
        async def only() -> int:
            return number

        return pipeline

    ledger.publish(play.connection, [version(1)], "tests")
    old = play.submit("versioned", params={})
    ledger.publish(play.connection, [version(2)], "tests")
    assert play.submit("versioned", params={}) != old


@pytest.mark.parametrize("key", [None, "click"])
def test_ten_clicks_at_once_make_one_job(real_play: Play, database_url: str, key: str | None) -> None:
    gate = threading.Barrier(10)
    request = ledger.Submission(real_play.tenant, real_play.user, "line", params={"width": 1}, idempotency_key=key)

    def click(_: int) -> ledger.Submitted:
        with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as connection:
            gate.wait(10)
            return ledger.submit(connection, request)

    with ThreadPoolExecutor(10) as hands:
        answers = list(hands.map(click, range(10)))
    assert len({answer.job_id for answer in answers}) == 1
    assert [answer.created for answer in answers].count(True) == 1
    assert len(real_play.queue()) == len(real_play.all("select from job_events")) == 1


def test_submitting_is_one_statement_and_one_transaction(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[object] = []
    execute = psycopg.Connection.execute

    def count(self: psycopg.Connection[object], *arguments: object, **options: object) -> object:
        sent.append(arguments[0])
        return execute(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(psycopg.Connection, "execute", count)
    play.submit("line")
    assert len(sent) == 1
