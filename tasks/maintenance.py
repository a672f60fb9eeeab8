"""What a worker does beside running steps: loops that beat, promote and sweep, and that come back when they fall.

    beat       every HEARTBEAT_S      shows that the worker is alive, and learns which attempts are no longer its own
    promote    when a retry is due    puts due retries into the queue
    recover    every LEASE_S / 3      takes back what dead workers held
    sweep      every SWEEP_INTERVAL_S reconciles everything
    deliver    every second           sends the webhooks' deliveries that are due
    tell       every few seconds      adds what became of this worker's attempts to the counts of all

Recover and sweep take turns over all workers: whoever comes first in an interval does it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from uuid import UUID

from psycopg.types.json import Jsonb

from tasks.db import AsyncPool, Row, heed_cancellation, statement
from tasks.engine.runner import Runner
from tasks.ledger import reconcile_arguments
from tasks.queue import LedgerJobManager
from tasks.settings import Settings
from tasks.webhooks.courier import Courier

log = logging.getLogger(__name__)

_PROMOTE_AT_MOST = 1000
_PROMOTE_S = 1.0
_TELL_S = 5.0


async def keep_running(name: str, once: Callable[[], Awaitable[float]]) -> None:
    """Call `once` for ever, waiting the seconds it returns in between. An error is logged and waited out."""
    delay = 0.5
    while True:
        try:
            wait = await once()
            delay = 0.5
        except Exception as error:
            log.warning("%s stumbled and goes on in %.1f s: %s", name, delay, error)
            wait, delay = delay, min(delay * 2, 10.0)
        heed_cancellation()
        await asyncio.sleep(wait)


class Maintenance:
    """The loops of one worker."""

    def __init__(self, settings: Settings, pool: AsyncPool, worker: UUID, runner: Runner) -> None:
        self.lanes: list[LedgerJobManager] = []
        self.courier = Courier(settings, pool)
        self.stopping = False
        self._settings = settings
        self._pool = pool
        self._worker = worker
        self._runner = runner
        self._telling = asyncio.Lock()

    def loops(self) -> dict[str, Callable[[], Awaitable[float]]]:
        """Every loop by name; each call does one round and returns the seconds until the next."""
        return {
            "beat": self.beat,
            "promote": self.promote,
            "recover": self.recover,
            "sweep": self.sweep,
            "deliver": self.courier.deliver,
            "tell": self.tell,
        }

    async def beat(self) -> float:
        """Show that we live; stop what is no longer ours."""
        took: Counter[str] = Counter()
        for lane in self.lanes:
            took.update(lane.took_from)
            lane.took_from.clear()
        row = await self._ask("engine_beat", self._identity() | {"took_from": list(took), "took": list(took.values())})
        self._runner.revoke(row["revoked"])
        return self._settings.heartbeat_s

    async def promote(self) -> float:
        """Queue what is due."""
        row = await self._ask("engine_promote_due", {"most": _PROMOTE_AT_MOST})
        if row["promoted"] == _PROMOTE_AT_MOST:
            return 0.0
        return min(_PROMOTE_S, max(0.01, row["next_in"])) if row["next_in"] is not None else _PROMOTE_S

    async def recover(self) -> float:
        """Take back what dead workers held, and end what has run out of time."""
        interval = self._settings.lease_s / 3
        await self._in_turn("recover", interval, "engine_recover_lost")
        return interval

    async def sweep(self) -> float:
        """Reconcile everything."""
        interval = self._settings.sweep_interval_s
        await self._in_turn("sweep", interval, "ledger_reconcile")
        return interval

    async def tell(self) -> float:
        """Add up what became of attempts; what cannot be told now is told later."""
        async with self._telling:  # who signs off waits for what is on its way
            told = self._runner.tally.take()
            if told:
                try:
                    await self._ask("engine_count_attempts", {"told": Jsonb(told)})
                except BaseException:
                    self._runner.tally.give_back(told)
                    raise
        return _TELL_S

    async def prune(self) -> int:
        """Forget results that nobody uses any more, and deliveries that ended long ago; returns how many."""
        results = await self._ask("engine_prune_results", {"days": self._settings.result_retention_days})
        deliveries = await self._ask("webhook_prune", {"days": self._settings.webhook_retention_days})
        return int(results["pruned"] + deliveries["pruned"])

    async def sign_off(self) -> None:
        """Say that this worker ended in good order, and what it has not told yet."""
        await self.tell()
        await self._ask("engine_sign_off", {"worker": self._worker})

    async def _in_turn(self, chore: str, interval: float, name: str) -> None:
        turn = {"chore": chore, "worker": self._worker, "interval_s": interval * 0.9}
        if not (await self._ask("engine_take_turn", turn))["mine"]:
            return
        repairs = (await self._ask(name, reconcile_arguments(self._settings)))["repairs"]
        if repairs:
            log.warning("%s repaired %s times; the jobs' histories say what", chore, repairs)
        await self._ask("engine_sign_chore", {"chore": chore, "worker": self._worker, "repairs": repairs})

    def _identity(self) -> dict[str, object]:
        return {
            "worker": self._worker,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "deploy": self._settings.deploy,
            "queues": list(self._settings.queues),
            "held": Jsonb(self._runner.held),
            "stopping": self.stopping,
        }

    async def _ask(self, name: str, arguments: Mapping[str, object]) -> Row:
        async with self._pool.connection() as connection:
            row = await (await connection.execute(statement(name), arguments)).fetchone()
        assert row is not None, name
        return row
