"""What workers do with what comes in beside the API's calls: they turn batches into jobs, and clear away uploads that
nobody confirmed.

    intake     as long as there is something  one chunk of a batch after the other, see ledger.take_in
    uploads    every SWEEP_INTERVAL_S         removes what is left in the store of uploads that are over

Items with a document become jobs within the statement that takes them. What lies at a path is read here first: drawn,
told what it is, stored as content, and only then written down, in one transaction with its job. When a worker is killed
another goes on: what was not written down is read again, and the same content is the same document.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from tasks.db import AsyncPool, Row, statement
from tasks.errors import Refused, Unavailable
from tasks.intake import Announced, Arrival, clean_name, examine, staged
from tasks.ledger import new_id
from tasks.settings import Settings
from tasks.storage import Storage, incoming_key, upload_key
from tasks.storage.files import clear_staging

log = logging.getLogger(__name__)

# A chunk is one transaction of a fraction of a second, so that nothing waits for it for long.
_CHUNK = 200
_PATHS = 16
_READ_AT_ONCE = 4
_IDLE_S = 1.0
# Seconds until a batch is looked at again that has met a limit, of jobs or of bytes, or whose store is away.
_WAITS_S = {"waiting": 5.0, "full": 60.0}
_STORE_AWAY_S = 5.0
_CLEAR_AT_MOST = 200

Json = dict[str, Any]


class Reception:
    """The loops of one worker that take in."""

    def __init__(self, settings: Settings, pool: AsyncPool, worker: UUID, storage: Storage) -> None:
        self._settings = settings
        self._pool = pool
        self._worker = worker
        self._storage = storage
        self._staging = settings.storage_path.resolve() / "staging"
        self._reading = asyncio.Semaphore(_READ_AT_ONCE)
        self._staging.mkdir(parents=True, exist_ok=True)
        clear_staging(self._staging)

    def loops(self) -> dict[str, Callable[[], Awaitable[float]]]:
        """Every loop by name; each call does one round and returns the seconds until the next."""
        return {"intake": self.take_in, "uploads": self.clear_uploads}

    async def take_in(self) -> float:
        """Turn one chunk of a batch into jobs."""
        lease = {"worker": self._worker, "lease_s": self._settings.lease_s}
        (taken,) = await self._ask("batches_take_in", lease | {"most": _CHUNK, "most_paths": _PATHS})
        if taken["claimed"]:
            await asyncio.gather(*(self._take_path(taken["batch"], item) for item in taken["claimed"]))
            return 0.0
        return min(_IDLE_S, max(0.0, taken["next_in"])) if taken["next_in"] is not None else _IDLE_S

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

    async def _take_path(self, batch: Json, item: Json) -> None:
        """Make what lies at an item's path a document with a job, or refuse the item."""
        tenant_id, key = UUID(batch["tenant_id"]), incoming_key(item["path"])
        announced = Announced(tenant_id, key, clean_name(item["path"]), self._settings.max_direct_upload_bytes)
        try:
            async with self._reading:
                with staged(self._staging) as target:
                    arrival = await asyncio.to_thread(examine, self._storage, announced, target)
                    await self._keep(tenant_id, arrival)
            outcome = await self._admit(batch, item, arrival)
            if outcome in ("created", "duplicate"):
                await asyncio.to_thread(self._storage.discard, tenant_id, key)
            elif outcome in _WAITS_S:
                await self._put_off(batch, _WAITS_S[outcome])
        except Refused as error:
            await self._refuse(batch, item, error.code, error.message)
        except OSError:
            log.exception("item %s of batch %s could not be taken in", item["nr"], batch["id"])
            await self._refuse(batch, item, "internal_error", "Something went wrong with this item.")
        except Unavailable as error:
            log.warning("batch %s waits for the store: %s", batch["id"], error.detail)
            await self._put_off(batch, _STORE_AWAY_S)

    async def _keep(self, tenant_id: UUID, arrival: Arrival) -> None:
        named = {"tenant_id": tenant_id, "digests": [arrival.drawn.sha256], "for_s": self._settings.collect_after_s}
        await self._ask("bytes_announce", named)
        await asyncio.to_thread(self._storage.adopt, tenant_id, arrival.drawn)

    async def _admit(self, batch: Json, item: Json, arrival: Arrival) -> str | None:
        document = arrival.document(new_id(), None, item["title"])
        shown = {name: document[name] for name in ("title", "filename", "kind", "media_type", "bytes", "sha256")}
        asked = {"batch": batch["id"], "nr": item["nr"], "document": Jsonb(shown | {"id": str(document["id"])})}
        (row,) = await self._ask("batches_admit_path", asked)
        outcome: str | None = row["outcome"]
        return outcome

    async def _refuse(self, batch: Json, item: Json, code: str, message: str) -> None:
        refusal = {"batch": batch["id"], "nr": item["nr"], "code": code, "message": message}
        await self._ask("batches_refuse_item", refusal)

    async def _put_off(self, batch: Json, for_s: float) -> None:
        await self._ask("batches_put_off", {"batch": batch["id"], "for_s": for_s})

    async def _ask(self, name: str, arguments: Mapping[str, object]) -> list[Row]:
        async with self._pool.connection() as connection:
            return await (await connection.execute(statement(name), arguments)).fetchall()
