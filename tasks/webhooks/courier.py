"""The loop of the workers that sends what is due, beside their other loops and in nobody's way.

A delivery that is taken stays pending, with its due time moved by a lease: when its worker dies it is due again, so
that it is sent at least once. Its number of attempts is the fencing token, as with step runs.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping

from tasks.db import AsyncPool, Row, statement
from tasks.settings import Settings
from tasks.webhooks.post import Answer, Letter, Post

log = logging.getLogger(__name__)

# Waits after each failed attempt; about two days in all, then it is given up.
BACK_OFF_S = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0)
LONGEST_WAIT_S = 86_400.0
AT_ONCE = 100
AT_ONCE_EACH = 4

_LOOK_S = 1.0
# However many report at once, and whatever they wait for: the other connections are for the jobs.
_CONNECTIONS = 2
_GATHER_S = 0.02
# A lease is as much longer than an attempt can take: reporting it may have to wait for the database.
_LEASE_MARGIN_S = 20.0
_DAY_S = 86_400.0


class Courier:
    """Takes deliveries that are due and sends them, many at once, of each webhook only a few."""

    def __init__(self, settings: Settings, pool: AsyncPool, post: Post | None = None) -> None:
        self.stopping = False
        self._settings = settings
        self._pool = pool
        self._post = post or Post(settings)
        self._connections = asyncio.Semaphore(_CONNECTIONS)
        self._in_hand: dict[asyncio.Task[None], Letter] = {}

    async def deliver(self) -> float:
        """Take what is due and begin to send it; the seconds until there may be more to do."""
        free = AT_ONCE - len(self._in_hand)
        if free and not self.stopping:
            for letter in await self._claim(free):
                task = asyncio.create_task(self._send(letter))
                self._in_hand[task] = letter
                task.add_done_callback(self._in_hand.pop)
        if not self._in_hand:
            return _LOOK_S
        await asyncio.wait(self._in_hand, timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
        return _GATHER_S

    async def drain(self) -> None:
        """Take no more, and wait for what is on its way: no longer than one attempt."""
        self.stopping = True
        if self._in_hand:
            await asyncio.wait(self._in_hand, timeout=self._settings.webhook_timeout_s + 1)

    async def close(self) -> None:
        """Drop what is on its way: it will be due again."""
        tasks = list(self._in_hand)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._post.close()

    async def _claim(self, most: int) -> list[Letter]:
        asked = {
            "most": most,
            "each": AT_ONCE_EACH,
            "busy": [letter.webhook_id for letter in self._in_hand.values()],
            "lease_s": 2 * self._settings.webhook_timeout_s + _LEASE_MARGIN_S,
        }
        return [Letter(**row) for row in await self._ask("webhook_claim", asked)]

    async def _send(self, letter: Letter) -> None:
        try:
            answer = await self._post.send(letter)
            (settled,) = await self._ask("webhook_settle", self._report(letter, answer))
        except Exception as error:
            log.warning("delivery %s is not reported and will be sent again: %s", letter.id, error)
            return
        if settled["disabled"]:
            log.warning("webhook %s of tenant %s was disabled: %s", letter.webhook_id, letter.tenant_id, answer.code)

    def _report(self, letter: Letter, answer: Answer) -> dict[str, object]:
        told = {"status": answer.status, "code": answer.code, "message": answer.message, "gone": answer.gone}
        return told | {
            "id": letter.id,
            "attempt": letter.attempt,
            "retry_in": None if answer.gone else wait_before_retry(letter.failures, answer.retry_after),
            "patience_s": self._settings.webhook_failing_days * _DAY_S,
        }

    async def _ask(self, name: str, arguments: Mapping[str, object]) -> list[Row]:
        async with self._connections, self._pool.connection() as connection:
            return await (await connection.execute(statement(name), arguments)).fetchall()


def wait_before_retry(failures: int, retry_after: float | None) -> float | None:
    """Seconds to wait after an attempt that failed, `failures` having failed before it; None: it was the last one."""
    if failures >= len(BACK_OFF_S):
        return None
    wait = BACK_OFF_S[failures] * random.uniform(0.8, 1.2)  # noqa: S311 - jitter, not a secret
    return min(max(wait, retry_after or 0.0), LONGEST_WAIT_S)
