"""DBOS: workflows on a queue, their first and last step writing the hand-written ledger.

It polls its queues, by default once a second; here every 50 ms, so that polling does not limit its rate.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sqlalchemy
from bench import plain_ledger
from bench.contenders import Place
from bench.entries import enter
from dbos import DBOS, DBOSClient, DBOSConfig, EnqueueOptions
from psycopg_pool import ConnectionPool

CONCURRENCY = 20
POLL_S = 0.05
QUEUE = "bench"

_pools: list[ConnectionPool] = []


@DBOS.step()
def begin_and_end(job: str) -> int:
    with _pools[0].connection() as connection:
        connection.execute(plain_ledger.START, [job])
        enter(job)
        connection.execute(plain_ledger.FINISH, [job])
    return 1


@DBOS.step()
def begin(job: str) -> int:
    with _pools[0].connection() as connection:
        connection.execute(plain_ledger.START, [job])
    enter(job)
    return 1


@DBOS.step()
def add_one(value: int) -> int:
    return value + 1


@DBOS.step()
def end(job: str, value: int) -> int:
    with _pools[0].connection() as connection:
        connection.execute(plain_ledger.FINISH, [job])
    return value + 1


@DBOS.workflow()
def one(job: str) -> int:
    return begin_and_end(job)


@DBOS.workflow()
def five(job: str) -> int:
    return end(job, add_one(add_one(add_one(begin(job)))))


def prepare(url: str) -> None:
    plain_ledger.create(url)
    DBOS(config=_config(url))
    DBOS.launch()
    DBOS.register_queue(QUEUE, worker_concurrency=CONCURRENCY, polling_interval_sec=POLL_S)
    DBOS.destroy()


def environment(place: Place) -> dict[str, str]:
    return {}


def command() -> list[str]:
    return [sys.executable, "-c", "from bench import with_dbos; with_dbos.work()"]


@contextmanager
def submitter(shape: str, width: int) -> Iterator[Callable[[str], None]]:
    url = os.environ["BENCH_URL"]
    engine = sqlalchemy.create_engine(_sqlalchemy_url(url), pool_size=8)
    client = DBOSClient(system_database_engine=engine)
    insert = sqlalchemy.text(plain_ledger.SUBMIT.replace("%s", ":id"))

    def submit(mark: str) -> None:
        with engine.begin() as connection:
            connection.execute(insert, {"id": mark})
            options: EnqueueOptions = {"workflow_name": shape, "queue_name": QUEUE, "workflow_id": mark}
            client.enqueue_in_transaction(connection, options, mark)

    yield submit
    client.destroy()
    engine.dispose()


def work() -> None:
    """Serve until told to stop."""
    url = os.environ["BENCH_URL"]
    stop = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: stop.set())
    with ConnectionPool(url, kwargs={"autocommit": True}, min_size=4, max_size=CONCURRENCY) as pool:
        _pools.append(pool)
        DBOS(config=_config(url))
        DBOS.launch()
        stop.wait()
        DBOS.destroy()


def _config(url: str) -> DBOSConfig:
    return {"name": "bench", "system_database_url": url, "log_level": "ERROR", "application_version": "bench"}


def _sqlalchemy_url(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://", 1)
