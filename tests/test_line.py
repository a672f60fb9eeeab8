"""The line: claims are answered before they are committed, acted on only after, and lost with nobody left waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest
from ledger_play import Play
from waiting import until
from worker_process import House

from tasks.line import Claim, Line

# Commits of claims wait for whoever holds this lock.
HOLD: LiteralString = """
create function hold() returns trigger language plpgsql as $$
begin
  perform pg_advisory_xact_lock_shared(4711);
  return null;
end $$;
create constraint trigger hold after update on job_steps deferrable initially deferred for each row
when (new.status = 'running') execute function hold();
"""

# The first commit of a claim fails.
BREAK: LiteralString = """
create sequence breaks;
create function break() returns trigger language plpgsql as $$
begin
  if nextval('breaks') = 1 then
    raise exception 'this commit fails' using errcode = 'admin_shutdown';
  end if;
  return null;
end $$;
create constraint trigger break after update on job_steps deferrable initially deferred for each row
when (new.status = 'running' and old.status = 'queued') execute function break();
"""

BACKEND: LiteralString = "select pid from pg_stat_activity where application_name = 'ledgerline-line'"


@asynccontextmanager
async def connected(url: str, worker: UUID, rung: Callable[[], None] = lambda: None) -> Any:
    line = Line(url, worker)
    line.rings["llm"] = rung
    attending = asyncio.create_task(line.attend())
    try:
        await line.wait()
        yield line, attending
    finally:
        attending.cancel()
        with suppress(asyncio.CancelledError, psycopg.OperationalError):
            await attending


@contextmanager
def held(url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("select pg_advisory_lock(4711)")
        yield connection


def play_on_line(
    play: Play, url: str, scene: Callable[[Line, asyncio.Task[float]], Awaitable[None]], rung: Callable[[], None] = list
) -> None:
    async def whole() -> None:
        async with asyncio.timeout(30), connected(url, play.worker, rung) as (line, attending):
            await scene(line, attending)

    asyncio.run(whole())


def take(line: Line) -> Claim:
    return line.claim(["llm"], None, 10)


def test_what_is_claimed_is_told_before_it_is_committed(real_play: Play, database_url: str) -> None:
    job = real_play.submit("line")
    real_play.connection.execute(HOLD)

    async def scene(line: Line, _: asyncio.Task[float]) -> None:
        with held(database_url) as lock:
            claim = take(line)
            (row,) = await claim.rows
            assert (row["queue_name"], row["work"]["job"]) == ("llm", str(job))
            assert not claim.kept.done()
            assert real_play.statuses(job, "first") == ["queued"]
            lock.execute("select pg_advisory_unlock(4711)")
            await claim.kept
        assert real_play.statuses(job, "first") == ["running"]

    play_on_line(real_play, database_url, scene)


def test_a_claim_is_sent_behind_another_that_is_not_committed(real_play: Play, database_url: str) -> None:
    jobs = [real_play.submit("line", params={"mark": mark}) for mark in "ab"]
    real_play.connection.execute(HOLD)

    async def scene(line: Line, _: asyncio.Task[float]) -> None:
        with held(database_url) as lock:
            claims = [line.claim(["llm"], None, 1) for _ in jobs]
            await claims[0].rows
            lock.execute("select pg_advisory_unlock(4711)")
            taken = [(await claim.rows)[0]["work"]["job"] for claim in claims]
            assert sorted(taken) == sorted(map(str, jobs))
            await claims[1].kept
            assert claims[0].kept.done()

    play_on_line(real_play, database_url, scene)


def test_a_refused_claim_says_why_and_the_line_goes_on(real_play: Play, database_url: str) -> None:
    job = real_play.submit("line")

    async def scene(line: Line, _: asyncio.Task[float]) -> None:
        refused = line.claim(["llm"], None, -1)
        with pytest.raises(psycopg.errors.InvalidRowCountInLimitClause):
            await refused.rows
        (row,) = await take(line).rows
        assert row["work"]["job"] == str(job)

    play_on_line(real_play, database_url, scene)


def test_a_commit_that_fails_is_told(real_play: Play, database_url: str) -> None:
    job = real_play.submit("line")
    real_play.connection.execute(BREAK)

    async def scene(line: Line, _: asyncio.Task[float]) -> None:
        claim = take(line)
        assert len(await claim.rows) == 1
        with pytest.raises(psycopg.errors.AdminShutdown):
            await claim.kept
        assert real_play.statuses(job, "first") == ["queued"]
        assert len(await take(line).rows) == 1

    play_on_line(real_play, database_url, scene)


def test_who_claims_while_the_line_is_lost_is_told(real_play: Play, database_url: str) -> None:
    real_play.submit("line")
    real_play.connection.execute(HOLD)

    async def scene(line: Line, attending: asyncio.Task[float]) -> None:
        with held(database_url):
            first, second = take(line), take(line)
            await first.rows
            real_play.all(f"select pg_terminate_backend(pid) from ({BACKEND}) b")
            with pytest.raises(psycopg.OperationalError):
                await second.rows
            with pytest.raises(psycopg.OperationalError):
                await first.kept
        with pytest.raises(psycopg.OperationalError):
            await attending
        with pytest.raises(psycopg.OperationalError):
            take(line)

    play_on_line(real_play, database_url, scene)


def test_it_rings_when_something_is_queued_and_once_when_it_begins(real_play: Play, database_url: str) -> None:
    rung = 0

    def ring() -> None:
        nonlocal rung
        rung += 1

    async def scene(line: Line, _: asyncio.Task[float]) -> None:
        assert rung == 1
        real_play.submit("line")
        while rung < 2:
            await asyncio.sleep(0.01)

    play_on_line(real_play, database_url, scene, ring)


def test_nothing_is_run_of_a_claim_whose_commit_failed(house: House, tmp_path: Path) -> None:
    """The worker knew of the attempt; had it begun, it would have run the step twice."""
    house.play.connection.execute(BREAK)
    worker = house.start()
    gate = house.gate()
    job = house.play.submit("held", params={"gate": str(gate)})
    until(lambda: house.reached(gate), within=60)
    assert house.play.one("select last_value from breaks") >= 2
    assert len(house.reached(gate)) == 1
    gate.touch()
    assert house.finish(job) == ["completed"]
    assert worker.alive
    house.assert_whole(job)


def test_a_worker_goes_on_when_its_line_is_cut_while_it_claims(house: House, database_url: str) -> None:
    house.play.connection.execute(HOLD)
    worker = house.start()
    with held(database_url):
        job = house.play.submit("line")
        until(lambda: house.play.one("select count(*) from pg_locks where locktype = 'advisory' and not granted"))
        house.play.all(f"select pg_terminate_backend(pid) from ({BACKEND}) b")
    assert house.finish(job) == ["completed"]
    assert worker.alive
    house.assert_whole(job)


def test_a_line_that_was_being_made_is_let_go_of_when_it_is_cancelled() -> None:
    """Whoever keeps the cancelled task keeps no connection: a Postgres that wants to stop would wait for it."""

    async def scene() -> None:
        begun, gone = asyncio.Event(), asyncio.Event()

        async def mute_server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            begun.set()
            while await reader.read(100):
                pass
            gone.set()
            writer.close()

        async with await asyncio.start_server(mute_server, "127.0.0.1", 0) as server:
            url = f"postgresql://nobody@127.0.0.1:{server.sockets[0].getsockname()[1]}/nothing"
            attending = asyncio.create_task(Line(url, UUID(int=1)).attend())
            await begun.wait()
            attending.cancel()
            await asyncio.wait([attending])
            await asyncio.wait_for(gone.wait(), 10)
            assert attending.cancelled()

    asyncio.run(scene())
