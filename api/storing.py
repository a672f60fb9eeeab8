"""Keeping a document: its bytes, its row, and its first job when one is wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from uuid import UUID

from api.aside import aside
from api.house import House
from api.people import Member
from tasks import ledger
from tasks.db import Row
from tasks.storage import LocalStorage

Recorded = TypeVar("Recorded")


def keep_and_record(
    desk: House, address: tuple[UUID, str], keep: Callable[[], None], record: Callable[[ledger.Connection], Recorded]
) -> Recorded:
    """Bytes and rows, or neither: `keep` stores the bytes under `address` (tenant, sha256), `record` writes the rows.
    Nobody can see the rows before their bytes are whole.

    The bytes are announced first: should no row name them after all, a chore deletes them. On a disk of our own: rows
    first, bytes second, commit last, so that what fails on the way leaves nothing even until then. A store behind a
    network may take minutes, too long to hold a transaction open: there the bytes go first.
    """
    tenant_id, sha256 = address
    with desk.pool.connection() as connection:
        ledger.announce_bytes(connection, tenant_id, [sha256], desk.settings.collect_after_s)
    on_disk = isinstance(desk.storage, LocalStorage)
    if not on_disk:
        keep()
    with desk.pool.connection() as connection, connection.transaction():
        recorded = record(connection)
        if on_disk:
            aside(keep)
    return recorded


def record_document(
    connection: ledger.Connection, member: Member, document: dict[str, Any], params: dict[str, Any]
) -> tuple[Row, UUID | None]:
    """The document's row, and the id of the job that is started along with it when the member named a pipeline."""
    row = ledger.add_document(connection, document)
    if member.graph is None:
        return row, None
    submission = ledger.Submission(
        tenant_id=member.tenant_id,
        user_id=member.user_id,
        pipeline=member.graph.name,
        graph=member.graph.digest,
        document_id=document["id"],
        params=params,
    )
    return row, ledger.submit(connection, submission).job_id
