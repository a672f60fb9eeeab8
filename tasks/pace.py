"""A pace for calls to the database that carry more when they wait a little."""

from __future__ import annotations

import asyncio


class Pace:
    """Lets calls through at once while they come seldom or carry `many`; of others, one every `interval_s`.

    `burst`: how many may come at once after a rest. So nobody waits when there is little to do, and nothing is held up
    that carries enough as it is.
    """

    def __init__(self, interval_s: float = 0.01, burst: int = 4, many: int = 10) -> None:
        self._interval = interval_s
        self._credit = burst * interval_s
        self._many = many
        self._due = 0.0

    async def keep(self, carried: int) -> None:
        """Return when it is the turn of a call that carries so many."""
        if carried >= self._many:
            return
        now = asyncio.get_running_loop().time()
        self._due = max(self._due, now - self._credit) + self._interval
        if self._due > now:
            await asyncio.sleep(self._due - now)
