"""Deliveries are born with the events they tell of, taken a few at a time, and end in one way."""

from __future__ import annotations

import threading
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest
from ledger_play import Play, broken, refused
from psycopg.rows import dict_row
from test_plans import rows_read
from webhook_play import DAY_S, URL, deliveries, hook, register, settle, take

from tasks.errors import Refused
from tasks.webhooks import registry


def webhook_of(play: Play, webhook: UUID) -> dict[str, Any]:
    (row,) = play.all("select * from webhooks where id = %s", webhook)
    return row


# Taking ---------------------------------------------------------------------------------------------


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


# Settling -------------------------------------------------------------------------------------------


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


# What owners do -------------------------------------------------------------------------------------


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
