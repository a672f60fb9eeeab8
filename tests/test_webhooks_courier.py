"""The way of a delivery from the ledger to an endpoint and back, with time that is moved and workers that are real."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, LiteralString, cast
from uuid import UUID, uuid4

import psycopg
import pytest
from ledger_play import Play
from psycopg.rows import dict_row
from waiting import until
from webhook_play import (
    DAY_S,
    NAME,
    Authority,
    Receiver,
    Sender,
    deliveries,
    hang,
    lead_to,
    receiving,
    register,
    sender_settings,
    status,
)
from worker_process import House, WorkerProcess

from tasks.maintenance import Maintenance
from tasks.webhooks import registry
from tasks.webhooks.courier import BACK_OFF_S, LONGEST_WAIT_S, wait_before_retry

RECORDING: LiteralString = (
    "select pid from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "localhost", NAME)


@pytest.fixture
def receiver(authority: Authority) -> Iterator[Receiver]:
    with receiving(authority.identity) as receiver:
        yield receiver


@pytest.fixture
def sender(real_play: Play, database_url: str, tmp_path: Path, authority: Authority) -> Sender:
    return Sender(real_play, sender_settings(database_url, tmp_path, authority))


def only(play: Play, webhook: UUID) -> dict[str, Any]:
    (delivery,) = deliveries(play, webhook)
    return delivery


# Back-off -------------------------------------------------------------------------------------------


def test_attempts_are_spread_over_about_two_days() -> None:
    assert 1.5 * DAY_S < sum(BACK_OFF_S) < 2.5 * DAY_S
    assert list(BACK_OFF_S) == sorted(BACK_OFF_S)
    for failures, usual in enumerate(BACK_OFF_S):
        waits = {wait_before_retry(failures, None) for _ in range(50)}
        assert len(waits) > 10
        assert all(wait is not None and 0.8 * usual <= wait <= 1.2 * usual for wait in waits)
    assert wait_before_retry(len(BACK_OFF_S), None) is wait_before_retry(len(BACK_OFF_S), 5) is None


def test_an_endpoint_may_ask_for_a_longer_wait_than_ours_but_not_for_ever() -> None:
    assert wait_before_retry(0, 600) == 600
    assert (wait_before_retry(3, 1) or 0) > 5000
    assert wait_before_retry(0, 1e9) == LONGEST_WAIT_S


def test_a_delivery_is_tried_until_it_is_taken_under_one_id(sender: Sender, receiver: Receiver) -> None:
    play = sender.play
    webhook, secret = register(play.connection, play.tenant, receiver.url())
    job = play.submit("line")
    receiver.behave = status(500)
    later = 0.0
    for failures in range(4):
        sender.send_due(later)
        assert (only(play, webhook)["status"], len(receiver.heard)) == ("pending", failures + 1)
        sender.send_due(later)  # not due yet
        later += 1.3 * BACK_OFF_S[failures]
    receiver.behave = status(200)
    sender.send_due(later)
    delivery = only(play, webhook)
    assert (delivery["status"], delivery["attempts"], delivery["failures"]) == ("delivered", 5, 4)
    assert {heard.id for heard in receiver.heard} == {str(delivery["id"])}
    assert {heard.body for heard in receiver.heard} == {receiver.heard[0].body}
    assert [heard.verified(secret)["data"]["job_id"] for heard in receiver.heard] == [str(job)] * 5
    sender.send_due(later + DAY_S)
    assert len(receiver.heard) == 5


def test_when_no_attempt_was_taken_it_has_failed_and_an_owner_can_have_it_tried_again(
    sender: Sender, receiver: Receiver
) -> None:
    play = sender.play
    webhook, _ = register(play.connection, play.tenant, receiver.url())
    play.submit("line")
    receiver.behave = status(503)
    later = 0.0
    for wait in (*BACK_OFF_S, 0.0):
        sender.send_due(later)
        later += 1.3 * wait
    delivery = only(play, webhook)
    assert (delivery["status"], delivery["attempts"], delivery["error_code"]) == ("failed", 9, "refused")
    receiver.behave = status(204)
    registry.retry(play.connection, delivery["id"], webhook, play.tenant)
    sender.send_due(later)
    assert only(play, webhook)["status"] == "delivered"
    assert {heard.id for heard in receiver.heard} == {str(delivery["id"])}


def test_a_retry_after_is_waited_for(sender: Sender, receiver: Receiver) -> None:
    webhook, _ = register(sender.play.connection, sender.play.tenant, receiver.url())
    sender.play.submit("line")
    receiver.behave = status(429, Retry_After="3600")
    sender.send_due()
    receiver.behave = status(204)
    sender.send_due(3500)
    assert (only(sender.play, webhook)["answer_status"], len(receiver.heard)) == (429, 1)
    sender.send_due(3700)
    assert only(sender.play, webhook)["status"] == "delivered"


def test_an_endpoint_that_is_gone_hears_nothing_more(sender: Sender, receiver: Receiver) -> None:
    webhook, _ = register(sender.play.connection, sender.play.tenant, receiver.url())
    sender.play.submit("line")
    receiver.behave = status(410)
    sender.send_due()
    delivery = only(sender.play, webhook)
    assert (delivery["status"], delivery["error_code"], delivery["answer_status"]) == ("failed", "gone", 410)
    sender.play.submit("line")
    sender.send_due(10 * DAY_S)
    assert (len(receiver.heard), len(deliveries(sender.play, webhook))) == (1, 1)


def test_an_address_that_turned_inside_after_registration_is_a_failure_in_the_log(
    sender: Sender, receiver: Receiver, authority: Authority, tmp_path: Path
) -> None:
    webhook, _ = register(sender.play.connection, sender.play.tenant, receiver.url(NAME))
    sender.play.submit("line")
    closed = sender_settings(sender.settings.direct_url, tmp_path, authority, webhook_allow_loopback=False)
    Sender(sender.play, closed, lead_to("127.0.0.1")).send_due()
    delivery = only(sender.play, webhook)
    assert (delivery["status"], delivery["error_code"]) == ("pending", "url_address")
    assert "127.0.0.1" not in delivery["error_message"]
    assert receiver.heard == []


def test_the_chore_of_the_workers_forgets_what_ended_long_ago(sender: Sender, receiver: Receiver) -> None:
    webhook, _ = register(sender.play.connection, sender.play.tenant, receiver.url())
    sender.play.submit("line")
    sender.send_due()
    waiting, _ = register(sender.play.connection, sender.play.tenant, receiver.url())
    sender.play.submit("line")

    async def prune(pool: Any) -> None:
        await Maintenance(sender.settings, pool, uuid4(), cast(Any, None)).prune()

    sender.run(prune, 29 * DAY_S)
    assert len(deliveries(sender.play, webhook)) == 2
    sender.run(prune, 31 * DAY_S)
    assert [one["status"] for one in deliveries(sender.play, webhook)] == ["pending"]
    assert len(deliveries(sender.play, waiting)) == 1


# Real workers ---------------------------------------------------------------------------------------


def start(house: House, authority: Authority, **settings: object) -> WorkerProcess:
    known = {"webhook_allow_loopback": True, "webhook_ca_file": authority.certificates, "webhook_timeout_s": 20}
    return house.start(**known | settings)


def ends(house: House, url: str) -> tuple[UUID, str]:
    """A webhook that is told of ends."""
    return register(house.play.connection, house.play.tenant, url, ["completed", "failed"])


def test_a_worker_tells_an_endpoint_what_became_of_a_job(
    house: House, receiver: Receiver, authority: Authority
) -> None:
    webhook, secret = register(house.play.connection, house.play.tenant, receiver.url())
    start(house, authority)
    job = house.play.submit("line")
    assert house.finish(job) == ["completed"]
    until(lambda: [one["status"] for one in deliveries(house.play, webhook)] == ["delivered"] * 2)
    told = sorted((heard.verified(secret) for heard in receiver.heard), key=lambda said: said["data"]["seq"])
    assert [said["type"] for said in told] == ["job.submitted", "job.completed"]
    assert {said["data"]["job_id"] for said in told} == {str(job)}


def test_a_worker_killed_between_sending_and_recording_leaves_it_to_another_under_the_same_id(
    house: House, receiver: Receiver, authority: Authority
) -> None:
    webhook, secret = ends(house, receiver.url())
    worker = start(house, authority)
    job = house.play.submit("line")
    receiver.behave = hang
    until(lambda: receiver.heard)
    with psycopg.connect(house.url, row_factory=dict_row) as hold:
        hold.execute("select from webhook_deliveries for update")
        receiver.let_go.set()
        until(lambda: house.play.all(RECORDING))
        worker.kill()
        # What it asked for last must not be done after its death.
        house.play.all("select pg_terminate_backend(w.pid) from (" + RECORDING + ") w")
        until(lambda: house.play.all(RECORDING) == [])
    assert (only(house.play, webhook)["status"], only(house.play, webhook)["attempts"]) == ("pending", 1)
    house.url += "?options=-c%20ledger.clock_offset%3D1h"  # its lease is over
    start(house, authority)
    until(lambda: only(house.play, webhook)["status"] == "delivered")
    assert [heard.verified(secret)["data"]["job_id"] for heard in receiver.heard] == [str(job)] * 2
    assert {heard.id for heard in receiver.heard} == {str(only(house.play, webhook)["id"])}
    assert (only(house.play, webhook)["attempts"], only(house.play, webhook)["failures"]) == (2, 0)


def test_endpoints_that_hang_delay_neither_jobs_nor_other_endpoints(
    house: House, receiver: Receiver, authority: Authority
) -> None:
    slow, _ = ends(house, receiver.url())
    receiver.behave = hang
    start(house, authority)
    with receiving(authority.identity) as other:
        quick, _ = ends(house, other.url())
        jobs = [house.play.submit("line") for _ in range(20)]
        assert set(house.finish(*jobs)) == {"completed"}
        until(lambda: {one["status"] for one in deliveries(house.play, quick)} == {"delivered"})
    assert [one["status"] for one in deliveries(house.play, slow)] == ["pending"] * 20
    assert 1 <= len(receiver.heard) <= 4
    house.assert_whole(*jobs)
    receiver.let_go.set()
    until(lambda: {one["status"] for one in deliveries(house.play, slow)} == {"delivered"})
    assert len({heard.id for heard in receiver.heard}) == len(receiver.heard) == 20


def test_a_loop_that_stumbles_comes_back_and_the_jobs_do_not_notice(
    house: House, receiver: Receiver, authority: Authority
) -> None:
    webhook, _ = ends(house, receiver.url())
    house.play.connection.execute("alter function ledger.claim_deliveries rename to claim_nothing")
    worker = start(house, authority)
    job = house.play.submit("line")
    assert house.finish(job) == ["completed"]
    until(lambda: worker.says("deliver stumbled"))
    house.play.connection.execute("alter function ledger.claim_nothing rename to claim_deliveries")
    until(lambda: only(house.play, webhook)["status"] == "delivered")
    house.assert_whole(job)


def test_what_could_not_be_recorded_is_sent_again_under_the_same_id(
    house: House, receiver: Receiver, authority: Authority
) -> None:
    webhook, _ = ends(house, receiver.url())
    worker = start(house, authority)
    house.play.submit("line")
    receiver.behave = hang
    until(lambda: receiver.heard)
    house.play.connection.execute("alter function ledger.settle_delivery rename to settle_nothing")
    receiver.let_go.set()
    until(lambda: worker.says("is not reported and will be sent again"))
    house.play.connection.execute("alter function ledger.settle_nothing rename to settle_delivery")
    house.play.connection.execute("update webhook_deliveries set due_at = ledger.now()")
    until(lambda: only(house.play, webhook)["status"] == "delivered")
    assert len({heard.id for heard in receiver.heard}) == 1


def test_a_stopping_worker_waits_for_what_is_on_its_way(house: House, receiver: Receiver, authority: Authority) -> None:
    webhook, _ = ends(house, receiver.url())
    worker = start(house, authority)
    job = house.play.submit("line")
    assert house.finish(job) == ["completed"]
    receiver.behave = hang
    until(lambda: receiver.heard)
    worker.terminate()
    until(lambda: house.play.one("select bool_and(stopping) from ops.workers"))
    receiver.let_go.set()
    assert worker.end() == 0
    assert (only(house.play, webhook)["status"], only(house.play, webhook)["attempts"]) == ("delivered", 1)
