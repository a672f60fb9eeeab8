"""A job's events as server-sent events: history, then tail, without gap or repeat.

Gapless because we follow before we read, and because every wake-up, whatever woke us, reads what comes after the last
number sent: numbers are taken under the job's row lock, so none appears below one that was seen.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from uuid import UUID

import psycopg
from flask import Response
from psycopg_pool import PoolTimeout

from api.history import MOST, Stretch, read_stretch
from api.house import House
from api.models.jobs import Ended, Event
from api.people import Member
from tasks.errors import Refused

MEDIA_TYPE = "text/event-stream"
HEARTBEAT_S = 15.0
_RECONNECT_MS = 2_000
_HEADERS = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}

_log = logging.getLogger("ledgerline.stream")


class Stream:
    """One client's stream. Following begins here, so construct, then `respond`."""

    def __init__(self, desk: House, member: Member, job_id: UUID, after: int) -> None:
        self._desk = desk
        self._member = member
        self._job_id = job_id
        self._sent = after
        self._spoke_at = time.monotonic()
        self._follower = desk.live.follow(job_id)

    def respond(self) -> Response:
        """The response. Raises Refused when there is no such job: what can be refused is refused before it begins."""
        try:
            first = self._read()
        except BaseException:
            self._follower.close()
            raise
        response = Response(self._talk(first), headers=_HEADERS, mimetype=MEDIA_TYPE)
        # Also called when the client goes away before the first piece was asked for.
        response.call_on_close(self._follower.close)
        return response

    def _talk(self, stretch: Stretch | None) -> Iterator[str]:
        yield self._say(f"retry: {_RECONNECT_MS}\n\n")
        while True:
            for event in stretch.events if stretch else ():
                self._sent = event.seq
                yield self._say(_frame(event))
            if stretch and stretch.is_end:
                yield _last_frame(stretch)
                return
            if stretch is None or len(stretch.events) < MOST:
                yield from self._wait()
            if self._is_over():
                return
            try:
                stretch = self._read_again()
            except Refused:
                # No longer ours to see.
                return

    def _wait(self) -> Iterator[str]:
        left = self._spoke_at + HEARTBEAT_S - time.monotonic()
        self._follower.wait(left)
        if time.monotonic() - self._spoke_at >= HEARTBEAT_S:
            yield self._say(": nothing new\n\n")

    def _is_over(self) -> bool:
        return self._desk.live.closed or time.time() > self._member.caller.expires_at

    def _read_again(self) -> Stretch | None:
        """What is new; None while the database is away, which a stream outlives."""
        try:
            return self._read()
        except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout) as error:
            _log.warning("a stream waits for the database: %s", type(error).__name__)
            return None

    def _read(self) -> Stretch:
        self._follower.arm()
        return read_stretch(self._desk, self._member, self._job_id, self._sent)

    def _say(self, text: str) -> str:
        self._spoke_at = time.monotonic()
        return text


def _frame(event: Event) -> str:
    return f"id: {event.seq}\ndata: {event.model_dump_json()}\n\n"


def _last_frame(stretch: Stretch) -> str:
    end = Ended(status=stretch.status, last_seq=stretch.last_seq)
    return f"event: end\ndata: {end.model_dump_json()}\n\n"
