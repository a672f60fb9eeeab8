"""Events as server-sent events: history, then tail, without gap or repeat.

Gapless because we follow before we read, and because every wake-up, whatever woke us, reads on from where the feed
stands: what it has told and what comes after is for the feed to know, not for whoever wakes us.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import psycopg
from flask import Response
from psycopg_pool import PoolTimeout

from api.feeds import Feed, Portion
from api.house import House
from api.people import Member
from tasks.errors import Refused

MEDIA_TYPE = "text/event-stream"
HEARTBEAT_S = 15.0
# A busy tenant wakes its followers hundreds of times a second. Each looks this often at most, and finds more.
BREATH_S = 0.05
# How long a transaction may hold back what came after it until we look less and less often, and how seldom at last.
_HELD_S = (0.05, 1.0)
_RECONNECT_MS = 2_000
_HEADERS = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}

_log = logging.getLogger("ledgerline.stream")


class Stream:
    """One client's stream. Following begins here, so construct, then `respond`."""

    def __init__(self, desk: House, member: Member, feed: Feed) -> None:
        self._desk = desk
        self._member = member
        self._feed = feed
        self._spoke_at = time.monotonic()
        self._held_s = _HELD_S[0]
        self._follower = desk.live.follow(feed.topic, feed.wide)

    def respond(self) -> Response:
        """The response. Raises Refused when there is nothing to follow: what can be refused, is before it begins."""
        try:
            first = self._read()
        except BaseException:
            self._follower.close()
            raise
        response = Response(self._talk(first), headers=_HEADERS, mimetype=MEDIA_TYPE)
        # Also called when the client goes away before the first piece was asked for.
        response.call_on_close(self._follower.close)
        return response

    def _talk(self, portion: Portion) -> Iterator[str]:
        yield self._say(f"retry: {_RECONNECT_MS}\n\n")
        while True:
            for message in portion.messages:
                yield self._say(message)
            if portion.is_end:
                return
            if not portion.is_full:
                yield from self._wait(portion)
            if self._is_over():
                return
            try:
                portion = self._read_again()
            except Refused:
                # No longer ours to see.
                return

    def _wait(self, portion: Portion) -> Iterator[str]:
        if self._feed.wide:
            time.sleep(BREATH_S)
        left = self._spoke_at + HEARTBEAT_S - time.monotonic()
        self._held_s = min(self._held_s * 2, _HELD_S[1]) if portion.is_held else _HELD_S[0]
        # Nobody calls when a transaction that was in the way is over.
        self._follower.wait(min(left, self._held_s) if portion.is_held else left)
        if time.monotonic() - self._spoke_at >= HEARTBEAT_S:
            yield self._say(": nothing new\n\n")

    def _is_over(self) -> bool:
        return self._desk.live.closed or time.time() > self._member.caller.expires_at

    def _read_again(self) -> Portion:
        """What is new; nothing while the database is away, which a stream outlives."""
        try:
            return self._read()
        except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout) as error:
            _log.warning("a stream waits for the database: %s", type(error).__name__)
            return Portion()

    def _read(self) -> Portion:
        self._follower.arm()
        return self._feed.read()

    def _say(self, text: str) -> str:
        self._spoke_at = time.monotonic()
        return text
