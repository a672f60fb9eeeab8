"""The ledger's calls for workers. Every write carries the attempt's number and is refused when that is stale.

A write whose answer was lost is sent again: it was either not done, or its attempt is no longer running.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb
from psycopg_pool import PoolTimeout

from tasks.db import AsyncPool, Row, statement
from tasks.engine.attempt import Attempt, Stored

log = logging.getLogger(__name__)

AWAY = (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout)
_PATIENCE_S = 60.0


class Desk:
    """Where a worker reports. `pool`: autocommit connections; every call is one statement, so one transaction."""

    def __init__(self, pool: AsyncPool) -> None:
        self.pool = pool

    async def complete(self, attempt: Attempt, result: dict[str, Any], items: list[Any] | None) -> bool:
        """Hand in a result; False when the attempt is stale."""
        arguments = {"result": Jsonb(result), "items": None if items is None else Jsonb(items)}
        return await self._settle("engine_complete", attempt, arguments)

    async def fail(self, attempt: Attempt, code: str, message: str, detail: str, retry_in: float | None) -> bool:
        """Report a failure; `retry_in` seconds until another attempt, None for never. False when stale."""
        arguments = {"code": code, "message": message, "detail": detail.replace("\0", ""), "retry_in": retry_in}
        return await self._settle("engine_fail", attempt, arguments)

    async def release(self, attempt: Attempt) -> bool:
        """Give an attempt back unused; False when stale."""
        return await self._settle("engine_release", attempt, {})

    async def report_progress(self, attempt: Attempt, current: int, total: int, message: str) -> bool:
        """Write a progress report; False when stale."""
        arguments = {"current": max(0, current), "total": max(0, total), "message": message.replace("\0", "")}
        return bool((await self.ask("engine_progress", attempt.token | arguments))["accepted"])

    async def gather(self, job: UUID, step: str) -> list[Stored]:
        """All results of a mapped step, in item order."""
        async with self.pool.connection() as connection:
            rows = await (await connection.execute(statement("engine_gather"), {"job": job, "step": step})).fetchall()
        return [Stored(row["value"], row["blob"]) for row in rows]

    async def ask(self, name: str, arguments: dict[str, Any]) -> Row:
        """One statement, one row."""
        async with self.pool.connection() as connection:
            row = await (await connection.execute(statement(name), arguments)).fetchone()
        assert row is not None, name
        return row

    async def _settle(self, name: str, attempt: Attempt, arguments: dict[str, Any]) -> bool:
        deadline = asyncio.get_running_loop().time() + _PATIENCE_S
        delay = 0.05
        while True:
            try:
                return bool((await self.ask(name, attempt.token | arguments))["accepted"])
            except AWAY as error:
                if asyncio.get_running_loop().time() + delay > deadline:
                    raise
                log.warning("the database is away (%s); %s is sent again", type(error).__name__, name)
            await asyncio.sleep(delay)
            delay = min(delay * 2, 2.0)
