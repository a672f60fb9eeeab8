"""Pausing and slowing down: what is held back is not lost, is not taken for forgotten, and goes on."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
from ledger_play import Play, items
from psycopg.rows import dict_row
from waiting import until


def pause(play: Play, scope: str, name: object) -> None:
    play.all("select ledger.pause(%s, %s, 'Because.')", scope, str(name))


def resume(play: Play, scope: str, name: object) -> bool:
    resumed: bool = play.one("select ledger.resume(%s, %s)", scope, str(name))
    return resumed


def test_nothing_is_claimed_from_a_paused_queue_until_it_goes_on(play: Play) -> None:
    play.submit("line")
    pause(play, "queue", "llm")
    assert play.claim() == []
    assert resume(play, "queue", "llm")
    assert not resume(play, "queue", "llm")
    assert len(play.claim()) == 1


def test_a_paused_queue_is_not_taken_for_one_that_nobody_serves(play: Play) -> None:
    job = play.submit("line")
    pause(play, "queue", "llm")
    play.pass_time(10_000)
    assert play.reconcile() == 0
    resume(play, "queue", "llm")
    play.pass_time(10_200)
    assert play.reconcile() == 0
    assert play.job(job)["status"] == "queued"
    play.pass_time(10_301)
    assert play.reconcile() == 1
    assert play.job(job)["error_code"] == "queue_timeout"


def test_a_queue_that_a_provider_slowed_down_is_not_taken_for_one_that_nobody_serves(play: Play) -> None:
    play.submit("line")
    job = play.submit("line")
    work = play.begin()
    arguments = [work["step_run"], work["attempt"]]
    play.all("select ledger.fail(%s, %s, 'provider_busy', 'It is busy.', '', 1000, 1000)", *arguments)
    play.pass_time(900)
    assert play.claim() == []
    assert play.one("select ledger.time_out_queued(300)") == 0
    play.pass_time(1200)
    assert play.one("select ledger.time_out_queued(300)") == 0
    assert play.begin()["job"] == str(job)


def test_what_a_paused_tenant_has_queued_is_held_and_goes_on(play: Play) -> None:
    waiting, running = play.submit("fan"), play.submit("line")
    spread, first = play.begin_all()
    play.complete(spread, items=items(3))
    pause(play, "tenant", play.tenant)
    assert play.statuses(waiting, "double") == ["held"] * 3
    assert play.complete(first)
    assert play.statuses(running) == ["completed", "held"]
    play.submit("one")
    assert play.queue() == play.drift() == []
    play.pass_time(10_000)
    assert play.reconcile() == 0
    resume(play, "tenant", play.tenant)
    assert play.drift() == []
    play.finish_all()
    assert {row["status"] for row in play.all("select status from jobs")} == {"completed"}


def test_other_tenants_go_on_beside_a_paused_one(play: Play) -> None:
    other = play.add_tenant()
    pause(play, "tenant", play.tenant)
    play.submit("line")
    job = play.submit("line", tenant_id=other)
    assert [work["job"] for work in play.begin_all()] == [str(job)]


def test_a_job_that_is_held_can_be_cancelled(play: Play) -> None:
    pause(play, "tenant", play.tenant)
    job = play.submit("line")
    play.cancel(job)
    resume(play, "tenant", play.tenant)
    assert play.statuses(job) == ["cancelled"]
    assert play.queue() == play.drift() == []


def test_what_is_held_back_while_the_pause_ends_is_not_forgotten(real_play: Play, database_url: str) -> None:
    pause(real_play, "tenant", real_play.tenant)
    ending = threading.Event()

    def end() -> bool:
        with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as connection:
            ending.set()
            return resume(real_play.on(connection), "tenant", real_play.tenant)

    waits = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%resume%'"
    with psycopg.connect(database_url, row_factory=dict_row) as sender, ThreadPoolExecutor(1) as hand:
        job = real_play.on(sender).submit("line")
        resumed = hand.submit(end)
        ending.wait(10)
        until(lambda: real_play.one(waits) or resumed.done())
        sender.commit()
        assert resumed.result(10)
    assert real_play.statuses(job) == ["queued"]
    assert len(real_play.queue()) == 1


def test_reconciling_one_job_expires_no_other(play: Play) -> None:
    late, gated, asked = play.submit("line"), play.submit("reviewed"), play.submit("one")
    play.connection.execute("update jobs set deadline_at = now() where id = %s", [late])
    (draft,) = [work for work in play.begin_all() if work["step"] == "draft"]
    play.complete(draft)
    assert play.job(gated)["status"] == "awaiting_review"
    play.connection.execute("update reviews set expires_at = now()")
    play.pass_time(10)
    play.reconcile(asked, lease=1000)
    assert [play.job(job)["status"] for job in (late, gated)] == ["running", "awaiting_review"]
    play.reconcile(lease=1000)
    assert [play.job(job)["error_code"] for job in (late, gated)] == ["deadline_exceeded", "gate_expired"]
