"""What workers do with what comes in beside the API: they clear away uploads that nobody confirmed.

    uploads    every SWEEP_INTERVAL_S    removes what is left in the store of uploads that are over

They take turns over all workers. Killed anywhere, it goes on where it was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from uuid import UUID

from tasks.db import AsyncPool, Row, statement
from tasks.settings import Settings
from tasks.storage import Storage, upload_key

log = logging.getLogger(__name__)

_CLEAR_AT_MOST = 200


class Reception:
    """The loops of one worker that take in."""

    def __init__(self, settings: Settings, pool: AsyncPool, worker: UUID, storage: Storage) -> None:
        self._settings = settings
        self._pool = pool
        self._worker = worker
        self._storage = storage

    def loops(self) -> dict[str, Callable[[], Awaitable[float]]]:
        """Every loop by name; each call does one round and returns the seconds until the next."""
        return {"uploads": self.clear_uploads}

    async def clear_uploads(self) -> float:
        """Remove what uploads that are over have left in the store: bytes first, so that none is forgotten."""
        interval = self._settings.sweep_interval_s
        turn = {"chore": "uploads", "worker": self._worker, "interval_s": interval * 0.9}
        if not (await self._ask("engine_take_turn", turn))[0]["mine"]:
            return interval
        over = await self._ask("uploads_to_clear", {"most": _CLEAR_AT_MOST})
        for upload in over:
            await asyncio.to_thread(self._storage.discard, upload["tenant_id"], upload_key(upload["id"]))
        await self._ask("uploads_clear", {"uploads": [upload["id"] for upload in over]})
        await self._ask("engine_sign_chore", {"chore": "uploads", "worker": self._worker, "repairs": 0})
        return interval

    async def _ask(self, name: str, arguments: dict[str, object]) -> list[Row]:
        async with self._pool.connection() as connection:
            return await (await connection.execute(statement(name), arguments)).fetchall()
