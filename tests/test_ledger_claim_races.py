"""Two claims look at the same queue job: the slower must not stand in the way of the attempt that the faster began."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import LiteralString

import psycopg
from ledger_play import Play, items
from psycopg.rows import dict_row
from waiting import until

# Looks up the open queues, after waiting for the test where the session says so: by then the claim has its snapshot.
SLOW: LiteralString = """
create or replace function ledger.open_queues(of_queues text[]) returns text[] language plpgsql stable as $$
begin
  if current_setting('test.slow', true) = 'on' then
    perform pg_advisory_xact_lock_shared(1);
  end if;
  return of_queues;
end $$
"""
WAITING: LiteralString = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and wait_event = %s"


def test_a_claim_with_an_old_view_does_not_hold_what_was_taken_meanwhile(real_play: Play, database_url: str) -> None:
    job = real_play.submit("fan")
    real_play.complete(real_play.begin(), items=items(2))
    real_play.connection.execute(SLOW)

    def claim_slowly() -> list[int]:
        with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as connection:
            connection.execute("set test.slow = 'on'")
            return [work["item"] for work in real_play.on(connection).begin_all()]

    with (
        psycopg.connect(database_url, autocommit=True) as gate,
        psycopg.connect(database_url, row_factory=dict_row) as quick,
        ThreadPoolExecutor(1) as hand,
    ):
        gate.execute("select pg_advisory_lock(1)")
        slow = hand.submit(claim_slowly)
        until(lambda: real_play.one(WAITING, "advisory"))
        work = real_play.begin()
        assert work["item"] == 0
        quick.execute("select from jobs where id = %s for no key update", [job])
        gate.execute("select pg_advisory_unlock(1)")
        until(lambda: real_play.one(WAITING, "transactionid"))
        assert real_play.on(quick).complete(work)
        quick.commit()
        assert slow.result(30) == [1]
    assert real_play.drift() == []


def test_many_claims_and_completions_at_once_never_lock_each_other_out(real_play: Play, database_url: str) -> None:
    real_play.submit("fan")
    real_play.submit("fan")
    for work in real_play.begin_all():
        real_play.complete(work, items=items(60))
    gate = threading.Barrier(6)

    def work_on(number: int) -> int:
        done = 0
        with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as connection:
            own = real_play.on(connection)
            gate.wait(30)
            while works := own.begin_all(1 + number % 3):
                done += sum(own.complete(work) for work in works)
        return done

    with ThreadPoolExecutor(6) as hands:
        assert sum(hands.map(work_on, range(6))) >= 120
    real_play.finish_all()
    assert {row["status"] for row in real_play.all("select status from jobs")} == {"completed"}
