"""An attempt's arguments: JSON from the ledger, larger JSON and blobs from Storage."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from uuid import UUID

from tasks.engine.attempt import Attempt, Stored
from tasks.engine.call import POINTER, Call, blobs_in
from tasks.engine.desk import Desk
from tasks.pipeline import Step
from tasks.storage import Storage

MOST_SEARCHED = 1_000_000


class Workspace:
    """A private folder for one call, made when it is first needed and gone afterwards."""

    def __init__(self) -> None:
        self._made: tempfile.TemporaryDirectory[str] | None = None

    @property
    def folder(self) -> Path:
        """The folder. Many steps need none, and making one costs more than running a small step."""
        if self._made is None:
            self._made = tempfile.TemporaryDirectory(prefix="ledgerline-", ignore_cleanup_errors=True)
        return Path(self._made.name)

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        if self._made is not None:
            self._made.cleanup()


async def assemble(attempt: Attempt, step: Step, space: Workspace, desk: Desk, storage: Storage) -> Call:
    """Everything the call needs. Blobs are fetched only for steps that can read them: those that take a context."""
    arguments = {name: await _argument(name, attempt, desk, storage) for name in step.parameters if name != "context"}
    folder = space.folder if "context" in step.parameters or attempt.mapped else None
    if folder is not None:
        wanted = set().union(*(blobs_in(value) for value in arguments.values()))
        if wanted:
            await asyncio.to_thread(_fetch_all, storage, attempt.tenant, wanted, folder)
    return Call(
        module=step.module,
        pipeline=attempt.pipeline,
        step=step.name,
        arguments=arguments,
        folder=folder,
        attempt=attempt.number,
        previous_error=attempt.previous_error,
        mapped=attempt.mapped,
    )


async def load(stored: Stored, tenant: UUID, storage: Storage) -> Any:
    """The JSON value behind a row or a pointer."""
    if stored.blob is None:
        return stored.value
    return await asyncio.to_thread(_read_json, storage, tenant, stored.blob["sha256"])


async def load_text(blob: dict[str, Any], tenant: UUID, storage: Storage) -> str:
    """The text behind a pointer: see read_text."""
    return await asyncio.to_thread(_fetch_text, storage, tenant, blob["sha256"])


def read_text(path: Path) -> str:
    """The first million characters of a file in UTF-8; what is none is replaced, and there are no NULs."""
    with path.open("rb") as file:
        data = file.read(4 * MOST_SEARCHED)  # a character takes four bytes at most
    return data.decode("utf-8", "replace")[:MOST_SEARCHED].replace("\0", " ")


async def _argument(name: str, attempt: Attempt, desk: Desk, storage: Storage) -> Any:
    match name:
        case "params":
            return attempt.params
        case "document" | "source":
            return attempt.document
        case "item":
            return await load(_stored_item(attempt.item_value), attempt.tenant, storage)
        case _:
            return await _input(name, attempt, desk, storage)


async def _input(name: str, attempt: Attempt, desk: Desk, storage: Storage) -> Any:
    described = attempt.inputs[name]
    if "gather" not in described:
        return await load(Stored(described["value"], described["blob"]), attempt.tenant, storage)
    results = await desk.gather(attempt.job, name)
    return [await load(result, attempt.tenant, storage) for result in results]


def _stored_item(value: Any) -> Stored:
    if isinstance(value, dict) and value.keys() == {POINTER}:
        return Stored(blob=value[POINTER])
    return Stored(value)


def _fetch_all(storage: Storage, tenant: UUID, digests: Iterable[str], folder: Path) -> None:
    for sha256 in digests:
        storage.fetch(tenant, sha256, folder / sha256)


def _fetch_text(storage: Storage, tenant: UUID, sha256: str) -> str:
    with Workspace() as space:
        storage.fetch(tenant, sha256, space.folder / sha256)
        return read_text(space.folder / sha256)


def _read_json(storage: Storage, tenant: UUID, sha256: str) -> Any:
    with Workspace() as space:
        storage.fetch(tenant, sha256, space.folder / sha256)
        return json.loads((space.folder / sha256).read_bytes())
