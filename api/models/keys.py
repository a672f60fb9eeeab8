"""API keys on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from api.models.base import Answer, AsWhole, Page, Request, example

KeyRole = Literal["editor", "reviewer", "viewer"]

_KEY = {
    "id": "01931c40-77a2-7b8e-9d04-3c6a8f2b1e55",
    "name": "Nightly import",
    "role": "editor",
    "prefix": "llk_4fQ0xWbC",
    "works": True,
    "created_by": "5f0c2a52-2a6e-4d2f-9c1e-6f9d0c5a7e11",
    "created_at": "2026-11-23T09:12:00Z",
    "expires_at": "2027-02-21T09:12:00Z",
    "last_used_at": None,
    "revoked_at": None,
    "revoked_by": None,
}
_MADE = _KEY | {"secret": "llk_4fQ0xWbC..."}


class NewKey(Request):
    """A key to be made."""

    model_config = example(name="Nightly import", role="editor", expires_in_days=90)

    name: str = Field(min_length=1, max_length=100, description="What it is for, so that one knows what to revoke.")
    role: KeyRole = Field(description="What it may do: as much as a member of that role.")
    # The bounds come first: behind a validator and within a choice, pydantic would not say them as JSON Schema does.
    expires_in_days: Annotated[int, Field(ge=1, le=3650), AsWhole] | None = Field(
        None, description="Days it works for. Without it: until it is revoked."
    )


class Key(Answer):
    """What is known about a key. The secret is not."""

    model_config = example(**_KEY)

    id: UUID = Field(description="Stands where a user's id does: `created_by` of a job, `actor` of an event.")
    name: str
    role: KeyRole
    prefix: str = Field(description="How the secret begins, to recognise it by.")
    works: bool = Field(description="Neither revoked nor expired.")
    created_by: UUID
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="Give or take five minutes.")
    revoked_at: datetime | None
    revoked_by: UUID | None


class MadeKey(Key):
    """A key that was just made, with its secret."""

    model_config = example(**_MADE)

    secret: str = Field(description="Shown this once. Send it as `Authorization: Bearer`.")


class Keys(Answer):
    """A page of keys."""

    model_config = example(keys=[_KEY], next_cursor=None)

    keys: list[Key]
    next_cursor: str | None


class KeysPage(Page):
    """Which page of the list of keys."""
