"""Where events stand among the events of all jobs: an order in which nothing ever appears behind a reader's back."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest
from ledger_play import Play, Row
from psycopg.rows import dict_row

from tasks import ledger
from tasks.db import statement

OWN_NUMBER: LiteralString = "select pg_current_xact_id()::text::bigint as number"
Name = tuple[UUID, int]
START: dict[str, Any] = {"position": 0, "job_id": UUID(int=0), "seq": 0}


@pytest.fixture
def play(database_url: str) -> Iterator[Play]:
    """People who commit what they do, in a database of their own."""
    with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as connection:
        yield Play(connection)


@contextmanager
def another(play: Play) -> Iterator[Play]:
    """The same people in a transaction of their own, which is committed at the end."""
    with psycopg.connect(play.connection.info.dsn, password=play.connection.info.password, row_factory=dict_row) as own:
        yield play.on(own)


def look(play: Play, since: dict[str, Any] = START, most: int = 500) -> tuple[list[Name], bool]:
    """What a reader is told who has come so far, and whether more is held back."""
    rows, held = look_closely(play, since, most)
    return [(row["job_id"], row["seq"]) for row in rows], held


def look_closely(play: Play, since: dict[str, Any], most: int) -> tuple[list[Row], bool]:
    asked = since | {"tenant_id": play.tenant, "most": most}
    rows = play.connection.execute(statement("api_tenant_stream"), asked).fetchall()
    return [row for row in rows if row["seq"]], rows[0]["held"]


def after(row: Row) -> dict[str, Any]:
    return {key: row[key] for key in START}


def in_order(play: Play, job: UUID) -> bool:
    positions = [event["position"] for event in play.events(job)]
    return positions == sorted(positions)


def test_what_an_older_transaction_may_still_write_holds_back_what_is_newer(play: Play) -> None:
    first, second = play.submit(), play.submit()
    before, _ = look(play)
    with another(play) as slow:
        slow.cancel(first)
        play.cancel(second)
        assert look(play) == (before, True)
    assert look(play) == ([*before, (first, 2), (second, 2)], False)


def test_reading_holds_nothing_back(play: Play) -> None:
    job = play.submit()
    with another(play) as reader:
        reader.events(job)
        play.cancel(job)
        assert look(play) == ([(job, 1), (job, 2)], False)


@pytest.mark.parametrize("late", ["cancel", "claim", "report", "complete", "fail", "release"])
def test_a_transaction_that_began_first_and_came_second_stands_second(play: Play, late: str) -> None:
    job = play.submit()
    work = play.begin() if late != "claim" else {}
    acts: dict[str, Callable[[Play], object]] = {
        "cancel": lambda p: p.cancel(job),
        "claim": lambda p: p.begin(),
        "report": lambda p: p.report(work, 2, 3),
        "complete": lambda p: p.complete(work),
        "fail": lambda p: p.fail(work),
        "release": lambda p: p.release(work),
    }
    with another(play) as old:
        mine = old.one(OWN_NUMBER)
        with play.connection.transaction():
            play.all("select ledger.save(ledger.note(ledger.lock_job(%s), 'repaired'))", job)
            assert play.one(OWN_NUMBER) > mine
        acts[late](old)
    assert play.events(job)[-1]["kind"] != "repaired"
    assert in_order(play, job)


def test_whoever_reads_while_many_write_is_told_everything_once_and_in_order(play: Play) -> None:
    jobs = [play.submit() for _ in range(6)]
    stop = threading.Event()
    seen: list[tuple[UUID, int]] = []

    def write(seed: int) -> None:
        chance = random.Random(seed)
        with another(play) as writer:
            for _ in range(60):
                # Some take their number long before the job, and several jobs in one transaction.
                if chance.random() < 0.5:
                    writer.one(OWN_NUMBER)
                for job in sorted(chance.sample(jobs, chance.randint(1, 2))):
                    writer.all("select ledger.save(ledger.note(ledger.lock_job(%s), 'repaired'))", job)
                if chance.random() < 0.3:
                    stop.wait(chance.random() / 200)
                writer.connection.commit()

    def read() -> None:
        with another(play) as reader:
            reader.connection.commit()
            reader.connection.autocommit = True
            since = START
            while True:
                last = stop.is_set()
                rows, _ = look_closely(reader, since, most=7)
                seen.extend((row["job_id"], row["seq"]) for row in rows)
                since = after(rows[-1]) if rows else since
                if last and not rows:
                    return

    reading = threading.Thread(target=read)
    writing = [threading.Thread(target=write, args=[seed]) for seed in range(4)]
    for thread in [reading, *writing]:
        thread.start()
    for thread in writing:
        thread.join()
    stop.set()
    reading.join()
    assert len(seen) == len(set(seen)) == play.one("select count(*) from job_events")
    for job in jobs:
        assert [seq for one, seq in seen if one == job] == [event["seq"] for event in play.events(job)]


def test_after_a_restore_into_a_younger_server_old_events_stand_below_new_ones(play: Play) -> None:
    old, other = play.submit(), play.submit()
    play.connection.execute("update job_events set position = position + 1000000000 where job_id = %s", [old])
    assert look(play) == ([(other, 1)], True)
    assert ledger.mend_positions(play.connection) == 1
    assert ledger.mend_positions(play.connection) == 0
    play.cancel(old)
    assert look(play) == ([(old, 1), (other, 1), (old, 2)], False)


def test_events_from_before_positions_were_kept_are_told_first(play: Play) -> None:
    """As the migration leaves them: all at one position, by job and number."""
    jobs = sorted([play.submit(), play.submit()])
    play.connection.execute("update job_events set position = (select min(position) from job_events)")
    play.cancel(jobs[1])
    told = [(jobs[0], 1), (jobs[1], 1), (jobs[1], 2)]
    assert look(play) == (told, False)
    (first, *_), _ = look_closely(play, START, 1)
    assert look(play, after(first)) == (told[1:], False)
