"""How often one member may ask: so many requests in a minute, which begins with the first of them.

Each process counts for itself, in memory: a count that all shared would cost a write for each request. Streams and long
polls are one request each.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from functools import cache
from uuid import UUID

from flask import Response, g
from limits import RateLimitItemPerMinute
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

from api.codes import refuse

WINDOW_S = 60
_POLICY = "member"
_FIRST_CLEARING = 1_000


@dataclass(frozen=True)
class Standing:
    """What a member may still ask: `remaining` of `limit` requests, for the next `reset_s` seconds."""

    limit: int
    remaining: int
    reset_s: int

    def tell(self, response: Response) -> None:
        """Say so in the headers: those of the IETF's draft, and its earlier ones, which more programs read."""
        response.headers["RateLimit-Policy"] = f'"{_POLICY}";q={self.limit};w={WINDOW_S}'
        response.headers["RateLimit"] = f'"{_POLICY}";r={self.remaining};t={self.reset_s}'
        response.headers["RateLimit-Limit"] = str(self.limit)
        response.headers["RateLimit-Remaining"] = str(self.remaining)
        response.headers["RateLimit-Reset"] = str(self.reset_s)


class Rates:
    """The counts of one process."""

    def __init__(self) -> None:
        self._counts = Counts()
        self._limiter = FixedWindowRateLimiter(self._counts)

    def count(self, user_id: UUID, tenant_id: UUID | None, most: int) -> None:
        """Count the request at hand. Raises Refused `rate_limited` when it is one too many."""
        item, who = _per_minute(most), (str(tenant_id), str(user_id))
        within = self._limiter.hit(item, *who)
        stats = self._limiter.get_window_stats(item, *who)
        g.rate = Standing(most, stats.remaining, max(1, round(stats.reset_time - time.time())))
        if not within:
            raise refuse(
                "rate_limited",
                f"These are too many requests. The limit is {most} in a minute.",
                limit="requests_per_minute",
                value=most,
                current=self._counts.get(item.key_for(*who)),
                retry_after_s=g.rate.reset_s,
            )


def tell_rate(response: Response) -> None:
    """Tell whoever asked how often they may ask again, if that was counted."""
    standing: Standing | None = g.get("rate")
    if standing is not None:
        standing.tell(response)


class Counts(Storage):
    """Counts in a dictionary, cleared when it has doubled. The memory that the library brings goes through all of its
    keys every hundredth of a second."""

    def __init__(self) -> None:
        super().__init__()
        self._held: dict[str, tuple[int, float]] = {}
        self._clear_at = _FIRST_CLEARING
        self._lock = threading.Lock()

    @property
    def base_exceptions(self) -> type[Exception]:
        """What may be raised."""
        return ValueError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count, in a window that begins now if there is none; gives the count."""
        now = time.time()
        with self._lock:
            count, until = self._held.get(key, (0, 0.0))
            if until <= now:
                self._make_room(now)
                count, until = 0, now + expiry
            self._held[key] = (count + amount, until)
        return count + amount

    def get(self, key: str) -> int:
        """The count of the window at hand."""
        count, until = self._held.get(key, (0, 0.0))
        return count if until > time.time() else 0

    def get_expiry(self, key: str) -> float:
        """When the window ends, in seconds since 1970."""
        return self._held.get(key, (0, time.time()))[1]

    def check(self) -> bool:
        """Whether it works."""
        return True

    def reset(self) -> int:
        """Forget everything; gives how many counts that were."""
        count = len(self._held)
        self._held.clear()
        return count

    def clear(self, key: str) -> None:
        """Forget one count."""
        self._held.pop(key, None)

    def _make_room(self, now: float) -> None:
        if len(self._held) >= self._clear_at:
            self._held = {key: held for key, held in self._held.items() if held[1] > now}
            self._clear_at = max(_FIRST_CLEARING, 2 * len(self._held))


@cache
def _per_minute(most: int) -> RateLimitItemPerMinute:
    return RateLimitItemPerMinute(most)
