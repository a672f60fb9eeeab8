"""Ledgers with a past, a long queue, or many retries waiting; and our rate on each."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psycopg
from bench.contenders import Contender, Place
from bench.runs import PATIENCE_S, SKIPPED, submit, wait_until_done, workers
from psycopg.types.json import Jsonb

FILL = (Path(__file__).parent / "depth.sql").read_text(encoding="utf-8")
SHALLOW = 1_000

_COLUMNS = """
select string_agg(quote_ident(column_name), ', ' order by ordinal_position) from information_schema.columns
where table_schema = 'public' and table_name = 'jobs' and is_generated = 'NEVER'
"""

AT_ONCE = 20_000
IN_A_HURRY = 64  # threads
RETRYING = {"status": "retrying", "due_at": "2100-01-01T00:00:00Z", "queued_at": None}


def fill(contender: Contender, place: Place, queued: int, finished: int, delayed: int) -> None:
    """Bring a fresh ledger to this state. What waits is copied; what is over was run.

    How full the pages of a past are, and in which order they were written, decides what it costs to go on with them.
    """
    with psycopg.connect(place.url, autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
        if finished:
            with workers(contender, place):
                for _ in range(0, finished, AT_ONCE):
                    submit(contender, place, min(finished, AT_ONCE), threads=IN_A_HURRY)
                wait_until_done(connection)
        submit(contender, place, 1)
        waiting = _newest(connection)
        _copy(connection, waiting, delayed, RETRYING, queued=False)
        _copy(connection, waiting, queued, {}, queued=True)
        connection.execute("vacuum analyze")


def run_on(contender: Contender, place: Place, jobs: int) -> float:
    """Jobs a second over `jobs` jobs, while at least as many as before stay queued."""
    with psycopg.connect(place.url, autocommit=True) as connection:
        submit(contender, place, jobs)
        connection.execute("vacuum analyze")
        mark = _one(connection, "select ledger.uuid7()")
        with workers(contender, place):
            _wait_for_results(connection, mark, jobs)
        times = connection.execute(
            "select s.finished_at from step_results r join job_steps s on s.result_id = r.id"
            " where r.id > %s order by 1 limit %s",
            [mark, jobs],
        ).fetchall()
    skipped = int(jobs * SKIPPED)
    return (jobs - skipped) / (times[-1][0] - times[skipped - 1][0]).total_seconds()


def _copy(connection: psycopg.Connection[Any], job: Any, copies: int, run: dict[str, Any], *, queued: bool) -> None:
    if copies:
        columns = _one(connection, _COLUMNS)
        given = {"job": job, "copies": copies, "run": Jsonb(run), "queued": queued}
        connection.execute(FILL.replace("{columns}", columns), given)


def _wait_for_results(connection: psycopg.Connection[Any], mark: Any, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while _one(connection, "select count(*) from step_results where id > %s", mark) < count:
        if time.monotonic() > deadline:
            raise TimeoutError("jobs are still open")
        time.sleep(0.1)


def _newest(connection: psycopg.Connection[Any]) -> Any:
    return _one(connection, "select id from jobs order by id desc limit 1")


def _one(connection: psycopg.Connection[Any], query: str, *arguments: Any) -> Any:
    row = connection.execute(query, arguments).fetchone()  # type: ignore[call-overload]
    return row[0]
