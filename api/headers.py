"""Headers that calls take: what they are for, and what a value must look like when not every text will do."""

from __future__ import annotations

from dataclasses import dataclass

KEY_PATTERN = r"[\x21-\x7e]{1,255}"
EVENT_NUMBER_PATTERN = r"[0-9]{1,9}"
# Position, job and number of an event; or a position alone, below which all was told.
POSITION_PATTERN = r"[0-9]{1,18}(-[0-9a-f]{32}-[0-9]{1,9})?"


@dataclass(frozen=True)
class Header:
    """A header that a call takes, as it is declared. `pattern`: for the whole value."""

    about: str
    pattern: str | None = None


IDEMPOTENCY_KEY = Header("Same key and same body: the same job. Same key and another body: refused.", KEY_PATTERN)
LAST_EVENT_ID = Header("Number of the last event you have.", EVENT_NUMBER_PATTERN)
LAST_POSITION = Header("The `id` of the last message you have.", POSITION_PATTERN)
IF_NONE_MATCH = Header("The ETag of what you have.")
TENANT = Header("Which tenant, for users who are members of several.")
