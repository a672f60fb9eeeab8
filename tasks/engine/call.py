"""Calling a step's function: arguments in, JSON out. Runs in a confined child, or in the worker's loop if async.

Imports neither the database nor the ledger: a step cannot reach them.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tasks.pipeline import Blob, Description, Pipeline, Skip, Step
from tasks.pipelines import pipelines_of

INLINE_BYTES = 8 * 1024
POINTER = "$blob"
LARGEST_COUNT = 2**31 - 1


@dataclass(frozen=True)
class Call:
    """One call of a step: JSON arguments by parameter name; for steps with a context, a folder with the blobs."""

    module: str
    pipeline: str
    step: str
    arguments: dict[str, Any]
    folder: Path | None
    attempt: int
    previous_error: str | None
    mapped: bool


@dataclass
class Returned:
    """What a call gave: canonical JSON, its items if steps map over it, named artifacts, and a description.

    blobs: what it wrote, in the folder. pointers: what the rest of it points to, wherever that came from.
    """

    text: str
    items: list[dict[str, Any]] | None = None
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    description: dict[str, Any] | None = None
    blobs: set[str] = field(default_factory=set)
    pointers: set[str] = field(default_factory=set)
    skipped: str | None = None


class StepContext:
    """The Context a step is given: bytes are files of the call's folder, which the worker carries to Storage."""

    def __init__(self, call: Call) -> None:
        self.attempt = call.attempt
        self.previous_error = call.previous_error
        self.artifacts: list[dict[str, Any]] = []
        self.description: dict[str, Any] | None = None
        self.written: set[str] = set()
        self._folder = call.folder or Path()

    def progress(self, current: int, total: int, message: str = "") -> None:
        """Leave the newest report where the worker looks for it."""
        scale = 1 + max(current, total, 0) // LARGEST_COUNT  # bytes of a film do not fit; their share does
        text = message[:500].replace("\0", "").encode("utf-8", "replace").decode()
        report = self._folder / "progress.new"
        report.write_text(json.dumps([max(current, 0) // scale, max(total, 0) // scale, text]), encoding="utf-8")
        os.replace(report, self._folder / "progress")

    def read(self, blob: Blob) -> bytes:
        """The bytes of an input's blob."""
        return self.path(blob).read_bytes()

    def path(self, blob: Blob) -> Path:
        """The file of an input's blob."""
        return self._folder / blob.sha256

    def write(self, data: bytes) -> Blob:
        """Keep bytes; the worker stores them when the step has returned."""
        blob = Blob(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
        self.path(blob).write_bytes(data)
        self.written.add(blob.sha256)
        return blob

    def artifact(self, name: str, media_type: str, data: bytes) -> None:
        """Name bytes as a file of the job; the same name again replaces them."""
        blob = self.write(data)
        self.artifacts = [artifact for artifact in self.artifacts if artifact["name"] != name]
        self.artifacts.append({"name": name, "media_type": media_type, **blob.model_dump()})

    def describe(self, description: Description) -> None:
        """See Context."""
        given = description.model_dump(mode="json")
        self.description = {name: value for name, value in given.items() if value is not None}


def find_step(call: Call) -> Step:
    """The step to call, from the module that declares its pipeline."""
    return _declared_in(call.module)[call.pipeline].steps[call.step]


@cache
def _declared_in(module: str) -> dict[str, Pipeline]:
    return {pipeline.name: pipeline for pipeline in pipelines_of(importlib.import_module(module))}


def perform(call: Call) -> Returned:
    """Call a plain step. The target of the sandbox."""
    step = find_step(call)
    context = StepContext(call)
    try:
        return _wrap(step, call, context, step.function(**_bind(step, call, context)))
    except Skip as skip:
        return _skipped(call, skip)


async def perform_async(call: Call) -> Returned:
    """Call an async step in the running loop."""
    step = find_step(call)
    context = StepContext(call)
    try:
        return _wrap(step, call, context, await step.function(**_bind(step, call, context)))
    except Skip as skip:
        return _skipped(call, skip)


def encode(value: Any) -> str:
    """Canonical JSON: equal values give equal text, and so equal digests."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(text: str) -> str:
    """sha256 (hex) of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def fits_in_row(text: str) -> bool:
    """Whether JSON text may live in the ledger: small, and free of what jsonb refuses."""
    return len(text.encode()) <= INLINE_BYTES and "\\u0000" not in text


def _bind(step: Step, call: Call, context: StepContext) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for name in step.parameters:
        arguments[name] = context if name == "context" else _read(step, name, call.arguments[name])
    return arguments


def _read(step: Step, name: str, value: Any) -> Any:
    try:
        return step.adapters[name].validate_python(value)
    except ValidationError:
        if value is None:
            raise Skip(f"the step {name} was skipped") from None
        raise


def _wrap(step: Step, call: Call, context: StepContext, value: Any) -> Returned:
    adapter = step.adapters["return"]
    plain = adapter.dump_python(adapter.validate_python(value), mode="json")
    if call.mapped:
        for text in filter(lambda text: not fits_in_row(text), map(encode, plain)):
            context.write(text.encode())
    return Returned(
        text=encode(plain),
        items=describe_items(plain) if call.mapped else None,
        artifacts=context.artifacts,
        description=context.description,
        blobs=context.written,
        pointers=blobs_in(plain) | blobs_in(context.description),
    )


def _skipped(call: Call, skip: Skip) -> Returned:
    return Returned("null", items=[] if call.mapped else None, skipped=str(skip) or "It had nothing to do.")


def describe_items(values: list[Any]) -> list[dict[str, Any]]:
    """What the ledger keeps of each item: its digest, and its value or a pointer to it."""
    return [_describe_item(value, encode(value)) for value in values]


def _describe_item(value: Any, text: str) -> dict[str, Any]:
    if not fits_in_row(text):
        value = {POINTER: {"sha256": digest(text), "bytes": len(text.encode())}}
    return {"digest": digest(text), "value": value}


def blobs_in(value: Any) -> set[str]:
    """The digests of all blobs that a JSON value points to."""
    if isinstance(value, Mapping):
        if value.keys() == {"sha256", "bytes"}:
            return {value["sha256"]}
        return set().union(*(blobs_in(part) for part in value.values()))
    if isinstance(value, list):
        return set().union(*(blobs_in(part) for part in value))
    return set()
