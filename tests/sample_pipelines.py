"""Small pipelines for tests of the engine: each shows one shape of graph or one way to end."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from tasks.errors import Permanent, Transient
from tasks.pipeline import Blob, Context, Decision, Document, Pipeline, Skip, Source


class Number(BaseModel):
    value: int


class Text(BaseModel):
    text: Blob


class Width(BaseModel):
    model_config = ConfigDict(extra="forbid")

    width: int = Field(3, ge=0, le=20_000)
    fail_at: int | None = None
    mark: str = ""


one = Pipeline("one", title="One step", params=Width)


@one.step(stage="analyzing", queue="llm")
async def only(params: Width) -> Number:
    return Number(value=params.width)


line = Pipeline("line", title="Three steps in a row", params=Width)


@line.step(stage="parsing", queue="llm")
async def first(params: Width) -> Number:
    return Number(value=params.width)


@line.step(stage="analyzing", queue="llm")
async def second(first: Number) -> Number:
    return Number(value=first.value + 1)


@line.step(stage="exporting", queue="llm")
async def third(second: Number, context: Context) -> Number:
    context.artifact("answer.txt", "text/plain", str(second.value).encode())
    return Number(value=second.value * 2)


fan = Pipeline("fan", title="Fan out and join", params=Width)


@fan.step(stage="chunking", queue="llm")
async def spread(params: Width) -> list[Number]:
    return [Number(value=index) for index in range(params.width)]


@fan.step(stage="analyzing", queue="llm", map="spread", attempts=1)
async def double(item: Number, params: Width) -> Number:
    if item.value == params.fail_at:
        raise Permanent("odd_one_out", "This item cannot be doubled.")
    return Number(value=item.value * 2)


@fan.step(stage="exporting", queue="llm")
async def total(double: list[Number]) -> Number:
    return Number(value=sum(number.value for number in double))


diamond = Pipeline("diamond", title="Split and meet again", params=Width)


@diamond.step(stage="parsing", queue="llm")
async def top(params: Width) -> Number:
    return Number(value=params.width)


@diamond.step(stage="analyzing", queue="llm")
async def left(top: Number) -> Number:
    return Number(value=top.value + 1)


@diamond.step(stage="analyzing", queue="llm")
async def right(top: Number) -> Number:
    return Number(value=top.value + 2)


@diamond.step(stage="exporting", queue="llm")
async def bottom(left: Number, right: Number) -> Number:
    return Number(value=left.value * right.value)


stumbling = Pipeline("stumbling", title="Fails in its own way", params=Width)


@stumbling.step(stage="analyzing", queue="llm", attempts=3)
async def stumble(params: Width, context: Context) -> Number:
    if context.attempt <= params.width:
        raise Transient("not_yet", "It is not ready yet.", retry_after=0.01)
    return Number(value=context.attempt)


reading = Pipeline("reading", title="Reads a document in a child", accepts=("txt", "md"))


@reading.step(stage="parsing", attempts=2, failure="parse", timeout_s=30)
def measure(source: Source, context: Context) -> Text:
    data = context.read(source.blob)
    context.progress(1, 2, "half way")
    context.progress(2, 2, "there")
    return Text(text=context.write(data.upper()))


@reading.step(stage="exporting")
def publish(measure: Text, document: Document, context: Context) -> Number:
    context.artifact(f"{document.title}.txt", "text/plain", context.read(measure.text))
    return Number(value=measure.text.bytes)


class Fate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    way: str = "return"
    gate: str = ""


doomed = Pipeline("doomed", title="Ends its child", params=Fate)


@doomed.step(stage="analyzing", attempts=2, failure="parse", timeout_s=2, memory_mb=512)
def perish(params: Fate, context: Context) -> Number:
    match params.way:
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "exit":
            os._exit(3)
        case "hang":
            while True:
                pass
        case "eat":
            return Number(value=len(b"x" * (3 * 1024**3)))
        case "raise":
            raise RuntimeError("a secret of the operator")
    return Number(value=context.attempt)


held = Pipeline("held", title="Waits for a file to appear", params=Fate)


@held.step(stage="analyzing", queue="llm", timeout_s=120)
async def hold(params: Fate, context: Context) -> Number:
    """Says where it is by a file beside the gate, and goes on when the gate is there."""
    gate = Path(params.gate)
    with gate.with_suffix(".reached").open("a") as reached:
        reached.write(f"{os.getpid()} {context.attempt}\n")
    while not gate.exists():
        await asyncio.sleep(0.02)
    return Number(value=1)


@held.step(stage="exporting", queue="llm")
async def finish(hold: Number) -> Number:
    return Number(value=hold.value + 1)


beside = Pipeline("beside", title="Two maps over one list, item by item", params=Width)


@beside.step(stage="chunking", queue="llm")
async def parts(params: Width) -> list[Number]:
    return [Number(value=index) for index in range(params.width)]


@beside.step(stage="analyzing", queue="llm", map="parts", attempts=1, allow_failures=1)
async def weigh(item: Number, params: Width) -> Number:
    if item.value == params.fail_at:
        raise Permanent("odd_one_out", "This item cannot be weighed.")
    return Number(value=item.value * 10)


@beside.step(stage="analyzing", queue="llm", map="parts", allow_failures=1)
async def label(item: Number, weigh: Number) -> Number:
    return Number(value=item.value + weigh.value)


@beside.step(stage="exporting", queue="llm")
async def gathered(label: list[Number]) -> Number:
    return Number(value=sum(number.value for number in label))


choosy = Pipeline("choosy", title="Some steps have nothing to do", params=Width)


@choosy.step(stage="parsing", queue="llm")
async def maybe(params: Width) -> Number:
    if params.width == 0:
        raise Skip("there is no width")
    return Number(value=params.width)


@choosy.step(stage="analyzing", queue="llm")
async def needs(maybe: Number) -> Number:
    return Number(value=maybe.value + 1)


@choosy.step(stage="exporting", queue="llm")
async def copes(maybe: Number | None, needs: Number | None) -> Number:
    return Number(value=(maybe.value if maybe else 0) + (needs.value if needs else 0))


reviewed = Pipeline("reviewed", title="Waits for a person", params=Width)


@reviewed.step(stage="analyzing", queue="llm")
async def draft(params: Width) -> Number:
    return Number(value=params.width)


reviewed.gate("approval", after=("draft",), expires_s=3600)


@reviewed.step(stage="exporting", queue="llm")
async def final(draft: Number, approval: Decision) -> Number:
    return Number(value=draft.value + len(approval.comment))
