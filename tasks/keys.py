"""API keys, as the front door makes and revokes them. Only a digest of the secret ever comes here."""

from __future__ import annotations

from uuid import UUID

from tasks.db import Row, refusals, statement
from tasks.ledger import Connection


def create(
    connection: Connection,
    tenant_id: UUID,
    user_id: UUID,
    *,
    name: str,
    role: str,
    prefix: str,
    digest: str,
    expires_in_days: int | None,
) -> Row:
    """Make a key and the member it acts as. `digest`: sha256 (hex) of its secret. Raises Refused `too_many_keys`."""
    arguments = {
        "tenant_id": tenant_id,
        "user_id": user_id,
        "name": name,
        "role": role,
        "prefix": prefix,
        "digest": digest,
        "expires_in_days": expires_in_days,
    }
    return _one(connection, "key_create", arguments)


def revoke(connection: Connection, key_id: UUID, tenant_id: UUID, user_id: UUID) -> Row:
    """Let nobody in with it any more; the row stays. A second time changes nothing. Raises Refused `key_not_found`."""
    return _one(connection, "key_revoke", {"key_id": key_id, "tenant_id": tenant_id, "user_id": user_id})


def _one(connection: Connection, name: str, arguments: dict[str, object]) -> Row:
    with refusals():
        row = connection.execute(statement(name), arguments).fetchone()
    assert row is not None, name
    return row
