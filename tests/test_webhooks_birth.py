"""Deliveries are born with the events they tell of, for those who want to hear them, and at nobody's cost."""

from __future__ import annotations

import threading
from datetime import datetime
from typing import LiteralString
from uuid import uuid4

import psycopg
from ledger_play import Play, broken
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from waiting import until
from webhook_play import deliveries, hook, told

from tasks import ledger
from tasks.webhooks import registry

WAITING: LiteralString = "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"


def test_a_job_is_told_of_from_its_first_event_to_its_last(play: Play) -> None:
    webhook = hook(play)
    document = play.add_document()
    job = play.submit("reading", document_id=document, params={})
    play.finish_all()
    born = deliveries(play, webhook)
    assert [one["kind"] for one in born] == ["submitted", "completed"]
    assert [one["status"] for one in born] == ["pending"] * 2
    event = next(event for event in play.events(job) if event["kind"] == "completed")
    payload = born[1]["payload"]
    assert datetime.fromisoformat(payload.pop("timestamp")) == event["at"]
    assert payload == {
        "type": "job.completed",
        "data": {
            "tenant_id": str(play.tenant), "job_id": str(job), "seq": event["seq"], "pipeline": "reading",
            "document_id": str(document), "batch_id": None, "status": "completed", "stage": event["stage"],
            "percent": 100, "error": None,
        },
    }  # fmt: skip


def test_every_kind_of_job_event_is_told(play: Play) -> None:
    webhook = hook(play)
    failed = play.submit("line")
    play.fail(play.begin(), "broken")
    play.retry(failed)
    play.cancel(failed)
    play.submit("reviewed")
    play.complete(play.begin())
    assert told(play, webhook) == ["submitted", "failed", "reopened", "cancelled", "submitted", "awaiting_review"]
    failure = deliveries(play, webhook)[1]["payload"]["data"]
    assert (failure["status"], failure["error"]) == ("failed", {"code": "broken", "message": "It is broken."})
    assert "secret" not in str(deliveries(play, webhook)[1]["payload"])  # the operator's detail


def test_a_webhook_is_told_what_it_wants_to_hear_and_of_its_own_tenant_only(play: Play) -> None:
    ends = hook(play, "completed", "failed")
    starts = hook(play, "submitted")
    foreign = hook(play, tenant=play.add_tenant(uuid4()))
    disabled = hook(play)
    registry.change(play.connection, disabled, play.tenant, enabled=False)
    play.submit("line")
    play.finish_all()
    assert (told(play, ends), told(play, starts)) == (["completed"], ["submitted"])
    assert told(play, foreign) == told(play, disabled) == []


def test_events_and_deliveries_are_there_together_or_not_at_all(real_play: Play) -> None:
    webhook = hook(real_play)
    with real_play.connection.transaction(force_rollback=True):
        real_play.submit("line")
        assert told(real_play, webhook) == ["submitted"]
    assert deliveries(real_play, webhook) == real_play.all("select * from job_events") == []


def test_attempts_that_are_settled_in_a_group_are_told_one_by_one(play: Play) -> None:
    webhook = hook(play, "completed", "failed")
    jobs = [play.submit("one") for _ in range(6)]
    works = play.begin_all()
    assert len(works) == 6
    outcomes = [
        {
            "verb": "fail",
            "step_run": work["step_run"],
            "attempt": 1,
            "code": "broken",
            "message": "It is.",
            "detail": "",
        }
        if nr % 2
        else {
            "verb": "complete",
            "step_run": work["step_run"],
            "attempt": 1,
            "result": {"digest": "d" * 64, "value": 1},
        }
        for nr, work in enumerate(works)
    ]
    assert play.one("select ledger.settle(%s)", list(map(Jsonb, outcomes))) == [True] * 6
    born = deliveries(play, webhook)
    assert sorted(one["kind"] for one in born) == ["completed"] * 3 + ["failed"] * 3
    assert {one["job_id"] for one in born} == set(jobs)


def test_an_event_is_told_to_a_webhook_once(play: Play) -> None:
    webhook = hook(play)
    play.submit("line")
    (one,) = deliveries(play, webhook)
    columns: LiteralString = "webhook_id, tenant_id, job_id, seq, kind, payload, status, due_at, created_at"
    again: LiteralString = f"insert into webhook_deliveries ({columns}) select {columns} from webhook_deliveries"
    with broken(play.connection, "webhook_deliveries_job_id_seq_webhook_id_key"):
        play.connection.execute(again)
    assert deliveries(play, webhook) == [one]


def test_a_tenant_without_webhooks_pays_one_look_into_an_index_for_the_events_of_a_statement(play: Play) -> None:
    for _ in range(50):
        hook(play, tenant=play.add_tenant(uuid4()))
    looks: LiteralString = (
        "select relname, coalesce(idx_scan, 0) as looks, seq_scan, coalesce(idx_tup_fetch, 0) as rows"
        " from pg_stat_xact_user_tables where relname in ('webhooks', 'webhook_deliveries') order by relname"
    )
    play.submit("line")
    before = {row["relname"]: row for row in play.all(looks)}
    claims = {"sub": str(play.user)}
    orders = [
        ledger.Order(ledger.Submission(play.tenant, play.user, "line", params={"width": width}), claims, 1)
        for width in range(5)
    ]
    ledger.submit_together(play.connection, orders)
    play.submit("line")
    play.finish_all()
    after = {row["relname"]: row for row in play.all(looks)}
    announced = 2 + 7  # two statements submitted, and seven jobs were completed one by one; step events cost nothing
    assert after["webhooks"]["looks"] - before["webhooks"]["looks"] == announced
    assert after["webhooks"]["rows"] == before["webhooks"]["rows"]
    assert after["webhooks"]["seq_scan"] == before["webhooks"]["seq_scan"]
    assert after.get("webhook_deliveries") == before.get("webhook_deliveries")


def test_a_job_neither_waits_for_nor_fails_with_a_webhook_that_is_being_changed_or_deleted(
    real_play: Play, database_url: str
) -> None:
    changed, deleted = hook(real_play), hook(real_play)
    with psycopg.connect(database_url, row_factory=dict_row) as owner:
        registry.change(owner, changed, real_play.tenant, kinds=["failed"])
        registry.remove(owner, deleted, real_play.tenant)
        real_play.connection.execute("set lock_timeout = '50ms'")
        job = real_play.submit("line")
        real_play.finish_all()
        owner.commit()
    assert real_play.job(job)["status"] == "completed"
    assert told(real_play, changed) == ["submitted", "completed"]
    assert deliveries(real_play, deleted) == []


def test_who_deletes_a_webhook_waits_for_the_job_that_is_telling_it(real_play: Play, database_url: str) -> None:
    webhook = hook(real_play)
    with psycopg.connect(database_url, row_factory=dict_row, autocommit=True) as owner:
        with real_play.connection.transaction():
            job = real_play.submit("line")
            deleting = threading.Thread(target=registry.remove, args=(owner, webhook, real_play.tenant))
            deleting.start()
            until(lambda: real_play.all(WAITING))
        deleting.join(10)
        assert not deleting.is_alive()
    assert real_play.job(job)["status"] == "queued"
    assert real_play.all("select from webhook_deliveries") == []
