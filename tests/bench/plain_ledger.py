"""The ledger that a user of a plain queue writes by hand: a row per job, queued → running → completed.

Less than half of what Ledgerline keeps: no steps, events, progress, idempotency, results.
"""

from __future__ import annotations

import psycopg

TABLE = """
create table jobs (
  id uuid primary key,
  status text not null default 'queued' check (status in ('queued', 'running', 'completed', 'failed')),
  created_at timestamptz not null default clock_timestamp(),
  started_at timestamptz,
  finished_at timestamptz
);
create index jobs_active on jobs (status) where status in ('queued', 'running');
"""

SUBMIT = "insert into jobs (id) values (%s)"
START = "update jobs set status = 'running', started_at = clock_timestamp() where id = %s and status = 'queued'"
FINISH = "update jobs set status = 'completed', finished_at = clock_timestamp() where id = %s and status = 'running'"


def create(url: str) -> None:
    """Make the table."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(TABLE)
