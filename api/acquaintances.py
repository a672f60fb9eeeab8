"""Who asked a moment ago, and what the database said of them then.

It is good for calls that have the database prove it in passing: they need not ask first. Nobody else may use it: a
member who was removed is no member from that moment on.
"""

from __future__ import annotations

import time
from uuid import UUID

from tasks.db import Row

# Also how long a change of what a tenant may ask in a minute can go unnoticed by such calls.
LIFESPAN_S = 10.0
_MOST = 10_000


class Acquaintances:
    """Tenants of users, as one process was told last; beside each the pipeline that they wanted."""

    def __init__(self) -> None:
        self._known: dict[tuple[UUID, str], tuple[float, list[Row]]] = {}

    def note(self, user_id: UUID, pipeline: str, rows: list[Row]) -> None:
        """Keep what was just said."""
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[user_id, pipeline] = (time.monotonic() + LIFESPAN_S, rows)

    def find(self, user_id: UUID, pipeline: str) -> list[Row] | None:
        """What was said a moment ago; None when nothing was."""
        until, rows = self._known.get((user_id, pipeline), (0.0, None))
        return rows if until > time.monotonic() else None
