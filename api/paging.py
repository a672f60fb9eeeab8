"""Lists a page at a time. A cursor is the id of the last row seen: ids sort by birth, so pages neither skip nor repeat
when rows are added meanwhile."""

from __future__ import annotations

import base64
import binascii
from uuid import UUID

from api.codes import refuse
from tasks.db import Row


def read_cursor(cursor: str | None) -> UUID | None:
    """The id in a cursor. Raises Refused `cursor_invalid`."""
    if cursor is None:
        return None
    try:
        return UUID(bytes=base64.urlsafe_b64decode(cursor + "=="))
    except (ValueError, binascii.Error):
        raise refuse("cursor_invalid", "This cursor does not come from an answer of this list.") from None


def write_cursor(last: UUID) -> str:
    """The cursor that goes on after a row."""
    return base64.urlsafe_b64encode(last.bytes).decode().rstrip("=")


def cut(rows: list[Row], limit: int) -> tuple[list[Row], str | None]:
    """One page of `limit + 1` rows that were read, and the cursor of the next one, if there is a next one."""
    page = rows[:limit]
    return page, write_cursor(page[-1]["id"]) if len(rows) > limit else None
