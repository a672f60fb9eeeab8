"""The Procrastinate app, and the seam by which its queue and our ledger are one.

Procrastinate polls and runs periodic chores. Claiming is ours: a claim takes queue jobs and begins their attempts in
one statement, and the statement that settles an attempt removes its queue job. So the two cannot disagree, and
Procrastinate has nothing left to acknowledge.

It never sees a step run: what it does for each job costs more than a small step. They are started and drained here.

Names only: this module imports no step.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any

import procrastinate
import psycopg
from procrastinate import jobs, manager

from tasks.db import statement
from tasks.line import Line
from tasks.pace import Pace

CONFINED_QUEUES = ("cpu", "media")

_GATHER_S = 0.002

Claimed = dict[str, Any]
RunStep = Callable[[Claimed, Awaitable[None], Callable[[], Sequence[str]]], Coroutine[Any, Any, None]]
"""Runs what was claimed. It is given the work, what it has to wait for before it begins, and the queues with room."""

log = logging.getLogger(__name__)


class LedgerJobManager(manager.JobManager):
    """Claims as many queue jobs at once as there are free slots. Step runs are started, chores wait to be fetched."""

    def __init__(self, connector: procrastinate.BaseConnector, line: Line, queues: Sequence[str], slots: int) -> None:
        super().__init__(connector)
        self.took_from: Counter[str] = Counter()
        self.run_step: RunStep = _refuse
        self._line = line
        self._queues = list(queues)
        line.rings |= dict.fromkeys(queues, self.ring)
        self._slots = slots
        self._chores: list[jobs.Job] = []
        self._running: set[asyncio.Task[None]] = set()
        self._in_hand = 0
        self._freed = asyncio.Event()
        self._stopping = False
        self._look: asyncio.Task[None] | None = None
        self._rung = 0
        self._heard = 0  # how often it had rung when the last claim was sent
        self._pace = Pace()
        self._last = 0  # how many the last claim brought
        self._full = False  # as many as it asked for
        self._queue_worker: int | None = None  # this lane, to Procrastinate
        self._wake: manager.NotificationCallback | None = None

    async def fetch_job(self, queues: Iterable[str] | None, worker_id: int) -> jobs.Job | None:
        """A chore that was claimed, after one look at least; None when there is none, or when this lane stops."""
        self._queue_worker = worker_id
        if not self._chores and not self._stopping:
            await asyncio.shield(self._look or self._start_look())
        return self._chores.pop(0) if self._chores and not self._stopping else None

    async def finish_job(self, job: jobs.Job, status: jobs.Status, delete_job: bool) -> None:
        """A chore has ended."""
        self._free_slot()
        await super().finish_job(job, status, delete_job=True)

    def room(self) -> Sequence[str]:
        """The queues in which a step may be run on with. None while others wait for a slot, or when this lane stops."""
        return self._queues if self._in_hand < self._slots and not self._stopping else ()

    def stop(self) -> None:
        """Claim nothing more."""
        self._stopping = True
        self._freed.set()

    async def drain(self, timeout_s: float) -> None:
        """Let the running steps end; what takes longer is given back by those who run it."""
        await asyncio.gather(*filter(None, [self._look]), return_exceptions=True)
        if self._running:
            await asyncio.wait(self._running.copy(), timeout=timeout_s)
        left = self._running.copy()
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def listen_for_jobs(
        self, *, on_notification: manager.NotificationCallback, queues: Iterable[str] | None = None
    ) -> None:
        """Remember how to call Procrastinate, for when there is a chore to fetch. The line listens for all lanes."""
        self._wake = on_notification
        await asyncio.Event().wait()

    def ring(self) -> None:
        """Something was queued: look for it, now or as soon as the look that is under way has seen what there is."""
        self._rung += 1
        if self._look is None and self._queue_worker is not None and not self._stopping:
            self._start_look()

    async def _call_procrastinate(self) -> None:
        if self._wake is not None:
            await self._wake(channel="", notification={"type": "job_inserted", "job_id": 0})

    def _start_look(self) -> asyncio.Task[None]:
        self._look = asyncio.create_task(self._look_once())
        self._look.add_done_callback(self._end_look)
        return self._look

    def _end_look(self, look: asyncio.Task[None]) -> None:
        """Look again when there is reason to. One that failed is kept for the next fetch."""
        if not look.cancelled() and look.exception() is None and self._look is look:
            self._look = None
            if self._looks_again():
                self._start_look()

    def _looks_again(self) -> bool:
        """It rang since the last claim was sent, or there may be more than that brought."""
        return not self._stopping and (self._full or self._rung != self._heard)

    async def _look_once(self) -> None:
        try:
            await self._find_slots()
            if not self._stopping:
                await self._claim()
        except Exception:
            await self._call_procrastinate()  # it fails by this look, and the lane is built again
            raise
        if self._chores:
            await self._call_procrastinate()

    async def _find_slots(self) -> None:
        """Wait for a slot. Under load, let a few more become free: one claim of many is cheaper than many of one."""
        await self._pace.keep(self._last)
        while self._in_hand >= self._slots and not self._stopping:
            self._freed.clear()
            await self._freed.wait()
        if self._slots - self._in_hand < self._slots // 4:
            await asyncio.sleep(_GATHER_S)

    async def _claim(self) -> None:
        await self._line.wait()
        most = self._slots - self._in_hand
        self._heard = self._rung
        claim = self._line.claim(self._queues, self._queue_worker, most)
        rows = await claim.rows
        works = [row["work"] for row in rows if row["work"] is not None]
        self._in_hand += len(works)
        self._last, self._full = len(rows), len(rows) == most
        # Who rang meanwhile waits for the next claim alone: it is sent before these begin, and what they send.
        if self._looks_again():
            self._start_look()
        for work in works:
            self._start(work, asyncio.shield(claim.kept))
        await asyncio.shield(claim.kept)
        chores = [row | {"worker_id": self._queue_worker} for row in rows if row["work"] is None]
        self._in_hand += len(chores)
        self._chores += map(jobs.Job.from_row, chores)
        self.took_from.update(row["queue_name"] for row in rows)

    def _start(self, work: Claimed, kept: Awaitable[None]) -> None:
        task = asyncio.create_task(self.run_step(work, kept, self.room))
        self._running.add(task)
        task.add_done_callback(self._end_step)

    def _end_step(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._free_slot()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a step run ended without the ledger's knowledge", exc_info=error)

    def _free_slot(self) -> None:
        self._in_hand -= 1
        self._freed.set()


async def _refuse(work: Claimed, kept: Awaitable[None], room: Callable[[], Sequence[str]]) -> None:
    raise RuntimeError("nothing was registered that runs steps")


def make_app(url: str, line: Line, queues: Sequence[str], slots: int) -> tuple[procrastinate.App, LedgerJobManager]:
    """A Procrastinate app on a direct connection, and the job manager that ties it to the ledger."""
    connector = procrastinate.PsycopgConnector(conninfo=url, min_size=1, max_size=4, configure=_look_into_queue_schema)
    app = procrastinate.App(connector=connector)
    job_manager = LedgerJobManager(connector, line, queues, slots)
    app.job_manager = job_manager
    return app, job_manager


def register(
    app: procrastinate.App,
    lane: LedgerJobManager,
    run_step: RunStep,
    prune: Callable[[], Awaitable[int]],
) -> None:
    """Say what runs a step, and name the chores.

    With no periodic task, Procrastinate 3.10 does not watch its own listener and heartbeat: there must be one.
    """

    lane.run_step = run_step

    @app.periodic(cron="17 * * * *")
    @app.task(name="prune", queue="maintenance", queueing_lock="prune")
    async def prune_results(timestamp: int) -> None:
        await prune()


async def _look_into_queue_schema(connection: psycopg.AsyncConnection[Any]) -> None:
    await connection.execute(statement("queue_search_path"))
    await connection.commit()
