"""Waiting for a state in tests: look again until it holds, woken by the ledger's own signal where there is one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg

T = TypeVar("T")

DEADLINE_S = 30.0
_LOOK_S = 0.02


def until(look: Callable[[], T], within: float = DEADLINE_S, pause: Callable[[float], Any] = time.sleep) -> T:
    """Call `look` until it gives something true, and return that. AssertionError after `within` seconds."""
    deadline = time.monotonic() + within
    while True:
        seen = look()
        if seen:
            return seen
        assert time.monotonic() < deadline, f"not so after {within:g} s; last seen: {seen!r}"
        pause(_LOOK_S)


class Follower:
    """Hears what moves in the ledger."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self.heard: list[tuple[str, int]] = []

    def until(self, look: Callable[[], T], within: float = DEADLINE_S) -> T:
        """Look again whenever something moved."""
        return until(look, within, self._listen)

    def hears(self, job: object, seq: int, within: float = DEADLINE_S) -> None:
        """Wait until the ledger has told that event `seq` of a job is there."""
        self.until(lambda: any(one == str(job) and number >= seq for one, number in self.heard), within)

    def _listen(self, at_most: float) -> None:
        for notification in self._connection.notifies(timeout=at_most, stop_after=1):
            job, seq = notification.payload.split()
            self.heard.append((job, int(seq)))


@contextmanager
def following(url: str) -> Iterator[Follower]:
    """A follower on a connection of its own."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("listen ledgerline_events")
        yield Follower(connection)
