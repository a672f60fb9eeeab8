"""What owners do with webhooks. Every function is one statement on the caller's connection, and refusals of the ledger
arrive as `errors.Refused`. Secrets are made here, handed out once, and kept where no user's query reaches.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg

from tasks.db import Row, refusals, statement
from tasks.ledger import new_id

Connection = psycopg.Connection[Row]

KEY_BYTES = 32
# So long the secret before still signs beside the new one: time to bring the new one to every receiver.
OVERLAP_S = 24 * 3600.0


@dataclass(frozen=True)
class Registration:
    """An endpoint to be told of events of some kinds."""

    tenant_id: UUID
    user_id: UUID
    url: str
    kinds: Sequence[str]


def make_secret() -> str:
    """A secret as the Standard Webhooks write it."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def add(connection: Connection, registration: Registration, most: int) -> tuple[Row, str]:
    """Register an endpoint; the webhook and its secret. Raises Refused `too_many_webhooks` beyond `most`."""
    secret = make_secret()
    asked = vars(registration) | {"id": new_id(), "secret": secret, "most": most}
    return _one(connection, "webhook_add", asked), secret


def change(
    connection: Connection,
    webhook_id: UUID,
    tenant_id: UUID,
    url: str | None = None,
    kinds: Sequence[str] | None = None,
    enabled: bool | None = None,
) -> Row:
    """Change what is given; the webhook. Disabling fails what is pending."""
    changes = {"url": url, "kinds": kinds, "enabled": enabled}
    return _one(connection, "webhook_change", _key(webhook_id, tenant_id) | changes)


def remove(connection: Connection, webhook_id: UUID, tenant_id: UUID) -> None:
    """Forget a webhook and its deliveries."""
    _one(connection, "webhook_remove", _key(webhook_id, tenant_id))


def rotate(connection: Connection, webhook_id: UUID, tenant_id: UUID) -> tuple[str, datetime]:
    """A new secret, and until when the one before signs too."""
    secret = make_secret()
    asked = _key(webhook_id, tenant_id) | {"secret": secret, "overlap_s": OVERLAP_S}
    return secret, _one(connection, "webhook_rotate", asked)["previous_until"]


def ping(connection: Connection, webhook_id: UUID, tenant_id: UUID) -> Row:
    """A delivery that tells of nothing. Raises Refused `webhook_disabled`."""
    return _one(connection, "webhook_ping", _key(webhook_id, tenant_id))


def retry(connection: Connection, delivery_id: UUID, webhook_id: UUID, tenant_id: UUID) -> Row:
    """Have a delivery tried again at once. Raises Refused when it was taken, or the webhook is disabled."""
    return _one(connection, "webhook_retry", _key(webhook_id, tenant_id) | {"delivery_id": delivery_id})


def _key(webhook_id: UUID, tenant_id: UUID) -> dict[str, Any]:
    return {"webhook_id": webhook_id, "tenant_id": tenant_id}


def _one(connection: Connection, name: str, arguments: dict[str, Any]) -> Row:
    with refusals():
        row = connection.execute(statement(name), arguments).fetchone()
    assert row is not None, name
    return row
