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

# A ledger that is vacuumed now and then fills what was left free at the ends of its pages as it goes on. One that was
# filled at once has all of them left, and each small row would be written into a page of its own.
PORTIONS = (0.0495,) * 20 + (0.01,)
RETRYING = {"status": "retrying", "due_at": "2100-01-01T00:00:00Z", "queued_at": None}


def fill(contender: Contender, place: Place, queued: int, finished: int, delayed: int) -> None:
    """Bring a fresh ledger to this state."""
    with psycopg.connect(place.url, autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
        with workers(contender, place):
            submit(contender, place, 1)
            wait_until_done(connection)
        done = _newest(connection)
        submit(contender, place, 1)
        waiting = _newest(connection)
        for share in PORTIONS:
            _copy(connection, done, int(share * finished), {}, queued=False)
            _copy(connection, waiting, int(share * delayed), RETRYING, queued=False)
            _copy(connection, waiting, int(share * queued), {}, queued=True)
            connection.execute("vacuum")
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
