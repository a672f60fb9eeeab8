"""Our side of the benchmarks as pipelines: steps that do nothing, and one that reads a document."""

from __future__ import annotations

import os
import signal

from bench.entries import enter
from pydantic import BaseModel

from tasks.documents.extract import extract
from tasks.pipeline import Context, Pipeline, Source

CRASHER = "crasher.pdf"  # the first attempt at it ends as a parser in native code does that is led astray


class Mark(BaseModel):
    """Makes jobs differ, so that nothing is answered from earlier results."""

    mark: str
    width: int = 0


class Done(BaseModel):
    value: int


one = Pipeline("one", title="One step", params=Mark)


@one.step(stage="analyzing", queue="llm")
async def only(params: Mark) -> Done:
    enter(params.mark)
    return Done(value=1)


five = Pipeline("five", title="Five steps in a row", params=Mark)


@five.step(stage="parsing", queue="llm")
async def first(params: Mark) -> Done:
    enter(params.mark)
    return Done(value=1)


@five.step(stage="chunking", queue="llm")
async def second(first: Done, params: Mark) -> Done:
    return Done(value=first.value + 1)


@five.step(stage="analyzing", queue="llm")
async def third(second: Done, params: Mark) -> Done:
    return Done(value=second.value + 1)


@five.step(stage="analyzing", queue="llm")
async def fourth(third: Done, params: Mark) -> Done:
    return Done(value=third.value + 1)


@five.step(stage="exporting", queue="llm")
async def fifth(fourth: Done, params: Mark) -> Done:
    return Done(value=fourth.value + 1)


wide = Pipeline("wide", title="A map and its join", params=Mark)


@wide.step(stage="chunking", queue="llm")
async def spread(params: Mark) -> list[Done]:
    return [Done(value=number) for number in range(params.width)]


@wide.step(stage="analyzing", queue="llm", map="spread")
async def double(item: Done, params: Mark) -> Done:
    return Done(value=item.value * 2)


@wide.step(stage="exporting", queue="llm")
async def total(double: list[Done]) -> Done:
    return Done(value=sum(number.value for number in double))


parse = Pipeline("parse", title="Read a document in a child", accepts=("pdf",), params=Mark)


@parse.step(stage="parsing", attempts=2, failure="parse", timeout_s=30)
def read(source: Source, params: Mark, context: Context) -> Done:
    if source.filename == CRASHER and not context.previous_error:
        os.kill(os.getpid(), signal.SIGSEGV)
    engine = "pypdf" if context.previous_error else None
    return Done(value=len(extract(context.path(source.blob), source.kind, engine=engine).text))
