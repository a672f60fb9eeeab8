"""A span for each attempt, when traces are wanted, in the trace of the request that submitted the job."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from tasks.engine.attempt import Attempt
from tasks.engine.desk import AWAY, Desk
from tasks.engine.tally import Ending
from tasks.tracing import enter_trace

if TYPE_CHECKING:
    from tasks.spans import Tracing


class Trail:
    """Leaves the spans of one worker's attempts. `tracing`: None when nobody wants them."""

    def __init__(self, tracing: Tracing | None, desk: Desk) -> None:
        self._tracing = tracing
        self._desk = desk

    @asynccontextmanager
    async def follow(self, attempt: Attempt, ending: Ending) -> AsyncIterator[None]:
        """Time an attempt from here to its end, which `ending` tells."""
        if self._tracing is None:
            yield
            return
        origin = await self._ask(attempt)
        span = self._tracing.begin_attempt(
            f"{attempt.pipeline}.{attempt.step}",
            origin.get("trace"),
            {
                "ledgerline.tenant": str(attempt.tenant),
                "ledgerline.job": str(attempt.job),
                "ledgerline.pipeline": attempt.pipeline,
                "ledgerline.step": attempt.step,
                "ledgerline.item": attempt.item,
                "ledgerline.attempt": attempt.number,
                "ledgerline.queue_wait_s": origin.get("waited_s"),
            },
        )
        enter_trace(span.traceparent)
        try:
            yield
        finally:
            span.say({"ledgerline.outcome": ending.outcome or "given_back", "ledgerline.code": ending.code or None})
            if ending.code:
                span.fail(ending.code)
            span.end()

    async def _ask(self, attempt: Attempt) -> dict[str, Any]:
        """The trace that the job was submitted in, and how long the step run waited; not worth an attempt."""
        try:
            return await self._desk.trace(attempt)
        except AWAY:
            return {}
