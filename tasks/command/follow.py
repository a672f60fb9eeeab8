"""Follow a job's stream through whatever happens to the connection: every event once, in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from tasks.command.client import Client
from tasks.command.events import Event
from tasks.errors import Unavailable

T = TypeVar("T")

_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 5.0
# A database that is being restarted is back by then.
_BRIEF_PATIENCE_S = 30.0
# An API that is being deployed or restarted is back by then.
_PATIENCE_S = 300.0


def follow(client: Client, job_id: str, on_break: Callable[[str], None]) -> Iterator[Event]:
    """A job's events from the first to its end, also when it is already over.

    Connects again where it was when the connection breaks, and calls `on_break` with a sentence once for each break.
    Raises Refused when there is no such job, Unavailable when nothing answers for five minutes.
    """
    seen, broken_at, wait = 0, 0.0, _FIRST_WAIT_S
    while True:
        try:
            with client.stream(job_id, seen) as frames:
                for frame in frames:
                    broken_at, wait = 0.0, _FIRST_WAIT_S
                    if frame.event == "end":
                        return
                    event = Event.from_json(frame.json())
                    if event.seq > seen:
                        seen = event.seq
                        yield event
        except Unavailable:
            if broken_at and time.monotonic() - broken_at > _PATIENCE_S:
                raise
        if not broken_at:
            broken_at = time.monotonic()
            on_break("The connection was lost; waiting for the API.")
        time.sleep(wait)
        wait = min(wait * 2, _LONGEST_WAIT_S)


def patiently(call: Callable[[], T]) -> T:
    """Make a call again for a while when the API answers that it cannot answer now; then raise what it raises."""
    deadline, wait = time.monotonic() + _BRIEF_PATIENCE_S, _FIRST_WAIT_S
    while True:
        try:
            return call()
        except Unavailable as error:
            if error.code == "api_unreachable" or time.monotonic() > deadline:
                raise
        time.sleep(wait)
        wait = min(wait * 2, _LONGEST_WAIT_S)
