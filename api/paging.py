"""Lists a page at a time. A cursor is the id of the last row seen: ids sort by birth, so pages neither skip nor repeat
when rows are added meanwhile. In lists by relevance it is that row's relevance and id."""

from __future__ import annotations

import base64
import binascii
import struct
from uuid import UUID

from api.codes import refuse
from tasks.db import Row

_RANKED = struct.Struct(">i16s")


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


def read_ranked_cursor(cursor: str | None) -> tuple[int, UUID | None]:
    """Relevance and id in the cursor of a list by relevance. Raises Refused `cursor_invalid`."""
    if cursor is None:
        return 0, None
    try:
        relevance, last = _RANKED.unpack(base64.urlsafe_b64decode(cursor + "="))
    except (ValueError, binascii.Error, struct.error):
        raise refuse("cursor_invalid", "This cursor does not come from an answer of this list.") from None
    return relevance, UUID(bytes=last)


def cut_ranked(rows: list[Row], limit: int) -> tuple[list[Row], str | None]:
    """The same as `cut`, of a list by relevance."""
    page = rows[:limit]
    if len(rows) <= limit:
        return page, None
    last = _RANKED.pack(page[-1]["relevance"], page[-1]["id"].bytes)
    return page, base64.urlsafe_b64encode(last).decode().rstrip("=")
