"""Calls that carry little come at a pace when there are many of them, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tasks.pace import Pace


def time_of(calls: int, carried: int, between: Callable[[], Awaitable[None]] | None = None) -> float:
    """Seconds of the loop's clock that so many calls took, without what lay between them."""

    async def scene() -> float:
        pace, spent = Pace(interval_s=0.02, burst=4, many=10), 0.0
        clock = asyncio.get_running_loop().time
        for _ in range(calls):
            began = clock()
            await pace.keep(carried)
            spent += clock() - began
            if between:
                await between()
        return spent

    return asyncio.run(scene())


@pytest.mark.parametrize(("calls", "carried"), [(1, 1), (4, 1), (100, 10)])
def test_few_calls_and_full_ones_never_wait(calls: int, carried: int) -> None:
    assert time_of(calls, carried) < 0.01


def test_after_its_burst_a_call_waits_for_its_turn() -> None:
    assert time_of(14, 1) >= 10 * 0.02 - 0.001


def test_calls_that_come_seldom_never_wait() -> None:
    assert time_of(12, 1, lambda: asyncio.sleep(0.021)) < 0.01
