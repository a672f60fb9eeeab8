"""What workers do about bytes that no row names: they delete them.

    collect    every SWEEP_INTERVAL_S    clears staging on this machine; in turn with others, deletes what is due

Bytes come onto the list before they are stored, by whoever is about to store them, and when a row that named them goes.
What is due is looked at again under a lock that keeps everybody from storing the same bytes meanwhile: what some row
names by then is taken off the list, and everything else is deleted. Killed anywhere, it goes on where it was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from tasks.db import AsyncPool, Row, statement
from tasks.engine.attempt import Stored
from tasks.engine.call import blobs_in, describe_items
from tasks.engine.inputs import load
from tasks.errors import Refused
from tasks.settings import Settings
from tasks.storage import Storage

log = logging.getLogger(__name__)

_AT_MOST = 200


class Collector:
    """The loop of one worker that deletes bytes."""

    def __init__(self, settings: Settings, pool: AsyncPool, worker: UUID, storage: Storage) -> None:
        self._settings = settings
        self._pool = pool
        self._worker = worker
        self._storage = storage

    def loops(self) -> dict[str, Callable[[], Awaitable[float]]]:
        """Every loop by name; each call does one round and returns the seconds until the next."""
        return {"collect": self.collect}

    async def collect(self) -> float:
        """Clear staging; when it is our turn, delete what nothing names."""
        interval = self._settings.sweep_interval_s
        await asyncio.to_thread(self._storage.tidy)
        turn = {"chore": "collect", "worker": self._worker, "interval_s": interval * 0.9}
        if not (await self._ask("engine_take_turn", turn))[0]["mine"]:
            return interval
        await self._read_old_results()
        deleted = 0
        while True:
            looked_at, gone = await self._delete_some()
            deleted += gone
            if looked_at < _AT_MOST:
                break
        if deleted:
            log.info("%s files that nothing named were deleted", deleted)
        await self._ask("engine_sign_chore", {"chore": "collect", "worker": self._worker, "repairs": 0})
        return interval

    async def _delete_some(self) -> tuple[int, int]:
        """How many were looked at, and how many deleted. What could not be deleted stays on the list."""
        async with self._pool.connection() as connection, connection.transaction():
            row = await (await connection.execute(statement("bytes_take_loose"), {"most": _AT_MOST})).fetchone()
            assert row is not None
            for blob in row["nameless"]:
                await asyncio.to_thread(self._storage.delete, UUID(blob["tenant"]), blob["sha256"])
        return row["looked_at"], len(row["nameless"])

    async def _read_old_results(self) -> None:
        """Find out what results point to that were made before that was written down."""
        for row in await self._ask("bytes_unread_results", {"most": _AT_MOST}):
            digests = await self._pointers_of(row)
            await self._ask("bytes_note_blobs", {"result": row["id"], "digests": sorted(digests)})

    async def _pointers_of(self, row: Row) -> set[str]:
        known = {row["blob"]["sha256"], *(artifact["sha256"] for artifact in row["artifacts"])}
        try:
            value: Any = await load(Stored(blob=row["blob"]), row["tenant_id"], self._storage)
        except Refused:
            return known
        return known | blobs_in(value) | blobs_in(describe_items(value) if isinstance(value, list) else None)

    async def _ask(self, name: str, arguments: dict[str, object]) -> list[Row]:
        async with self._pool.connection() as connection:
            return await (await connection.execute(statement(name), arguments)).fetchall()
