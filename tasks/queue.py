"""The Procrastinate app, and the seam by which its queue and our ledger are one.

Procrastinate listens, keeps the number of running tasks, runs periodic chores and drains. Fetching and finishing are
ours: a fetch claims the queue job and begins the attempt in one statement, and the statement that settles an
attempt removes its queue job. So the two cannot disagree, and Procrastinate has nothing left to acknowledge.

Names only: this module imports no step.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from uuid import UUID

import procrastinate
import psycopg
from procrastinate import jobs, manager

from tasks.db import AsyncPool, Row, statement

RUN_STEP = "run_step"
CONFINED_QUEUES = ("cpu", "media")

_GATHER_S = 0.002

Claimed = dict[str, Any]


class LedgerJobManager(manager.JobManager):
    """Fetches by claiming: as many at once as there are free slots, handed out one by one."""

    def __init__(self, connector: procrastinate.BaseConnector, pool: AsyncPool, worker: UUID, slots: int) -> None:
        super().__init__(connector)
        self.took_from: Counter[str] = Counter()
        self._pool = pool
        self._worker = worker
        self._slots = slots
        self._ready: list[jobs.Job] = []
        self._work: dict[int, Claimed] = {}
        self._in_hand = 0
        self._rung = 0

    async def fetch_job(self, queues: Iterable[str] | None, worker_id: int) -> jobs.Job | None:
        """The next queue job, claimed and begun; None when there is none."""
        while not self._ready:
            rung = self._rung
            await self._gather_slots()
            await self._claim(list(queues) if queues is not None else None, worker_id)
            if not self._ready and self._rung == rung:
                return None  # nothing there, and nothing came while we looked: no wake-up is lost
        return self._ready.pop(0)

    async def finish_job(self, job: jobs.Job, status: jobs.Status, delete_job: bool) -> None:
        """Step runs were settled with their attempt; only chores are left to acknowledge."""
        self._in_hand -= 1
        if job.task_name != RUN_STEP:
            await super().finish_job(job, status, delete_job=True)

    def take_work(self, queue_job: int) -> Claimed:
        """What was claimed with a queue job, once."""
        return self._work.pop(queue_job)

    def leftovers(self) -> list[Claimed]:
        """What was claimed and never started, because the worker stops."""
        left, self._work, self._ready, self._in_hand = list(self._work.values()), {}, [], 0
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

    async def _gather_slots(self) -> None:
        """Under load, let a few running steps end first: one claim of many is far cheaper than many of one."""
        if self._slots - self._in_hand < self._slots // 4:
            await asyncio.sleep(_GATHER_S)

    async def _claim(self, queues: list[str] | None, queue_worker: int) -> None:
        most = max(1, self._slots - self._in_hand)
        arguments = {"queues": queues, "worker": self._worker, "queue_worker": queue_worker, "most": most}
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(statement("engine_claim"), arguments)).fetchall()
        for row in rows:
            self.took_from[row["queue_name"]] += 1
            self._ready.append(self._accept(row, queue_worker))

    def _accept(self, row: Row, queue_worker: int) -> jobs.Job:
        self._in_hand += 1
        if row["work"] is not None:
            self._work[row["id"]] = row["work"]
        return jobs.Job.from_row(row | {"worker_id": queue_worker})


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

    @app.task(name=RUN_STEP, pass_context=True)
    async def run(context: procrastinate.JobContext, step_run: str) -> None:
        assert context.job.id is not None
        await run_step(lane.take_work(context.job.id))

    @app.periodic(cron="17 * * * *")
    @app.task(name="prune", queue="maintenance", queueing_lock="prune")
    async def prune_results(timestamp: int) -> None:
        await prune()


async def _look_into_queue_schema(connection: psycopg.AsyncConnection[Any]) -> None:
    await connection.execute(statement("queue_search_path"))
    await connection.commit()
