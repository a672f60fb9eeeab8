"""Larger graphs for tests of the engine: maps in a row, joins of joins, a book whose chapters change one by one."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from tasks.errors import Transient
from tasks.pipeline import Context, Decision, Pipeline


class Number(BaseModel):
    value: int


class Numbers(BaseModel):
    """`folder` with `holds`: the item of that number waits in its first map until a file `go` is there."""

    model_config = ConfigDict(extra="forbid")

    width: int = Field(3, ge=0)
    folder: str = ""
    holds: int | None = None
    mark: str = ""


row = Pipeline("row", title="Three maps in a row, item by item", params=Numbers)


@row.step(stage="chunking", queue="llm")
async def numbers(params: Numbers) -> list[Number]:
    return [Number(value=index) for index in range(params.width)]


@row.step(stage="analyzing", queue="llm", map="numbers", attempts=1, allow_failures=1)
async def slow(item: Number, params: Numbers) -> Number:
    while item.value == params.holds and not (Path(params.folder) / "go").exists():
        await asyncio.sleep(0.02)
    return Number(value=item.value + 1)


@row.step(stage="analyzing", queue="llm", map="numbers", attempts=1, allow_failures=1)
async def then(item: Number, slow: Number) -> Number:
    return Number(value=slow.value * 10)


@row.step(stage="analyzing", queue="llm", map="numbers", attempts=1, allow_failures=1)
async def last(item: Number, slow: Number, then: Number) -> Number:
    return Number(value=slow.value + then.value)


@row.step(stage="exporting", queue="llm")
async def whole(last: list[Number]) -> Number:
    return Number(value=sum(number.value for number in last))


nested = Pipeline("nested", title="Two joins meet, and are mapped over again", params=Numbers)


@nested.step(stage="chunking", queue="llm")
async def lefts(params: Numbers) -> list[Number]:
    return [Number(value=index) for index in range(params.width)]


@nested.step(stage="chunking", queue="llm")
async def rights(params: Numbers) -> list[Number]:
    return [Number(value=index) for index in range(params.width + 1)]


@nested.step(stage="analyzing", queue="llm", map="lefts")
async def left(item: Number) -> Number:
    return Number(value=item.value + 1)


@nested.step(stage="analyzing", queue="llm", map="rights")
async def right(item: Number, left: list[Number]) -> Number:
    return Number(value=item.value * len(left))


@nested.step(stage="analyzing", queue="llm")
async def meet(left: list[Number], right: list[Number]) -> list[Number]:
    return [*left, *right]


@nested.step(stage="analyzing", queue="llm", map="meet")
async def again(item: Number) -> Number:
    return Number(value=item.value * 100)


@nested.step(stage="exporting", queue="llm")
async def over(again: list[Number], meet: list[Number]) -> Number:
    return Number(value=sum(number.value for number in again) + len(meet))


class Chapters(BaseModel):
    model_config = ConfigDict(extra="forbid")

    texts: list[str]


book = Pipeline("book", title="Reads chapters, and sums up", params=Chapters)


@book.step(stage="chunking", queue="llm")
async def chapters(params: Chapters) -> list[str]:
    return params.texts


@book.step(stage="analyzing", queue="llm", map="chapters")
async def read(item: str) -> Number:
    return Number(value=len(item))


@book.step(stage="analyzing", queue="llm", map="chapters")
async def judge(item: str, read: Number) -> Number:
    return Number(value=read.value * 2)


@book.step(stage="analyzing", queue="llm")
async def summary(judge: list[Number]) -> Number:
    return Number(value=sum(number.value for number in judge))


@book.step(stage="exporting", queue="llm")
async def report(summary: Number, read: list[Number]) -> Number:
    return Number(value=summary.value + len(read))


branched = Pipeline("branched", title="A gate beside work that goes on", params=Numbers)


@branched.step(stage="parsing", queue="llm")
async def base(params: Numbers) -> list[Number]:
    return [Number(value=index) for index in range(params.width)]


branched.gate("approval", after=("base",))


@branched.step(stage="analyzing", queue="llm", map="base")
async def beside(item: Number) -> Number:
    return Number(value=item.value + 1)


@branched.step(stage="analyzing", queue="llm")
async def gathered(beside: list[Number]) -> Number:
    return Number(value=len(beside))


branched.gate("second_look", after=("gathered",), expires_s=60)


@branched.step(stage="exporting", queue="llm")
async def ending(approval: Decision, second_look: Decision, gathered: Number) -> Number:
    return Number(value=gathered.value)


lenient = Pipeline("lenient", title="Items may fail before a gate", params=Numbers)


@lenient.step(stage="chunking", queue="llm")
async def given(params: Numbers) -> list[Number]:
    return [Number(value=index) for index in range(params.width)]


@lenient.step(stage="analyzing", queue="llm", map="given", allow_failures=1)
async def tried(item: Number) -> Number:
    return Number(value=item.value)


@lenient.step(stage="analyzing", queue="llm", map="given")
async def told(item: Number, tried: Number) -> Number:
    return Number(value=tried.value)


lenient.gate("approval", after=("told",))


limited = Pipeline("limited", title="Asks a provider that is busy at first", params=Numbers)


@limited.step(stage="analyzing", queue="llm")
async def ask(params: Numbers, context: Context) -> Number:
    """The first attempt is told to come back in `width` seconds, and so is everybody else."""
    if params.width and context.attempt == 1:
        raise Transient("provider_busy", "The provider is busy.", retry_after=params.width, everybody=True)
    return Number(value=context.attempt)


forked = Pipeline("forked", title="A gate in one of two branches", params=Numbers)


@forked.step(stage="parsing", queue="llm")
async def trunk(params: Numbers) -> Number:
    return Number(value=params.width)


@forked.step(stage="analyzing", queue="llm")
async def ours(trunk: Number) -> Number:
    return Number(value=trunk.value + 1)


@forked.step(stage="analyzing", queue="llm")
async def theirs(trunk: Number) -> Number:
    return Number(value=trunk.value + 2)


forked.gate("approval", after=("ours",))


@forked.step(stage="exporting", queue="llm")
async def both(ours: Number, theirs: Number, approval: Decision) -> Number:
    return Number(value=ours.value + theirs.value)
