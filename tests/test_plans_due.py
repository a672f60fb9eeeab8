"""However much waits for its time, looking for what is due reads what is due."""

from __future__ import annotations

from collections.abc import Iterator
from typing import LiteralString

import psycopg
import pytest
from ledger_play import Play
from psycopg.rows import dict_row
from test_plans import assert_short, fill, rows_read

LATER: LiteralString = """
update jobs set deadline_at = now() + interval '1 hour' where finished_at is null;
update reviews set expires_at = now() + interval '1 hour' where status = 'open';
insert into ops.loose_bytes (tenant_id, sha256, due_at)
select t.id, encode(sha256(n::text::bytea), 'hex'), now() + interval '1 hour' from tenant t, generate_series(1, 200) n;
insert into batches (id, tenant_id, pipeline, created_at, due_at)
select ledger.uuid7(), t.id, 'line', now(), now() + interval '1 hour' from tenant t, generate_series(1, 200);
insert into uploads (id, tenant_id, filename, title, bytes, created_at, expires_at, cleared_at)
select ledger.uuid7(), t.id, 'a.txt', 'a', 5, now(), now() + interval '1 hour', case when n % 2 = 0 then now() end
from tenant t, generate_series(1, 200) n;
insert into webhooks (id, tenant_id, url, kinds, created_at)
select t.id, t.id, 'https://example.com/', array['submitted'], now() from tenant t;
insert into webhook_deliveries (webhook_id, tenant_id, job_id, seq, kind, payload, status, due_at, created_at,
                                finished_at)
select tenant, tenant, job, 1, 'submitted', '{}', case when n % 2 = 0 then 'pending' else 'delivered' end,
       case when n % 2 = 0 then now() + interval '1 hour' end, now(), case when n % 2 = 1 then now() end
from bulk where n < 4000;
"""

LOOKS: dict[str, LiteralString] = {
    "retries": "ledger.promote_due(1000)",
    "deadlines": "ledger.expire_jobs()",
    "gates": "ledger.expire_gates()",
    "bytes": "ledger.take_loose_bytes(100)",
    "batches": "ledger.take_in(ledger.uuid7(), 30, 10, 16)",
    "uploads": "ledger.uploads_to_clear(100)",
    "deliveries": "ledger.claim_deliveries(100, 4, '{}', 30)",
    "old deliveries": "ledger.prune_deliveries(interval '30 days', 50)",
    "old results": "ledger.prune_results(interval '30 days', 50)",
}


@pytest.fixture(scope="module")
def expecting(module_database_url: str) -> Iterator[Play]:
    """A ledger in which much will be due in an hour and nothing is yet."""
    with psycopg.connect(module_database_url, row_factory=dict_row) as connection:
        Play(connection)
        fill(connection, LATER)
        connection.commit()
        connection.autocommit = True
        connection.execute("vacuum analyze")
        yield Play(connection)


@pytest.mark.parametrize("what", LOOKS)
def test_a_look_for_what_is_due_is_short_while_nothing_is(expecting: Play, what: str) -> None:
    with expecting.connection.transaction(force_rollback=True):
        assert_short(rows_read(expecting, lambda: expecting.all("select * from " + LOOKS[what])), fetched=50)


def test_retries_that_are_due_are_found_among_those_that_are_not(expecting: Play) -> None:
    due: LiteralString = "select id from job_steps where due_at is not null limit 3"
    with expecting.connection.transaction(force_rollback=True):
        expecting.all("update job_steps set due_at = now() where id in (" + due + ") returning 1")
        assert expecting.one("select promoted from ledger.promote_due(1000)") == 3


def test_deadlines_that_have_passed_are_found_among_those_that_have_not(expecting: Play) -> None:
    due: LiteralString = "select id from jobs where deadline_at is not null order by id desc limit 3"
    with expecting.connection.transaction(force_rollback=True):
        expecting.all("update jobs set deadline_at = now() where id in (" + due + ") returning 1")
        assert expecting.one("select ledger.expire_jobs()") == 3
