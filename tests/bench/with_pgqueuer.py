"""PgQueuer on asyncpg, with the hand-written ledger: row and queue job in one transaction, two updates a job."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import asyncpg
from bench import plain_ledger
from bench.contenders import Place
from bench.entries import enter
from pgqueuer import AsyncpgDriver, Job, PgQueuer, Queries
from pgqueuer.adapters.drivers.psycopg import SyncPsycopgDriver
from pgqueuer.adapters.persistence.queries import SyncQueries
from psycopg_pool import ConnectionPool

BATCH = 50

START = plain_ledger.START.replace("%s", "$1")
FINISH = plain_ledger.FINISH.replace("%s", "$1")


def prepare(url: str) -> None:
    plain_ledger.create(url)
    asyncio.run(_install(url))


async def _install(url: str) -> None:
    connection = await asyncpg.connect(url)
    await Queries(AsyncpgDriver(connection)).install()
    await connection.close()


def environment(place: Place) -> dict[str, str]:
    return {}


def command() -> list[str]:
    start = "import asyncio; from bench import with_pgqueuer as peer; asyncio.run(peer.work())"
    return [sys.executable, "-c", start]


@contextmanager
def submitter(shape: str, width: int) -> Iterator[Callable[[str], None]]:
    def submit(mark: str) -> None:
        with pool.connection() as connection, connection.transaction():
            connection.execute(plain_ledger.SUBMIT, [mark])
            SyncQueries(SyncPsycopgDriver(connection)).enqueue("run", mark.encode())

    url = os.environ["BENCH_URL"]
    with ConnectionPool(url, kwargs={"autocommit": True}, min_size=4, max_size=16) as pool:
        pool.wait()
        yield submit


async def work() -> None:
    """Serve until told to stop."""
    url = os.environ["BENCH_URL"]
    connection = await asyncpg.connect(url)
    queuer = PgQueuer(AsyncpgDriver(connection))
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, queuer.shutdown.set)

    async with asyncpg.create_pool(url, min_size=4, max_size=10) as pool:

        @queuer.entrypoint("run")
        async def run(job: Job) -> None:
            assert job.payload is not None
            mark = job.payload.decode()
            await pool.execute(START, mark)
            enter(mark)
            await pool.execute(FINISH, mark)

        await queuer.run(batch_size=BATCH)
    await connection.close()
