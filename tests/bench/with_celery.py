"""Celery with Redis as its broker, two prefork processes, and a hand-written ledger.

BENCH_CELERY=default   acknowledged when taken: a task whose worker dies is lost
BENCH_CELERY=late      acks_late and prefetch 1: the usual advice where tasks may not be lost
BENCH_LEDGER=same      the same rows as ours
BENCH_LEDGER=plain     one row for each job, as the other peers have
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import psycopg
from bench import plain_ledger, same_ledger
from bench.contenders import Place
from bench.entries import enter
from celery import Celery
from celery.signals import worker_process_init
from psycopg_pool import ConnectionPool

CHANNELS = {"default": 0, "late": 1, "plain": 2}

late = os.environ.get("BENCH_CELERY") == "late"
app = Celery("bench", broker=os.environ.get("BENCH_BROKER"))
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)
if late:
    app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1)

_connections: list[psycopg.Connection[Any]] = []


@worker_process_init.connect
def connect(**_: object) -> None:
    """Each process keeps one connection."""
    _connections.append(psycopg.connect(os.environ["BENCH_URL"], autocommit=True))


@app.task
def run(job: str) -> None:
    connection = _connections[0]
    connection.execute(rows().START, [job])
    enter(job)
    connection.execute(rows().FINISH, [job])


def prepare(url: str) -> None:
    rows().create(url)


def rows() -> ModuleType:
    """The ledger that is kept."""
    return plain_ledger if os.environ.get("BENCH_LEDGER") == "plain" else same_ledger


def environment(place: Place) -> dict[str, str]:
    channel = next((CHANNELS[name] for name in CHANNELS if place.name.endswith(name)), 0)
    return {"BENCH_BROKER": f"{place.servers.redis}/{channel}"}


def command() -> list[str]:
    celery = [sys.executable, "-m", "celery", "--quiet", "--app", "bench.with_celery"]
    return [*celery, "worker", "--pool", "prefork", "--concurrency", "2", "--loglevel", "ERROR"]


@contextmanager
def submitter(shape: str, width: int) -> Iterator[Callable[[str], None]]:
    statement = rows().SUBMIT

    def submit(mark: str) -> None:
        with pool.connection() as connection:
            connection.execute(statement, [mark])
        run.delay(mark)

    with ConnectionPool(os.environ["BENCH_URL"], kwargs={"autocommit": True}, min_size=4, max_size=16) as pool:
        pool.wait()
        yield submit
