"""Procrastinate as it comes, with the hand-written ledger: row and queue job in one transaction, two updates a job."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import procrastinate
from bench import plain_ledger
from bench.contenders import Place
from bench.entries import enter
from psycopg_pool import AsyncConnectionPool, ConnectionPool

CONCURRENCY = 10

app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(conninfo=os.environ.get("BENCH_URL", ""), min_size=2, max_size=10)
)
_pools: list[AsyncConnectionPool] = []


@app.task(name="run")
async def run(job: str) -> None:
    async with _pools[0].connection() as connection:
        await connection.execute(plain_ledger.START, [job])
    enter(job)
    async with _pools[0].connection() as connection:
        await connection.execute(plain_ledger.FINISH, [job])


def prepare(url: str) -> None:
    plain_ledger.create(url)
    with procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=url)).open() as opened:
        opened.schema_manager.apply_schema()


def environment(place: Place) -> dict[str, str]:
    return {}


def command() -> list[str]:
    start = "import asyncio; from bench import with_procrastinate as peer; asyncio.run(peer.work())"
    return [sys.executable, "-c", start]


@contextmanager
def submitter(shape: str, width: int) -> Iterator[Callable[[str], None]]:
    def submit(mark: str) -> None:
        with pool.connection() as connection, connection.transaction():
            connection.execute(plain_ledger.SUBMIT, [mark])
            task.configure(connection=connection).defer(job=mark)

    url = os.environ["BENCH_URL"]
    with (
        app.replace_connector(procrastinate.SyncPsycopgConnector(conninfo=url)) as replaced,
        ConnectionPool(url, kwargs={"autocommit": True}, min_size=4, max_size=16) as pool,
    ):
        task = replaced.tasks["run"]
        pool.wait()
        yield submit


async def work() -> None:
    """Serve until told to stop."""
    async with (
        app.open_async(),
        AsyncConnectionPool(
            os.environ["BENCH_URL"], kwargs={"autocommit": True}, min_size=2, max_size=CONCURRENCY, open=False
        ) as pool,
    ):
        _pools.append(pool)
        await app.run_worker_async(concurrency=CONCURRENCY)
