"""Connections to Postgres and the statements sent over them.

Statements live in sql/queries/*.sql as `-- name: NAME` blocks; nothing else in the program holds SQL text.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg.errors import Diagnostic
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from tasks.errors import Refused

ROOT = Path(__file__).resolve().parent.parent
QUERIES = ROOT / "sql" / "queries"

Row = dict[str, Any]
Pool = ConnectionPool[psycopg.Connection[Row]]
AsyncPool = AsyncConnectionPool[psycopg.AsyncConnection[Row]]

# Transaction pools (pgbouncer, Supabase :6543) break prepared statements: never prepare on the web side.
_CONNECTION = {"row_factory": dict_row, "autocommit": True, "prepare_threshold": None}


def statement(name: str) -> LiteralString:
    """The SQL text filed under `name`. KeyError when there is none."""
    return _statements()[name]


@cache
def _statements() -> dict[str, str]:
    found: dict[str, str] = {}
    for path in sorted(QUERIES.glob("*.sql")):
        for name, body in _blocks(path.read_text(encoding="utf-8")):
            if name in found:
                raise ValueError(f"statement {name!r} is defined twice, the second time in {path.name}")
            found[name] = body
    return found


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    parts = re.split(r"^-- name: *(\w+) *$", text, flags=re.MULTILINE)
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        yield name, body.strip().rstrip(";")


def statement_connection() -> dict[str, Any]:
    """How a worker connects: each statement is a transaction, rows are dicts, statements are prepared."""
    return {"row_factory": dict_row, "autocommit": True}


def open_pool(url: str, size: int) -> Pool:
    """A pool of autocommit connections returning dict rows; connects in the background."""
    return ConnectionPool(
        url, kwargs=_CONNECTION, min_size=1, max_size=size, open=True, timeout=10, check=notice_end, name="ledgerline"
    )


def connect(url: str) -> psycopg.Connection[Row]:
    """A connection of one's own for one transaction, which ends with it. Raises OperationalError."""
    return psycopg.connect(url, row_factory=dict_row, prepare_threshold=None, connect_timeout=10)


def notice_end(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Raise OperationalError when the server has hung up on a connection that was idle.

    Looks at what has arrived, and asks nothing: it costs no round trip, and a restarted server costs no request.
    """
    # The first look may find the server's last words, and only the second that nothing follows.
    for _ in range(2):
        connection.pgconn.consume_input()
    if connection.pgconn.status != psycopg.pq.ConnStatus.OK:
        raise psycopg.OperationalError("the server has closed the connection")


async def notice_end_async(connection: psycopg.AsyncConnection[Any]) -> None:
    """The same for connections of an asynchronous pool. Looking does not wait, so nothing here does."""
    notice_end(connection)


def heed_cancellation() -> None:
    """Raise CancelledError if the running task is being cancelled.

    A connection that breaks at the moment of the cancellation raises its own error instead, and waiting with a timeout
    may return as if nothing had been asked. Whoever goes on after that would go on for ever.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


@contextmanager
def as_user(pool: Pool, claims: dict[str, Any]) -> Iterator[psycopg.Connection[Row]]:
    """One transaction as the caller: role and claims are local to it, so row-level security decides what is seen."""
    with pool.connection() as connection, connection.transaction():
        connection.execute(statement("act_as_user"), {"claims": json.dumps(claims)})
        yield connection


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what the ledger's functions refuse (SQLSTATE LLnnn, nnn an HTTP status) into Refused."""
    try:
        yield
    except psycopg.errors.ForeignKeyViolation as error:
        # Deleted between a function's look and its insert.
        if error.diag.constraint_name == "jobs_document_id_fkey":
            raise Refused("document_not_found", "There is no such document.", status=404) from None
        raise
    except psycopg.Error as error:
        if error.sqlstate and re.fullmatch(r"LL\d{3}", error.sqlstate):
            raise _refused(error.diag, int(error.sqlstate[2:])) from None
        raise


def _refused(diagnostic: Diagnostic, status: int) -> Refused:
    details = json.loads(diagnostic.message_detail or "{}")
    return Refused(
        diagnostic.message_hint or "refused", diagnostic.message_primary or "", details=details, status=status
    )
