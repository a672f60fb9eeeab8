"""Walking over more rows than memory should hold: a server-side cursor, read as the caller.

A reader may take as long as an export may last, so a walk has a connection of its own, of which there are only so many,
and never one that other requests wait for.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg

from api.house import House
from api.tokens import Caller
from tasks.db import Row, connect, statement
from tasks.errors import Unavailable

_STRIDE = 200
# For the database, which cannot know whether a process that asks for nothing waits for its reader or is gone.
_FETCH_S = 60.0
_IDLE_S = 120.0
_RETRY_AFTER_S = 10


class WalkTooLong(Exception):
    """It took longer than EXPORT_TIMEOUT_S."""


class Walk:
    """The rows of one statement in one snapshot. Construct, read `strides`, and `close` in any case."""

    def __init__(self, desk: House, caller: Caller, name: str, **arguments: Any) -> None:
        """Raises Unavailable `exports_busy`, and OperationalError: before anything is sent."""
        if not desk.exports.acquire(blocking=False):
            message = "Other exports are being sent right now. Please try again in a moment."
            raise Unavailable("exports_busy", message, headers={"Retry-After": str(_RETRY_AFTER_S)})
        self._held = ExitStack()
        self._held.callback(desk.exports.release)
        self._until = time.monotonic() + desk.settings.export_timeout_s
        try:
            connection = connect(desk.settings.database_url.get_secret_value())
            self._held.callback(connection.close)
            self._cursor = _open_cursor(connection, caller)
            self._cursor.execute(statement(name), arguments)
            self._first = self._cursor.fetchmany(_STRIDE)
        except BaseException:
            self.close()
            raise

    def strides(self) -> Iterator[list[Row]]:
        """The rows, some at a time. Raises WalkTooLong, and what psycopg raises when the database goes away."""
        rows = self._first
        while rows:
            yield rows
            if time.monotonic() > self._until:
                raise WalkTooLong
            rows = self._cursor.fetchmany(_STRIDE)

    def close(self) -> None:
        """End the transaction and its connection, and let the next one walk. May be called again."""
        self._held.close()


def _open_cursor(connection: psycopg.Connection[Row], caller: Caller) -> psycopg.ServerCursor[Row]:
    limits = {"fetch_ms": int(_FETCH_S * 1000), "idle_ms": int(_IDLE_S * 1000)}
    with connection.pipeline():
        connection.execute(statement("export_limits"), limits)
        connection.execute(statement("act_as_user"), {"claims": json.dumps(caller.claims)})
    return connection.cursor("walk")
