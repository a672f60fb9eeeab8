"""How a pipeline is declared: plain typed functions, one decorator each.

A parameter's name says what it is given:

    document   the uploaded file with its names (Document)
    source     the uploaded file's content only (Source): two uploads of the same bytes share the result
    params     the job's parameters (the pipeline's own model)
    item       one item of the step named by `map`
    context    what a step may do besides returning (Context)
    any other  the output of the step of that name; of a map step, the list of its outputs in item order

The graph that comes out is plain JSON. It is published into the database, and everybody else reads it there.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, TypeAdapter

QUEUES = ("cpu", "llm", "media", "maintenance")
STAGES = ("initializing", "parsing", "chunking", "analyzing", "exporting")
SPECIAL = ("document", "source", "params", "item", "context")

MIB = 1024 * 1024


class PipelineInvalid(Exception):
    """A declaration that cannot work; raised while declaring, so no worker starts with it."""


class Blob(BaseModel):
    """A pointer to bytes in Storage, addressed by their sha256 (hex)."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    bytes: int


class Source(BaseModel):
    """The content of an uploaded file."""

    kind: str
    blob: Blob


class Document(Source):
    """An uploaded file, with the names it came with."""

    title: str
    filename: str


class NoParams(BaseModel):
    """For pipelines that take no parameters."""

    model_config = ConfigDict(extra="forbid")


class Context(Protocol):
    """What a step may do besides returning a value."""

    attempt: int
    previous_error: str | None

    def progress(self, current: int, total: int, message: str = "") -> None:
        """Say how far the step is; as often as wanted."""

    def read(self, blob: Blob) -> bytes:
        """The bytes of a blob that came in with the inputs."""

    def path(self, blob: Blob) -> Path:
        """A readable file holding a blob that came in with the inputs."""

    def write(self, data: bytes) -> Blob:
        """Keep bytes in Storage; the pointer goes into the step's output."""

    def artifact(self, name: str, media_type: str, data: bytes) -> None:
        """Name bytes as a file of the job, for people to download."""


@dataclass(frozen=True)
class Step:
    """One declared step. Times in seconds, memory in bytes."""

    name: str
    module: str
    function: Callable[..., Any]
    stage: str
    queue: str
    version: int
    after: tuple[str, ...]
    map: str | None
    attempts: int
    timeout_s: float
    memory_bytes: int
    failure: str
    weight: float
    parameters: tuple[str, ...]
    hints: dict[str, Any] = field(repr=False)

    @property
    def confined(self) -> bool:
        """Whether the step runs in a child process rather than in the worker's loop."""
        return not inspect.iscoroutinefunction(self.function)

    @cached_property
    def adapters(self) -> dict[str, TypeAdapter[Any]]:
        """What reads and writes the JSON of each parameter, and of the output under the name `return`."""
        return {name: TypeAdapter(hint) for name, hint in self.hints.items() if name != "context"}

    def describe(self) -> dict[str, Any]:
        """The step as JSON, for the published graph."""
        return {
            "name": self.name,
            "stage": self.stage,
            "queue": self.queue,
            "version": self.version,
            "after": list(self.after),
            "map": self.map,
            "inputs": [name for name in self.parameters if name not in SPECIAL],
            "takes": [name for name in self.parameters if name in SPECIAL],
            "attempts": self.attempts,
            "timeout_s": self.timeout_s,
            "weight": self.weight,
        }


class Pipeline:
    """A named, versioned graph of steps. `module` is where it is declared: children find it there by name."""

    def __init__(
        self,
        name: str,
        *,
        title: str,
        version: int = 1,
        accepts: tuple[str, ...] = (),
        params: type[BaseModel] = NoParams,
    ) -> None:
        self.name = name
        self.module = sys._getframe(1).f_globals["__name__"]
        self.title = title
        self.version = version
        self.accepts = accepts
        self.params = params
        self.steps: dict[str, Step] = {}

    def step(
        self,
        *,
        stage: str,
        queue: str = "cpu",
        version: int = 1,
        after: tuple[str, ...] = (),
        map: str | None = None,
        attempts: int = 3,
        timeout_s: float = 60,
        memory_mb: int = 1024,
        failure: str = "step",
        weight: float = 1,
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Declare the decorated function as a step. Raises PipelineInvalid when it cannot work."""

        def declare(function: Callable[..., Any]) -> Callable[..., Any]:
            name = function.__name__
            parameters = tuple(inspect.signature(function).parameters)
            inputs = [p for p in parameters if p not in SPECIAL]
            upstream = tuple(dict.fromkeys([*after, *inputs, *([map] if map else [])]))
            step = Step(
                name=name,
                module=self.module,
                function=function,
                stage=stage,
                queue=queue,
                version=version,
                after=upstream,
                map=map,
                attempts=attempts,
                timeout_s=timeout_s,
                memory_bytes=memory_mb * MIB,
                failure=failure,
                weight=weight,
                parameters=parameters,
                hints=typing.get_type_hints(function),
            )
            self._check(step)
            self.steps[name] = step
            return function

        return declare

    def graph(self) -> dict[str, Any]:
        """The graph as JSON: what is published, and what a job runs from its submission on."""
        return {
            "name": self.name,
            "title": self.title,
            "version": self.version,
            "accepts": list(self.accepts),
            "params_schema": self.params.model_json_schema(),
            "steps": [step.describe() for step in self.steps.values()],
        }

    def digest(self) -> str:
        """sha256 of the graph (hex): names what a job runs."""
        text = json.dumps(self.graph(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def _check(self, step: Step) -> None:
        problems = [problem for problem, wrong in self._rules(step) if wrong]
        if problems:
            raise PipelineInvalid(f"{self.name}.{step.name}: " + "; ".join(problems))

    def _rules(self, step: Step) -> list[tuple[str, bool]]:
        unknown = [name for name in step.after if name not in self.steps]
        untyped = [name for name in (*step.parameters, "return") if name not in step.hints]
        return [
            ("declared twice", step.name in self.steps),
            (f"unknown queue {step.queue!r}", step.queue not in QUEUES),
            (f"unknown stage {step.stage!r}", step.stage not in STAGES),
            (f"names steps that are not declared above it: {', '.join(unknown)}", bool(unknown)),
            (f"no type given for {', '.join(untyped)}", bool(untyped)),
            ("takes `item` but maps over nothing", "item" in step.parameters and not step.map),
            ("maps over a step but does not take `item`", bool(step.map) and "item" not in step.parameters),
            ("maps over a step that does not return a list", bool(step.map) and not self._returns_list(step.map)),
            (
                "attempts, timeout, memory and weight must be positive",
                min(step.attempts, step.timeout_s, step.memory_bytes, step.weight) <= 0,
            ),
        ]

    def _returns_list(self, name: str | None) -> bool:
        upstream = self.steps.get(name or "")
        return upstream is not None and typing.get_origin(upstream.hints.get("return")) is list
