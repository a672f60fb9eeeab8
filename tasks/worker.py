"""The worker process: lanes of queue jobs, a sandbox, and the loops that keep the house.

A lane is one Procrastinate worker. Queues whose steps are confined have a lane as wide as the sandbox, so that what is
claimed can run at once; the other queues share a wider one. When a lane falls (its database connection was lost),
everything is built again; only a signal ends the process.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from procrastinate.worker import Worker
from psycopg_pool import AsyncConnectionPool

from tasks.collector import Collector
from tasks.db import AsyncPool, notice_end_async, statement_connection
from tasks.engine.attempt import Attempt
from tasks.engine.desk import AWAY, Desk
from tasks.engine.runner import Room, Runner
from tasks.ledger import new_id
from tasks.line import Line
from tasks.maintenance import Maintenance, keep_running
from tasks.pipelines import modules
from tasks.queue import CONFINED_QUEUES, Claimed, LedgerJobManager, make_app, register
from tasks.reception import Reception
from tasks.sandbox import Sandbox
from tasks.settings import Settings
from tasks.storage import open_storage
from tasks.tracing import TraceNote, open_tracing

if TYPE_CHECKING:
    from tasks.spans import Tracing

log = logging.getLogger(__name__)

_POLL_S = 1.0
_REBUILD_S = 1.0


def run(settings: Settings) -> int:
    """Serve the configured queues until SIGTERM or SIGINT, then drain. Returns the exit code."""
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s%(trace)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(TraceNote())
    logging.getLogger("procrastinate").setLevel(logging.WARNING)
    asyncio.run(_serve(settings))
    return 0


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, stop.set)
    preload = ["tasks.engine.call", *modules(settings.pipeline_packages)]
    async with Sandbox(settings.worker_children, max_tasks=settings.child_max_tasks, preload=preload) as sandbox:
        tracing = open_tracing(settings, "ledgerline-worker")
        while not stop.is_set():
            try:
                await _run_lanes(settings, sandbox, tracing, stop)
            except (*AWAY, OSError) as error:
                log.warning("the database is away (%s); trying again", type(error).__name__)
            if not stop.is_set():
                await _either(stop.wait(), asyncio.sleep(_REBUILD_S))
        if tracing is not None:
            await asyncio.to_thread(tracing.close)


@dataclass
class Lane:
    """One Procrastinate worker and the job manager that feeds it."""

    worker: Worker
    jobs: LedgerJobManager

    def stop(self) -> None:
        """Claim nothing more, and end when what is in hand has ended."""
        self.worker.stop()
        self.jobs.stop()


async def _run_lanes(settings: Settings, sandbox: Sandbox, tracing: Tracing | None, stop: asyncio.Event) -> None:
    """Serve until `stop`, or until a lane ends by itself."""
    worker_id = new_id()
    async with _pool(settings) as pool:
        desk = Desk(pool, worker_id)
        storage = open_storage(settings)
        runner = Runner(settings, desk, storage, sandbox, tracing)
        upkeep = Maintenance(settings, pool, worker_id, runner)
        loops_of_all = upkeep.loops() | Reception(settings, pool, worker_id, storage).loops()
        loops_of_all |= Collector(settings, pool, worker_id, storage).loops()
        line = Line(settings.direct_url, worker_id)
        loops_of_all["line"] = line.attend
        async with _lanes(settings, line, runner, upkeep) as lanes:
            await upkeep.beat()
            loops = [asyncio.create_task(keep_running(name, once)) for name, once in loops_of_all.items()]
            log.info("worker %s serves %s", worker_id, ", ".join(settings.queues))
            try:
                await _drive(lanes, stop, upkeep, settings.drain_timeout_s)
                if stop.is_set():
                    await upkeep.courier.drain()
                await upkeep.sign_off()
            finally:
                await _cancel(loops)
                await upkeep.courier.close()
            log.info("worker %s has stopped", worker_id)


async def _drive(lanes: list[Lane], stop: asyncio.Event, upkeep: Maintenance, drain_timeout_s: float) -> None:
    """Run the lanes; when one ends or `stop` is set, drain all of them."""
    tasks = [asyncio.create_task(lane.worker.run()) for lane in lanes]
    await _either(stop.wait(), *(asyncio.shield(task) for task in tasks))
    upkeep.stopping = True
    for lane in lanes:
        lane.stop()
    drains = [lane.jobs.drain(drain_timeout_s) for lane in lanes]
    await asyncio.gather(*tasks, *drains, return_exceptions=True)


@asynccontextmanager
async def _pool(settings: Settings) -> AsyncIterator[AsyncPool]:
    pool: AsyncPool = AsyncConnectionPool(
        settings.direct_url,
        kwargs=statement_connection(),
        connection_class=psycopg.AsyncConnection[dict[str, Any]],
        min_size=2,
        max_size=settings.database_pool_size,
        open=False,
        timeout=10,
        check=notice_end_async,
        name="worker",
    )
    await pool.open(wait=True)
    try:
        yield pool
    finally:
        await pool.close(timeout=2)


@asynccontextmanager
async def _lanes(settings: Settings, line: Line, runner: Runner, upkeep: Maintenance) -> AsyncIterator[list[Lane]]:
    async def run_step(work: Claimed, kept: Awaitable[None], room: Room) -> None:
        attempt = Attempt.from_work(work)
        await kept
        await runner.run(attempt, room)

    lanes, apps = [], []
    for queues, slots in _widths(settings):
        app, jobs = make_app(settings.direct_url, line, queues, slots)
        register(app, jobs, run_step, upkeep.prune)
        upkeep.lanes.append(jobs)
        await app.open_async()
        apps.append(app)
        lanes.append(
            Lane(
                Worker(
                    app,
                    queues=queues,
                    concurrency=slots,
                    fetch_job_polling_interval=_POLL_S,
                    install_signal_handlers=False,
                    shutdown_graceful_timeout=settings.drain_timeout_s,
                ),
                jobs,
            )
        )
    try:
        yield lanes
    finally:
        for app in apps:
            await app.close_async()


def _widths(settings: Settings) -> list[tuple[list[str], int]]:
    confined = [queue for queue in settings.queues if queue in CONFINED_QUEUES]
    others = [queue for queue in settings.queues if queue not in CONFINED_QUEUES]
    lanes = [(confined, settings.worker_children), (others, settings.worker_concurrency)]
    return [(queues, slots) for queues, slots in lanes if queues]


async def _either(*waits: Any) -> None:
    """Wait until the first of several ends; the others are dropped."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    await _cancel(tasks)


async def _cancel(tasks: list[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
