"""Cancelling what waits for the database: a connection that breaks at that moment must not hide the cancellation."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

from tasks.db import notice_end_async
from tasks.engine.runner import Reports, Runner
from tasks.maintenance import keep_running

PATIENCE_S = 5


class BreakingLine:
    """Waits for an answer; when the wait is cancelled the connection breaks and says that instead, or answers."""

    def __init__(self, *, answers: bool) -> None:
        self.asked = asyncio.Event()
        self.answers = answers

    async def ask(self, *_: object) -> float:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if self.answers:
                return 60.0
            raise psycopg.OperationalError("terminating connection due to unexpected postmaster exit") from None
        return 0.0

    report_progress = ask


async def cancelled(work: Any, line: BreakingLine) -> bool:
    """Whether work that is cancelled while it waits on the line ends as cancelled."""
    task = asyncio.create_task(work)
    await asyncio.wait_for(line.asked.wait(), PATIENCE_S)
    task.cancel()
    await asyncio.wait([task], timeout=PATIENCE_S)
    return task.cancelled()


@pytest.mark.parametrize("answers", [False, True])
def test_a_loop_ends_when_its_connection_breaks_while_it_is_cancelled(answers: bool) -> None:
    async def scene() -> bool:
        line = BreakingLine(answers=answers)
        return await cancelled(keep_running("chore", line.ask), line)

    assert asyncio.run(scene())


@pytest.mark.parametrize("answers", [False, True])
def test_following_progress_ends_when_its_connection_breaks_while_it_is_cancelled(
    tmp_path: Path, answers: bool
) -> None:
    (tmp_path / "progress").write_text('[1, 2, "half way"]')

    async def scene() -> bool:
        line, runner = BreakingLine(answers=answers), object.__new__(Runner)
        runner._desk = line  # type: ignore[assignment]
        return await cancelled(runner._pass_on(None, Reports(tmp_path / "progress")), line)  # type: ignore[arg-type]

    assert asyncio.run(scene())


@pytest.mark.parametrize("size", [4])
def test_connections_that_were_cut_while_idle_are_not_given_out(empty_database_url: str, size: int) -> None:
    async def scene() -> list[int]:
        pool = AsyncConnectionPool(
            empty_database_url, kwargs={"autocommit": True}, min_size=size, open=False, check=notice_end_async
        )
        await pool.open(wait=True)
        try:
            with psycopg.connect(empty_database_url, autocommit=True) as other:
                other.execute(
                    "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
                    " where datname = current_database() and pid <> pg_backend_pid()"
                )
            answers = []
            for _ in range(size):
                async with pool.connection() as connection:
                    row = await (await connection.execute("select 1")).fetchone()
                    answers.append(row[0])
            return answers
        finally:
            await pool.close()

    assert asyncio.run(scene()) == [1] * size
