"""Small pipelines for the chaos run. What each must give can be computed from its parameters: see plan.py."""

from __future__ import annotations

import asyncio

from pydantic import BaseModel, ConfigDict

from tasks.errors import Permanent, Transient
from tasks.pipeline import Blob, Context, Decision, Pipeline, Skip

BULK = 12_000


class Number(BaseModel):
    value: int


class Bulk(BaseModel):
    """A result that is too large for a row."""

    text: str
    blob: Blob


class Params(BaseModel):
    """`pause_s`: how long each step takes. `bad`: the item that fails, or -1. `stumbles`: attempts that fail first."""

    model_config = ConfigDict(extra="forbid")

    mark: str
    start: int = 0
    width: int = 3
    pause_s: float = 0
    bad: int = -1
    stumbles: int = 0


chain = Pipeline("chain", title="Steps in a row", params=Params)


@chain.step(stage="parsing", queue="llm")
async def first(params: Params) -> Number:
    await asyncio.sleep(params.pause_s)
    return Number(value=params.start)


@chain.step(stage="analyzing", queue="llm")
async def second(first: Number, params: Params) -> Number:
    await asyncio.sleep(params.pause_s)
    return Number(value=first.value + 1)


@chain.step(stage="exporting", queue="llm")
async def third(second: Number, params: Params, context: Context) -> Number:
    context.progress(1, 2, "half way")
    await asyncio.sleep(params.pause_s)
    context.artifact("answer.txt", "text/plain", f"{params.mark} {second.value * 2}".encode())
    return Number(value=second.value * 2)


weave = Pipeline("weave", title="Maps in a row, one item of which may fail", params=Params)


@weave.step(stage="chunking", queue="llm")
async def cut(params: Params) -> list[Number]:
    return [Number(value=params.start + index) for index in range(params.width)]


@weave.step(stage="analyzing", queue="llm", map="cut", allow_failures=1)
async def press(item: Number, params: Params, context: Context) -> Number:
    await asyncio.sleep(params.pause_s)
    if item.value - params.start == params.bad:
        raise Permanent("bad_item", "This item cannot be pressed.")
    context.artifact("part.txt", "text/plain", f"{params.mark} {item.value}".encode())
    return Number(value=item.value * 3)


@weave.step(stage="analyzing", queue="llm", map="cut", allow_failures=1)
async def fold(item: Number, press: Number) -> Number:
    return Number(value=item.value + press.value)


@weave.step(stage="exporting", queue="llm")
async def bind(fold: list[Number]) -> Number:
    return Number(value=sum(number.value for number in fold))


shaky = Pipeline("shaky", title="Stumbles, skips and meets", params=Params)


@shaky.step(stage="parsing", queue="llm", attempts=100)
async def stumble(params: Params, context: Context) -> Number:
    if context.attempt <= params.stumbles:
        raise Transient("not_yet", "It is not ready yet.", retry_after=0.05)
    return Number(value=params.start)


@shaky.step(stage="analyzing", queue="llm")
async def odd(stumble: Number, params: Params) -> Number:
    await asyncio.sleep(params.pause_s)
    if stumble.value % 2 == 0:
        raise Skip("it is even")
    return stumble


@shaky.step(stage="analyzing", queue="llm")
async def even(stumble: Number) -> Number:
    return Number(value=stumble.value + 1)


@shaky.step(stage="exporting", queue="llm")
async def meet(odd: Number | None, even: Number) -> Number:
    return Number(value=even.value + (odd.value if odd else 1000))


judged = Pipeline("judged", title="Waits for a person, beside work that goes on", params=Params)


@judged.step(stage="analyzing", queue="llm")
async def draft(params: Params) -> list[Number]:
    return [Number(value=params.start + index) for index in range(params.width)]


judged.gate("approval", after=("draft",))


@judged.step(stage="analyzing", queue="llm", map="draft")
async def polish(item: Number, params: Params) -> Number:
    await asyncio.sleep(params.pause_s)
    return Number(value=item.value + 1)


@judged.step(stage="exporting", queue="llm")
async def final(polish: list[Number], approval: Decision, params: Params, context: Context) -> Number:
    total = sum(number.value for number in polish)
    context.artifact("final.txt", "text/plain", f"{params.mark} {total} {approval.decision}".encode())
    return Number(value=total)


boxed = Pipeline("boxed", title="Works in a child, and gives more than fits into a row", params=Params)


@boxed.step(stage="parsing", queue="cpu", attempts=100)
def fill(params: Params, context: Context) -> Bulk:
    return Bulk(text=params.mark[0] * BULK, blob=context.write(f"{params.mark} {params.start}".encode()))


@boxed.step(stage="exporting", queue="cpu", attempts=100)
def measure(fill: Bulk, params: Params, context: Context) -> Number:
    context.artifact("copy.txt", "text/plain", context.read(fill.blob))
    return Number(value=len(fill.text) + params.start)
