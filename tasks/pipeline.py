"""How a pipeline is declared: plain typed functions, one decorator each.

A parameter's name says what it is given:

    document   the uploaded file with its names (Document)
    source     the uploaded file's content only (Source): two uploads of the same bytes share the result
    params     the job's parameters (the pipeline's own model)
    item       one item of the step named by `map`
    context    what a step may do besides returning (Context)
    any other  the output of the step of that name; of a map step, the list of its outputs in item order

Two steps that map over the same list may go along, item by item: take the other's output, not a list of it, and item 7
runs as soon as item 7 of the other is done. A step with nothing to do raises Skip: those who take its output get None
if their type allows it, and are skipped too if not.

The graph that comes out is plain JSON. It is published into the database, and everybody else reads it there.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

QUEUES = ("cpu", "llm", "media", "maintenance")
STAGES = ("initializing", "parsing", "chunking", "analyzing", "exporting")
SPECIAL = ("document", "source", "params", "item", "context")

NAME = re.compile("[a-z][a-z0-9_]{0,62}")

MIB = 1024 * 1024
MOST_METADATA = 8 * 1024


class Skip(Exception):
    """Raised by a step that has nothing to do; the message says why."""


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


# A field of the document that a reviewer corrected: what stood there, and what is to.
Edit = dict[Literal["from", "to"], JsonValue]


class Decision(BaseModel):
    """What a gate gives to the steps after it. `by`: the user who decided; `edits`: by field of the document."""

    decision: str
    comment: str
    by: UUID | None
    edits: dict[str, Edit] = Field(default_factory=dict)

    @property
    def corrected(self) -> dict[str, Any]:
        """The corrected fields as they are to be."""
        return {name: edit["to"] for name, edit in self.edits.items()}


def _storable(text: str) -> str:
    """Text that Postgres takes: no NUL, no lone surrogates."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _check_metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(metadata, allow_nan=False)
    if len(text) > MOST_METADATA or "\\u0000" in text:
        raise ValueError(f"as JSON, metadata has at most {MOST_METADATA} characters, and no NUL")
    return metadata


Storable = AfterValidator(_storable)
Title = Annotated[str, Storable, Field(min_length=1, max_length=500)]
Paragraph = Annotated[str, Storable, Field(max_length=2_000)]
Label = Annotated[str, Storable, Field(min_length=1, max_length=100)]
Keywords = Annotated[tuple[Label, ...], Field(max_length=100)]
Categories = Annotated[dict[Label, Label], Field(max_length=50)]
Language = Annotated[str, Field(pattern="^[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8}){0,3}$")]


class Description(BaseModel):
    """What a step found out about its job's document. What is None stays as it was.

    title: in place of the one it was uploaded with. text: UTF-8, for finding the document by its words; its first
    million characters count. final: what was found is approved, and the document `finalised`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: Title | None = None
    summary: Paragraph | None = None
    keywords: Keywords | None = None
    categories: Categories | None = None
    language: Language | None = None
    metadata: Annotated[dict[str, JsonValue], AfterValidator(_check_metadata)] | None = None
    text: Blob | None = None
    final: bool = False


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

    def describe(self, description: Description) -> None:
        """Say what is known about the job's document from now on; the last call of a step counts."""


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
    along: tuple[str, ...]
    map: str | None
    allow_failures: int
    attempts: int
    retry_for_s: float
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
            "along": list(self.along),
            "map": self.map,
            "allow_failures": self.allow_failures,
            "gate": False,
            "inputs": [name for name in self.parameters if name not in SPECIAL],
            "takes": [name for name in self.parameters if name in SPECIAL],
            "attempts": self.attempts,
            "timeout_s": self.timeout_s,
            "weight": self.weight,
        }


@dataclass(frozen=True)
class Gate:
    """A step that waits for a person. `expires_s`: seconds until nobody needs to decide any more; None: for ever."""

    name: str
    stage: str
    after: tuple[str, ...]
    expires_s: float | None

    def describe(self) -> dict[str, Any]:
        """The gate as JSON, for the published graph."""
        return {
            "name": self.name,
            "stage": self.stage,
            "queue": "maintenance",
            "version": 1,
            "after": list(self.after),
            "along": [],
            "map": None,
            "allow_failures": 0,
            "gate": True,
            "expires_s": self.expires_s,
            "inputs": [],
            "takes": [],
            "attempts": 1,
            "timeout_s": 1,
            "weight": 0.001,
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
        if not NAME.fullmatch(name) or version < 1 or not title:
            raise PipelineInvalid(f"{name!r}: a pipeline needs a title, a version from 1 on, and a name like a_name")
        self.name = name
        self.module = sys._getframe(1).f_globals["__name__"]
        self.title = title
        self.version = version
        self.accepts = accepts
        self.params = params
        self.nodes: dict[str, Step | Gate] = {}

    @property
    def steps(self) -> dict[str, Step]:
        """The steps that have a function, by name."""
        return {name: node for name, node in self.nodes.items() if isinstance(node, Step)}

    def gate(
        self, name: str, *, after: tuple[str, ...], stage: str = "exporting", expires_s: float | None = None
    ) -> None:
        """Declare a gate: the job waits here until a person decides. Raises PipelineInvalid when it cannot work."""
        free = _is_free(name) and name not in self.nodes
        placed = bool(after) and all(step in self.nodes for step in after) and stage in STAGES
        if not (free and placed and (expires_s is None or expires_s > 0)):
            raise PipelineInvalid(f"{self.name}.{name}: a gate needs a new name, a stage, and steps declared above it")
        self.nodes[name] = Gate(name, stage, after, expires_s)

    def step(
        self,
        *,
        stage: str,
        queue: str = "cpu",
        version: int = 1,
        after: tuple[str, ...] = (),
        map: str | None = None,
        allow_failures: int = 0,
        attempts: int = 3,
        retry_for_s: float = 86_400,
        timeout_s: float = 60,
        memory_mb: int = 1024,
        failure: str = "step",
        weight: float = 1,
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Declare the decorated function as a step. Raises PipelineInvalid when it cannot work."""

        def declare(function: Callable[..., Any]) -> Callable[..., Any]:
            name = function.__name__
            parameters = tuple(inspect.signature(function).parameters)
            hints = typing.get_type_hints(function)
            along = tuple(p for p in parameters if self._goes_along(p, map, hints))
            inputs = [p for p in parameters if p not in SPECIAL and p not in along]
            upstream = tuple(dict.fromkeys([*after, *inputs, *([map] if map else [])]))
            step = Step(
                name=name,
                module=self.module,
                function=function,
                stage=stage,
                queue=queue,
                version=version,
                after=upstream,
                along=along,
                map=map,
                allow_failures=allow_failures,
                attempts=attempts,
                retry_for_s=retry_for_s,
                timeout_s=timeout_s,
                memory_bytes=memory_mb * MIB,
                failure=failure,
                weight=weight,
                parameters=parameters,
                hints=hints,
            )
            self._check(step)
            self.nodes[name] = step
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
            "steps": [step.describe() for step in self.nodes.values()],
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
        unknown = [name for name in step.after if name not in self.nodes]
        untyped = [name for name in (*step.parameters, "return") if name not in step.hints]
        return [
            ("declared twice", step.name in self.nodes),
            ("needs another name: like a_name, and not that of a special parameter", not _is_free(step.name)),
            ("allows items to fail but maps over nothing", step.allow_failures > 0 and not step.map),
            (f"unknown queue {step.queue!r}", step.queue not in QUEUES),
            (f"unknown stage {step.stage!r}", step.stage not in STAGES),
            (f"names steps that are not declared above it: {', '.join(unknown)}", bool(unknown)),
            (f"no type given for {', '.join(untyped)}", bool(untyped)),
            ("takes `item` but maps over nothing", "item" in step.parameters and not step.map),
            ("maps over a step but does not take `item`", bool(step.map) and "item" not in step.parameters),
            ("maps over a step that does not return a list", bool(step.map) and not self._returns_list(step.map)),
            ("maps over a step that is mapped itself: join it first", self._is_mapped(step.map)),
            (
                "version, attempts, timeout, memory and weight must be positive",
                min(step.version, step.attempts, step.timeout_s, step.memory_bytes, step.weight) <= 0,
            ),
            ("more than 100 attempts", step.attempts > 100),
        ]

    def _goes_along(self, parameter: str, map: str | None, hints: dict[str, Any]) -> bool:
        """Whether a parameter is one item's output of a step that maps over the same list."""
        upstream = self.nodes.get(parameter)
        mapped_alike = map is not None and isinstance(upstream, Step) and upstream.map == map
        return mapped_alike and typing.get_origin(hints.get(parameter)) is not list

    def _is_mapped(self, name: str | None) -> bool:
        upstream = self.steps.get(name or "")
        return upstream is not None and upstream.map is not None

    def _returns_list(self, name: str | None) -> bool:
        upstream = self.steps.get(name or "")
        return upstream is not None and typing.get_origin(upstream.hints.get("return")) is list


def _is_free(name: str) -> bool:
    """Whether a step may have this name."""
    return NAME.fullmatch(name) is not None and name not in SPECIAL
