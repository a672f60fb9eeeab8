"""Deliveries are born with the events they tell of, taken a few at a time, and end in one way."""

from __future__ import annotations

import threading
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest
from ledger_play import Play, broken, refused
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from test_plans import rows_read
from waiting import until
from webhook_play import deliveries, register

from tasks.errors import Refused
from tasks.webhooks import registry

URL = "https://hooks.example.test/hook"
DAY_S = 86_400.0


def hook(play: Play, *kinds: str, tenant: UUID | None = None) -> UUID:
    return register(play.connection, tenant or play.tenant, URL, list(kinds) or None, play.user)[0]


def told(play: Play, webhook: UUID) -> list[str]:
    return [delivery["kind"] for delivery in deliveries(play, webhook)]


def take(play: Play, most: int = 100, each: int = 100, *busy: UUID) -> list[dict[str, Any]]:
    return play.all("select * from ledger.claim_deliveries(%s, %s, %s, 40)", most, each, list(busy))


def settle(play: Play, taken: dict[str, Any], code: str | None = None, **report: Any) -> bool | None:
    known = {"status": 500 if code else 204, "retry_in": 5.0, "gone": False, "patience": 5 * DAY_S} | report
    sentence = code and f"It is {code}."
    arguments = [taken["id"], taken["attempt"], known["status"], code, sentence]
    arguments += [known["retry_in"], known["gone"], known["patience"]]
    query: LiteralString = "select ledger.settle_delivery(%s, %s, %s, %s, %s, %s, %s, %s)"
    settled: bool | None = play.one(query, *arguments)
    return settled


def webhook_of(play: Play, webhook: UUID) -> dict[str, Any]:
    (row,) = play.all("select * from webhooks where id = %s", webhook)
    return row


# Birth -----------------------------------------------------------------------------------------------------------------


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
            "document_id": str(document), "status": "completed", "stage": event["stage"], "percent": 100, "error": None,
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


def test_a_tenant_without_webhooks_pays_one_look_into_an_index_for_each_such_event(play: Play) -> None:
    for _ in range(50):
        hook(play, tenant=play.add_tenant(uuid4()))
    looks: LiteralString = (
        "select relname, coalesce(idx_scan, 0) as looks, seq_scan, coalesce(idx_tup_fetch, 0) as rows"
        " from pg_stat_xact_user_tables where relname in ('webhooks', 'webhook_deliveries') order by relname"
    )
    play.submit("line")
    before = {row["relname"]: row for row in play.all(looks)}
    for _ in range(5):
        play.submit("line")
    play.finish_all()
    after = {row["relname"]: row for row in play.all(looks)}
    announced = 5 + 6  # submitted and completed; nine step events each cost nothing
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
            until(lambda: real_play.all("select from pg_locks where not granted"))
        deleting.join(10)
        assert not deleting.is_alive()
    assert real_play.job(job)["status"] == "queued"
    assert real_play.all("select from webhook_deliveries") == []


# Taking ----------------------------------------------------------------------------------------------------------------


def test_what_is_taken_carries_all_that_sending_needs(play: Play) -> None:
    webhook, secret = register(play.connection, play.tenant, URL)
    play.submit("line")
    (taken,) = take(play)
    assert (taken["webhook_id"], taken["url"], taken["secrets"]) == (webhook, URL, [secret])
    assert (taken["attempt"], taken["failures"], taken["payload"]["type"]) == (1, 0, "job.submitted")
    assert take(play) == []


def test_of_one_webhook_only_a_few_are_taken_those_in_hand_included(play: Play) -> None:
    slow, quick = hook(play, "submitted"), hook(play, "submitted")
    for _ in range(10):
        play.submit("line")
    first = take(play, 100, 4)
    assert sorted(one["webhook_id"] for one in first) == sorted([slow] * 4 + [quick] * 4)
    second = take(play, 100, 4, *[slow] * 4, quick)
    assert [one["webhook_id"] for one in second] == [quick] * 3
    assert take(play, 100, 4, *[slow] * 4, *[quick] * 9) == []
    assert len(take(play, 3, 100)) == 3


def test_what_is_due_for_longest_is_taken_first(play: Play) -> None:
    late, early = hook(play, "submitted"), hook(play, "submitted")
    play.submit("line")
    play.connection.execute(
        "update webhook_deliveries set due_at = due_at - interval '1 h' where webhook_id = %s", [early]
    )
    assert [one["webhook_id"] for one in take(play, 1)] == [early]
    assert [one["webhook_id"] for one in take(play, 1)] == [late]


def test_two_workers_never_take_the_same(real_play: Play, database_url: str) -> None:
    hook(real_play, "submitted")
    for _ in range(6):
        real_play.submit("line")
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        here = take(real_play.on(connection), 4)
        there = take(real_play, 4)
        connection.commit()
    assert (len(here), len(there)) == (4, 2)
    assert {one["id"] for one in here} & {one["id"] for one in there} == set()


def test_what_was_taken_by_a_worker_that_died_is_due_again_when_its_lease_is_over(play: Play) -> None:
    webhook = hook(play)
    play.submit("line")
    (lost,) = take(play)
    play.pass_time(39)
    assert take(play) == []
    play.pass_time(41)
    (again,) = take(play)
    assert (again["id"], again["attempt"], again["failures"]) == (lost["id"], 2, 0)
    assert settle(play, lost) is None  # it was frozen, and is too late
    assert deliveries(play, webhook)[0]["status"] == "pending"
    assert settle(play, again) is False
    assert deliveries(play, webhook)[0]["status"] == "delivered"


def test_with_thousands_waiting_for_broken_endpoints_taking_reads_a_few_rows(play: Play) -> None:
    hooks = [hook(play, "submitted") for _ in range(5)]
    quick = hook(play, "failed")
    play.submit("line")
    play.connection.execute(
        "insert into webhook_deliveries (webhook_id, tenant_id, job_id, seq, kind, payload, status, due_at, created_at)"
        " select w.id, w.tenant_id, ledger.uuid7(), 1, 'submitted', '{}', 'pending', ledger.now() - interval '1 h',"
        " ledger.now() from webhooks w, generate_series(1, 3000) where w.id = any(%s)",
        [hooks],
    )
    play.connection.execute("analyze webhook_deliveries")
    play.submit("line")
    play.fail(play.begin())
    busy = [one for one in hooks for _ in range(4)]
    assert [one["webhook_id"] for one in take(play, 100, 4, *busy)] == [quick]
    reading = rows_read(play, lambda: take(play, 100, 4, *busy))
    assert reading.scanned.get("webhook_deliveries", 0) == 0
    assert reading.fetched["webhook_deliveries"] < 100
    assert len(take(play, 100, 4)) == 20


# Settling --------------------------------------------------------------------------------------------------------------


def test_a_failure_is_kept_and_tried_again_when_it_is_due(play: Play) -> None:
    webhook = hook(play)
    play.submit("line")
    assert settle(play, take(play)[0], "refused", retry_in=300) is False
    (delivery,) = deliveries(play, webhook)
    assert (delivery["status"], delivery["failures"], delivery["answer_status"]) == ("pending", 1, 500)
    assert (delivery["error_code"], delivery["error_message"]) == ("refused", "It is refused.")
    assert webhook_of(play, webhook)["failing_since"] is not None
    play.pass_time(299)
    assert take(play) == []
    play.pass_time(301)
    (again,) = take(play)
    assert settle(play, again, status=200) is False
    (delivery,) = deliveries(play, webhook)
    assert (delivery["status"], delivery["attempts"], delivery["answer_status"]) == ("delivered", 2, 200)
    assert (delivery["error_code"], delivery["due_at"]) == (None, None)
    assert webhook_of(play, webhook)["failing_since"] is None
    assert settle(play, again, "refused") is None


def test_after_the_last_attempt_it_has_failed(play: Play) -> None:
    webhook = hook(play)
    play.submit("line")
    assert settle(play, take(play)[0], "refused", retry_in=None) is False
    (delivery,) = deliveries(play, webhook)
    assert (delivery["status"], delivery["due_at"]) == ("failed", None)
    play.pass_time(30 * DAY_S)
    assert take(play) == []


def test_an_endpoint_that_takes_nothing_for_days_is_disabled_and_what_waits_for_it_fails(play: Play) -> None:
    webhook, other = hook(play), hook(play)
    for _ in range(2):
        play.submit("line")
    first, second = [one for one in take(play) if one["webhook_id"] == webhook]
    assert settle(play, first, "refused", retry_in=None) is False
    play.pass_time(4 * DAY_S)
    assert settle(play, second, "refused") is False
    play.pass_time(6 * DAY_S)
    (second,) = [one for one in take(play) if one["webhook_id"] == webhook]
    play.submit("line")
    assert settle(play, second, "refused", retry_in=None) is True
    row = webhook_of(play, webhook)
    assert (row["disabled_reason"], row["disabled_at"] is not None) == ("failing", True)
    assert {one["status"] for one in deliveries(play, webhook)} == {"failed"}
    assert deliveries(play, webhook)[-1]["error_code"] == "webhook_disabled"
    assert {one["status"] for one in deliveries(play, other)} == {"pending"}


def test_an_endpoint_that_is_gone_is_disabled_at_once(play: Play) -> None:
    webhook = hook(play)
    for _ in range(3):
        play.submit("line")
    assert settle(play, take(play, 1)[0], "gone", retry_in=None, gone=True, status=410) is True
    assert webhook_of(play, webhook)["disabled_reason"] == "gone"
    assert [one["error_code"] for one in deliveries(play, webhook)].count("webhook_disabled") == 2
    assert take(play) == []


def test_what_was_born_while_its_webhook_was_being_disabled_ends_when_it_is_due(
    real_play: Play, database_url: str
) -> None:
    webhook = hook(real_play)
    with psycopg.connect(database_url, row_factory=dict_row) as owner:
        registry.change(owner, webhook, real_play.tenant, enabled=False)
        real_play.submit("line")
        owner.commit()
    assert [one["status"] for one in deliveries(real_play, webhook)] == ["pending"]
    assert take(real_play) == []
    (delivery,) = deliveries(real_play, webhook)
    assert (delivery["status"], delivery["attempts"], delivery["error_code"]) == ("failed", 0, "webhook_disabled")


# What owners do ----------------------------------------------------------------------------------------------------------


def test_enabling_again_begins_anew_and_what_failed_can_be_retried(play: Play) -> None:
    webhook = hook(play)
    play.submit("line")
    registry.change(play.connection, webhook, play.tenant, enabled=False)
    (failed,) = deliveries(play, webhook)
    with refused(play.connection, "webhook_disabled", 409):
        registry.retry(play.connection, failed["id"], webhook, play.tenant)
    with refused(play.connection, "webhook_disabled", 409):
        registry.ping(play.connection, webhook, play.tenant)
    row = registry.change(play.connection, webhook, play.tenant, enabled=True)
    assert (row["disabled_at"], row["disabled_reason"], row["failing_since"]) == (None, None, None)
    registry.retry(play.connection, failed["id"], webhook, play.tenant)
    (again,) = take(play)
    assert (again["id"], again["failures"]) == (failed["id"], 0)
    assert settle(play, again) is False
    with refused(play.connection, "already_delivered", 409):
        registry.retry(play.connection, failed["id"], webhook, play.tenant)


def test_a_retry_makes_an_attempt_that_is_on_its_way_stale_only_when_it_was_taken_again(play: Play) -> None:
    webhook = hook(play)
    play.submit("line")
    (first,) = take(play)
    registry.retry(play.connection, first["id"], webhook, play.tenant)
    (second,) = take(play)
    assert (second["id"], second["attempt"]) == (first["id"], 2)
    assert settle(play, first) is None
    assert settle(play, second) is False


def test_a_rotated_secret_signs_beside_the_one_before_for_a_day(play: Play) -> None:
    webhook, old = register(play.connection, play.tenant, URL)
    new, until_when = registry.rotate(play.connection, webhook, play.tenant)
    assert new != old
    assert until_when is not None
    play.submit("line")
    assert take(play)[0]["secrets"] == [new, old]
    play.pass_time(DAY_S + 1)
    assert take(play)[0]["secrets"] == [new]


def test_a_tenant_may_have_so_many_and_no_more_also_at_the_same_instant(real_play: Play, database_url: str) -> None:
    def add(connection: psycopg.Connection[dict[str, Any]]) -> None:
        registration = registry.Registration(real_play.tenant, real_play.user, URL, ["completed"])
        registry.add(connection, registration, 3)

    def try_to(outcomes: list[str]) -> None:
        with psycopg.connect(database_url, row_factory=dict_row, autocommit=True) as connection:
            try:
                add(connection)
                outcomes.append("added")
            except Refused as refusal:
                outcomes.append(refusal.code)

    outcomes: list[str] = []
    threads = [threading.Thread(target=try_to, args=(outcomes,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["added"] * 3 + ["too_many_webhooks"] * 3


def test_what_ended_long_ago_is_forgotten_and_what_waits_is_not(play: Play) -> None:
    webhook = hook(play)
    for _ in range(3):
        play.submit("line")
    first, second, _ = take(play)
    settle(play, first)
    settle(play, second, "refused", retry_in=None)
    prune: LiteralString = "select ledger.prune_deliveries(interval '30 days', %s)"
    assert play.one(prune, 100) == 0
    play.pass_time(31 * DAY_S)
    assert [play.one(prune, 1), play.one(prune, 100), play.one(prune, 100)] == [1, 1, 0]
    assert [one["status"] for one in deliveries(play, webhook)] == ["pending"]


def test_a_deleted_webhook_takes_its_secret_and_its_log_along(play: Play) -> None:
    webhook = hook(play)
    play.submit("line")
    registry.remove(play.connection, webhook, play.tenant)
    assert deliveries(play, webhook) == play.all("select from ops.webhook_secrets where webhook_id = %s", webhook) == []


@pytest.mark.parametrize(
    "change",
    [
        "status = 'delivered'",
        "status = 'pending', due_at = null",
        "status = 'failed', due_at = null, finished_at = now()",
        "status = 'lost'",
        "error_code = 'x'",
        "job_id = null",
        "seq = null",
    ],
)
def test_a_delivery_that_contradicts_itself_cannot_be_written(play: Play, change: LiteralString) -> None:
    hook(play)
    play.submit("line")
    with broken(play.connection):
        play.connection.execute("update webhook_deliveries set " + change)
