"""Outages: the database restarts, connections are cut, loops stumble; the worker comes back and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from crowds import watching
from fixtures_embedded import postmaster
from ledger_play import Play
from psycopg.rows import dict_row
from waiting import until
from worker_process import House, open_house

from tasks.embedded import EmbeddedPostgres
from tasks.maintenance import keep_running
from tasks.migrations import migrate

LISTENING: LiteralString = """
select pid from pg_stat_activity
where datname = current_database() and application_name = 'ledgerline-line'
"""


CUT: LiteralString = """
select pg_terminate_backend(pid) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
  and query not ilike '%ops.drift%' and query not ilike 'listen ledgerline_events%'
"""


@pytest.mark.parametrize("end", ["stops", "dies"])
def test_postgres_restarts_in_the_middle_of_a_job(tmp_path: Path, end: str) -> None:
    with EmbeddedPostgres(tmp_path / "postgres") as postgres:
        migrate(postgres.url)
        with open_house(postgres.url, tmp_path) as house:
            worker = house.start()
            gate = house.gate()
            job = house.play.submit("held", params={"gate": str(gate)})
            fan = house.play.submit("fan", params={"width": 40})
            until(lambda: house.reached(gate))
            if end == "dies":
                postmaster(tmp_path / "postgres").kill()
            postgres.stop()
            postgres.start()
            with psycopg.connect(postgres.url, autocommit=True, row_factory=dict_row) as connection:
                house.play = house.play.on(connection)
                assert house.play.drift() == []
                gate.touch()
                until(lambda: house.is_over(job, fan), within=60)
                assert [house.play.job(one)["status"] for one in (job, fan)] == ["completed", "completed"]
                until(lambda: house.play.all(LISTENING))
                house.assert_whole(job, fan)
                assert worker.alive


def test_every_connection_is_cut_in_the_middle_of_many_jobs(house: House) -> None:
    with watching(house.play, house.url, Play.drift) as drift:
        worker = house.start()
        jobs = [house.play.submit("fan", params={"width": 40, "mark": str(n)}) for n in range(2)]
        jobs += [house.play.submit("diamond") for _ in range(5)]
        for part in (10, 40):
            until(lambda part=part: house.play.one("select sum(completed) from job_step_totals") >= part)
            house.play.all(CUT)
        assert house.finish(*jobs) == ["completed"] * 7
    house.assert_whole(*jobs)
    assert drift.seen == []
    assert worker.alive


def test_a_listening_connection_that_was_cut_is_opened_again(house: House) -> None:
    house.start()

    def listeners() -> set[int]:
        return {row["pid"] for row in house.play.all(LISTENING)}

    (before,) = until(listeners)  # one for all lanes
    house.play.all("select pg_terminate_backend(%s)", before)
    until(lambda: listeners() - {before})
    job = house.play.submit("line")
    assert house.finish(job) == ["completed"]


@contextmanager
def replaced(house: House, function: LiteralString, body: LiteralString) -> Iterator[None]:
    """A function of the ledger does something else for a while."""
    query: LiteralString = (
        "select pg_get_functiondef(oid) as source, pg_get_function_arguments(oid) as takes,"
        " pg_get_function_result(oid) as gives from pg_proc where oid = %s::regproc"
    )
    (was,) = house.play.all(query, f"ledger.{function}")
    head = f"create or replace function ledger.{function}({was['takes']}) returns {was['gives']}"
    house.play.connection.execute("create sequence if not exists suicides")
    house.play.connection.execute(f"{head} language plpgsql as $f$ begin {body}; end $f$")
    try:
        yield
    finally:
        house.play.connection.execute(was["source"])


# A sequence keeps what it counted, whatever becomes of the transaction.
SUICIDE: LiteralString = (
    "perform nextval('suicides'); perform pg_terminate_backend(pg_backend_pid()); perform pg_sleep(10)"
)


def test_an_attempt_that_a_living_worker_had_to_let_go_of_is_taken_up_again(house: House) -> None:
    """The connection breaks where the worker cannot try again: it goes on living, and must not keep the attempt."""
    worker = house.start()
    with replaced(house, "gather", SUICIDE):
        job = house.play.submit("listed")
        until(lambda: house.play.one("select is_called from suicides"))
    assert house.finish(job) == ["completed"]
    assert house.play.run(job, "added")["attempt"] >= 2
    assert worker.alive
    house.assert_whole(job)


def test_work_that_is_done_is_not_lost_for_a_last_progress_report(house: House) -> None:
    house.start()
    gate = house.gate()
    with replaced(house, "report_progress", SUICIDE):
        job = house.play.submit("told", params={"gate": str(gate)})
        until(lambda: gate.with_suffix(".reached").exists())
        gate.touch()
        assert house.finish(job) == ["completed"]
    assert house.play.run(job, "tell")["attempt"] == 1
    house.assert_whole(job)


# The loops that keep the house --------------------------------------------------------------------------------


def test_a_loop_that_stumbles_goes_on_and_waits_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 10:
            raise asyncio.CancelledError

    answers: Iterator[float | Exception] = iter([3.0, *[RuntimeError("no")] * 7, 4.0, RuntimeError("no")])

    async def once() -> float:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(asyncio, "sleep", wait)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(keep_running("chore", once))
    assert waits == [3.0, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 4.0, 0.5]


def test_a_loop_ends_when_it_is_cancelled_in_the_middle_of_a_round() -> None:
    async def scene() -> None:
        begun = asyncio.Event()

        async def once() -> float:
            begun.set()
            await asyncio.Event().wait()
            return 0.0

        loop = asyncio.create_task(keep_running("chore", once))
        await begun.wait()
        loop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loop

    asyncio.run(scene())


BREAKS: LiteralString = "raise exception 'this chore is broken'"


def test_a_beat_that_stumbled_comes_back(house: House) -> None:
    worker = house.start(lease_s=30)
    with replaced(house, "beat", BREAKS):
        until(lambda: worker.says("beat stumbled"))
        silent_since = house.play.one("select heartbeat_at from ops.workers")
    until(lambda: house.play.one("select heartbeat_at from ops.workers") > silent_since)
    assert worker.alive


def test_promoting_that_stumbled_comes_back(house: House) -> None:
    worker = house.start()
    with replaced(house, "promote_due", BREAKS):
        until(lambda: worker.says("promote stumbled"))
        job = house.play.submit("stumbling", params={"width": 1})
        until(lambda: house.play.statuses(job) == ["retrying"])
    assert house.finish(job) == ["completed"]
    house.assert_whole(job)


def test_recovering_that_stumbled_comes_back(house: House) -> None:
    worker = house.start(sweep_interval_s=3600)
    with replaced(house, "recover_lost", BREAKS):
        until(lambda: worker.says("recover stumbled"))
        with house.play.connection.transaction():  # taken by somebody who never beats, before the worker can see it
            job = house.play.submit("line")
            house.play.begin()
    assert house.finish(job) == ["completed"]
    assert house.play.run(job, "first")["attempt"] == 2
    house.assert_whole(job)


def test_sweeping_that_stumbled_comes_back_and_did_not_look_as_if_it_had_run(house: House) -> None:
    worker = house.start()
    until(lambda: house.play.all("select from ops.chores where name = 'sweep' and ran_at is not null"))
    with replaced(house, "requeue_orphans", BREAKS):
        until(lambda: worker.says("sweep stumbled"))
        (chore,) = house.play.all("select * from ops.chores where name = 'sweep'")
        assert chore["taken_at"] > chore["ran_at"]
        with house.play.connection.transaction():  # a queue job that is gone before the worker can see it
            job = house.play.submit("line")
            house.play.connection.execute("delete from procrastinate.procrastinate_jobs")
    assert house.finish(job) == ["completed"]
    until(lambda: house.play.one("select ran_at from ops.chores where name = 'sweep'") > chore["taken_at"])
    assert "repaired" in house.play.kinds(job)
    assert worker.alive
