"""Batches at the ledger, as the front door uses them. What workers do with them is in `reception`.

Every function is one statement on the caller's connection, and joins the caller's transaction when there is one.
Refusals of the ledger arrive as `errors.Refused`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg

from tasks.db import Row, refusals, statement
from tasks.ledger import Connection


def open_batch(connection: Connection, batch_id: UUID, tenant_id: UUID, user_id: UUID | None, pipeline: str) -> None:
    """Begin a batch. Its items and `close_batch` follow in the same transaction."""
    _ask(connection, "batches_open", id=batch_id, tenant_id=tenant_id, user_id=user_id, pipeline=pipeline)


@contextmanager
def copying_items(connection: Connection) -> Iterator[psycopg.Copy]:
    """Where to write the items to, as rows: batch_id, nr, tenant_id, key, document_id, path, title, params, outcome,
    code, message."""
    with connection.cursor() as cursor, cursor.copy(statement("batches_copy")) as copy:
        yield copy


def close_batch(connection: Connection, batch_id: UUID, items: int, key: str | None, digest: str) -> None:
    """All items are there. `key`, `digest`: for finding the batch when the same request comes again."""
    _ask(connection, "batches_close", id=batch_id, items=items, key=key, digest=digest)


def find_batch(connection: Connection, tenant_id: UUID, key: str, digest: str) -> UUID | None:
    """The batch that an equal request made before. Raises Refused when the key was used for another request."""
    found: UUID | None = _ask(connection, "batches_find", tenant_id=tenant_id, key=key, digest=digest)["id"]
    return found


def cancel_batch(
    connection: Connection, batch_id: UUID, tenant_id: UUID, user_id: UUID | None, reason: str = ""
) -> None:
    """Stop a batch: no further item becomes a job; workers do the rest. Raises Refused when it is over."""
    _ask(connection, "batches_cancel", id=batch_id, tenant_id=tenant_id, user_id=user_id, reason=reason)


def retry_batch(connection: Connection, batch_id: UUID, tenant_id: UUID, user_id: UUID | None) -> None:
    """Have workers reopen the failed jobs of a batch. Raises Refused when none has failed."""
    _ask(connection, "batches_retry", id=batch_id, tenant_id=tenant_id, user_id=user_id)


def _ask(connection: Connection, name: str, **arguments: Any) -> Row:
    with refusals():
        row = connection.execute(statement(name), arguments).fetchone()
    assert row is not None, name
    return row
