"""The Procrastinate app, and the seam by which its queue and our ledger are one.

Procrastinate listens, runs periodic chores and drains. Fetching and finishing are ours: a fetch claims queue jobs and
begins their attempts in one statement, and the statement that settles an attempt removes its queue job. So the two
cannot disagree, and Procrastinate has nothing left to acknowledge.

The step runs of one claim are one job to Procrastinate: what it does for each job costs more than a small step. So the
number of running steps is kept here, too.

Names only: this module imports no step.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from itertools import chain
from typing import Any
from uuid import UUID

import procrastinate
import psycopg
from procrastinate import jobs, manager

from tasks.db import AsyncPool, statement
from tasks.pace import Pace

RUN_STEPS = "run_steps"  # of one claim; in the queue each is a row of its own, "run_step"
CONFINED_QUEUES = ("cpu", "media")

_GATHER_S = 0.002

Claimed = dict[str, Any]


class LedgerJobManager(manager.JobManager):
    """Fetches by claiming: as many step runs at once as there are free slots."""

    def __init__(self, connector: procrastinate.BaseConnector, pool: AsyncPool, worker: UUID, slots: int) -> None:
        super().__init__(connector)
        self.took_from: Counter[str] = Counter()
        self._pool = pool
        self._worker = worker
        self._slots = slots
        self._ready: list[jobs.Job] = []
        self._work: dict[int, list[Claimed]] = {}
        self._in_hand = 0
        self._freed = asyncio.Event()
        self._stopping = False
        self._rung = 0
        self._pace = Pace()
        self._last = 0  # how many the last claim brought

    async def fetch_job(self, queues: Iterable[str] | None, worker_id: int) -> jobs.Job | None:
        """What was claimed and begun, step runs as one job; None when there is nothing, or when this lane stops."""
        while not self._ready:
            rung = self._rung
            await self._find_slots()
            if self._stopping:
                return None
            await self._claim(list(queues) if queues is not None else None, worker_id)
            if not self._ready and self._rung == rung:
                return None  # nothing there, and nothing came while we looked: no wake-up is lost
        return self._ready.pop(0)

    async def finish_job(self, job: jobs.Job, status: jobs.Status, delete_job: bool) -> None:
        """Step runs were settled with their attempts; only chores are left to acknowledge."""
        if job.task_name != RUN_STEPS:
            self.free_slot()
            await super().finish_job(job, status, delete_job=True)

    def take_work(self, job: int) -> list[Claimed]:
        """What was claimed with a job, once. Each is to be followed by `free_slot`."""
        return self._work.pop(job)

    def free_slot(self) -> None:
        """One of those in hand has ended."""
        self._in_hand -= 1
        self._freed.set()

    def stop(self) -> None:
        """Claim nothing more."""
        self._stopping = True
        self._freed.set()

    def leftovers(self) -> list[Claimed]:
        """What was claimed and never started, because the worker stops."""
        left, self._work, self._ready = list(chain(*self._work.values())), {}, []
        return left

    async def listen_for_jobs(
        self, *, on_notification: manager.NotificationCallback, queues: Iterable[str] | None = None
    ) -> None:
        """Listen, and count the calls: see fetch_job."""

        async def count(*, channel: str, notification: jobs.Notification) -> None:
            self._rung += 1
            await on_notification(channel=channel, notification=notification)

        try:
            await super().listen_for_jobs(on_notification=count, queues=queues)
        except asyncio.CancelledError as error:
            # Cancelled while connecting, the half-made connection lives as long as this error is kept, and
            # Procrastinate keeps it until the last step has ended. A Postgres that wants to stop would wait for it.
            traceback.clear_frames(error.__traceback__)
            raise

    async def _find_slots(self) -> None:
        """Wait for a slot. Under load, let a few more become free: one claim of many is cheaper than many of one."""
        await self._pace.keep(self._last)
        while self._in_hand >= self._slots and not self._stopping:
            self._freed.clear()
            await self._freed.wait()
        if self._slots - self._in_hand < self._slots // 4:
            await asyncio.sleep(_GATHER_S)

    async def _claim(self, queues: list[str] | None, queue_worker: int) -> None:
        arguments = {"queues": queues, "worker": self._worker, "queue_worker": queue_worker}
        async with self._pool.connection() as connection:
            most = self._slots - self._in_hand
            rows = await (await connection.execute(statement("engine_claim"), arguments | {"most": most})).fetchall()
        self._last = len(rows)
        self._in_hand += len(rows)
        self.took_from.update(row["queue_name"] for row in rows)
        self._ready += [jobs.Job.from_row(row | {"worker_id": queue_worker}) for row in rows if row["work"] is None]
        if runs := [row for row in rows if row["work"] is not None]:
            self._ready.append(jobs.Job.from_row(runs[0] | {"task_name": RUN_STEPS, "args": {}}))
            self._work[runs[0]["id"]] = [row["work"] for row in runs]


def make_app(url: str, pool: AsyncPool, worker: UUID, slots: int) -> tuple[procrastinate.App, LedgerJobManager]:
    """A Procrastinate app on a direct connection, and the job manager that ties it to the ledger."""
    connector = procrastinate.PsycopgConnector(conninfo=url, min_size=1, max_size=4, configure=_look_into_queue_schema)
    app = procrastinate.App(connector=connector)
    job_manager = LedgerJobManager(connector, pool, worker, slots)
    app.job_manager = job_manager
    return app, job_manager


def register(
    app: procrastinate.App,
    lane: LedgerJobManager,
    run_step: Callable[[Claimed], Awaitable[None]],
    prune: Callable[[], Awaitable[int]],
) -> None:
    """Name the tasks there are. What was claimed waits in the job manager, so that it is never logged.

    With no periodic task, Procrastinate 3.10 does not watch its own listener and heartbeat: there must be one.
    """

    async def run_one(work: Claimed) -> None:
        try:
            await run_step(work)
        finally:
            lane.free_slot()

    @app.task(name=RUN_STEPS, pass_context=True)
    async def run(context: procrastinate.JobContext) -> None:
        assert context.job.id is not None
        ends = await asyncio.gather(*map(run_one, lane.take_work(context.job.id)), return_exceptions=True)
        if errors := [end for end in ends if isinstance(end, Exception)]:
            raise ExceptionGroup("step runs ended without the ledger's knowledge", errors)

    @app.periodic(cron="17 * * * *")
    @app.task(name="prune", queue="maintenance", queueing_lock="prune")
    async def prune_results(timestamp: int) -> None:
        await prune()


async def _look_into_queue_schema(connection: psycopg.AsyncConnection[Any]) -> None:
    await connection.execute(statement("queue_search_path"))
    await connection.commit()
