"""Pipelines that are hard on the engine: odd words, large values, steps that must be stopped."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from sample_pipelines import Number

from tasks.errors import Permanent
from tasks.pipeline import Context, Description, Pipeline, Skip, Source

ODD = "a\0b\ud800c"


class Text(BaseModel):
    text: str


class Size(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int = 0
    gate: str = ""


large = Pipeline("large", title="Values that do not fit into a row", params=Size)


@large.step(stage="parsing", queue="llm")
async def pieces(params: Size) -> list[Text]:
    return [Text(text=letter * params.size) for letter in "abc"]


@large.step(stage="analyzing", queue="llm", map="pieces")
async def grow(item: Text) -> Text:
    return Text(text=item.text + item.text[:1])


@large.step(stage="analyzing", queue="llm")
async def join(grow: list[Text]) -> Text:
    return Text(text="\0".join(piece.text for piece in grow))


@large.step(stage="exporting", queue="llm")
async def count(join: Text) -> Number:
    assert join.text.count("\0") == 2
    return Number(value=len(join.text))


noisy = Pipeline("noisy", title="Reports oddly", params=Size)


@noisy.step(stage="analyzing", queue="llm", attempts=1)
async def report(context: Context) -> Number:
    for current, total in ((-1, 5), (10**12, 10**13), (7, 0), (9 * 10**12, 10**13)):
        context.progress(current, total, ODD * 200)
    for content in (b"first", b"second"):
        context.artifact("same.txt", "text/plain", content)
    return Number(value=1)


muttering = Pipeline("muttering", title="Fails with odd words", params=Size)


@muttering.step(stage="analyzing", queue="llm", attempts=1)
async def mutter() -> Number:
    raise Permanent("odd_words", f"It says {ODD}.", detail=f"It said {ODD}.")


grumbling = Pipeline("grumbling", title="Fails with odd words in a child", params=Size)


@grumbling.step(stage="analyzing", attempts=1)
def grumble() -> Number:
    raise ValueError(ODD)


listed = Pipeline("listed", title="Reads a list of results", params=Size)


@listed.step(stage="parsing", queue="llm")
async def numbers() -> list[Number]:
    return [Number(value=1), Number(value=2)]


@listed.step(stage="analyzing", queue="llm", map="numbers")
async def same(item: Number) -> Number:
    return item


@listed.step(stage="exporting", queue="llm")
async def added(same: list[Number]) -> Number:
    return Number(value=sum(number.value for number in same))


caged = Pipeline("caged", title="Waits in a child for a file to appear", params=Size)


@caged.step(stage="analyzing", timeout_s=60)
def wait(params: Size, context: Context) -> Number:
    """Says who it is by a file beside the gate, reports without end, and leaves a trace if it gets to its end."""
    gate = Path(params.gate)
    with gate.with_suffix(".reached").open("a") as reached:
        reached.write(f"{os.getpid()} {context.attempt}\n")
    while not gate.exists():
        context.progress(1, 2, "Still here.")
        time.sleep(0.02)
    gate.with_suffix(".ended").touch()
    context.artifact("trace.txt", "text/plain", b"trace")
    return Number(value=1)


told = Pipeline("told", title="Reports at its very end", params=Size)


@told.step(stage="analyzing", queue="llm", attempts=1)
async def tell(params: Size, context: Context) -> Number:
    gate = Path(params.gate)
    gate.with_suffix(".reached").touch()
    while not gate.exists():
        await asyncio.sleep(0.02)
    context.progress(2, 2, "The very last word.")
    return Number(value=1)


telling = Pipeline("telling", title="Describes its document", accepts=("txt", "md"))


@telling.step(stage="analyzing")
def look(source: Source, context: Context) -> Number:
    context.describe(Description(summary="A draft that is replaced."))
    told = Description(summary="Told by a step.", keywords=("Storm", "night"), language="en", text=source.blob)
    context.describe(told)
    return Number(value=source.blob.bytes)


@telling.step(stage="exporting")
def decide_nothing(look: Number, context: Context) -> Number:
    context.describe(Description(summary="Never seen."))
    raise Skip("There is nothing to decide.")
