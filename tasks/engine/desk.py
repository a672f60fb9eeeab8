"""The ledger's calls for workers. Every write carries the attempt's number and is refused when that is stale.

Attempts are settled in groups: while one is being committed, the next one gathers, and when there are many groups
they come at a pace. So nobody waits when the worker is idle, and under load one commit serves many.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb
from psycopg_pool import PoolTimeout

from tasks.db import AsyncPool, Row, statement
from tasks.engine.attempt import Attempt, Stored
from tasks.engine.outcomes import Failure
from tasks.pace import Pace

log = logging.getLogger(__name__)

AWAY = (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout)

_PATIENCE_S = 60.0
_GROUP = 50

Outcome = dict[str, Any]
Answer = bool | dict[str, Any]
Waiting = tuple[Outcome, asyncio.Future[Answer]]


class Settled(NamedTuple):
    """What became of an attempt's result: nothing when it was stale. `next`: what this worker goes on with."""

    accepted: bool
    next: Attempt | None


class Desk:
    """Where a worker reports. `pool`: autocommit connections; every call is one statement, so one transaction."""

    def __init__(self, pool: AsyncPool, worker: UUID) -> None:
        self._pool = pool
        self._worker = worker
        self._waiting: list[Waiting] = []
        self._committing: asyncio.Task[None] | None = None
        self._pace = Pace()

    async def complete(
        self, attempt: Attempt, result: dict[str, Any], items: list[Any] | None, run_on: Sequence[str] = ()
    ) -> Settled:
        """Hand in a result. `run_on`: the queues in which there is room for the step that follows."""
        said = {"verb": "complete", "result": result, "items": items, "run_on": list(run_on)}
        answer = await self._settle(attempt, said)
        return Settled(bool(answer), Attempt.from_work(answer) if isinstance(answer, dict) else None)

    async def fail(self, attempt: Attempt, failure: Failure) -> bool:
        """Report a failure; False when stale."""
        said = {key: _storable(value) if isinstance(value, str) else value for key, value in vars(failure).items()}
        return bool(await self._settle(attempt, {"verb": "fail", **said}))

    async def release(self, attempt: Attempt) -> bool:
        """Give an attempt back unused; False when stale."""
        return bool(await self._settle(attempt, {"verb": "release"}))

    async def report_progress(self, attempt: Attempt, current: int, total: int, message: str) -> bool:
        """Write a progress report; False when stale."""
        report = {"current": max(0, current), "total": max(0, total), "message": _storable(message)}
        return bool((await self._ask("engine_progress", attempt.token | report))["accepted"])

    async def announce(self, tenant: UUID, digests: list[str], for_s: float) -> None:
        """Say that bytes are about to be stored: nobody deletes them while the attempt can still name them."""
        await self._ask("bytes_announce", {"tenant_id": tenant, "digests": digests, "for_s": for_s})

    async def gather(self, job: UUID, step: str) -> list[Stored]:
        """All results of a mapped step, in item order."""
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(statement("engine_gather"), {"job": job, "step": step})).fetchall()
        return [Stored(row["value"], row["blob"]) for row in rows]

    async def trace(self, attempt: Attempt) -> Row:
        """The traceparent that the attempt's job was submitted with, and the seconds that the step run waited."""
        return await self._ask("engine_trace", {"step_run": attempt.step_run})

    async def _settle(self, attempt: Attempt, outcome: Outcome) -> Answer:
        token = {"step_run": str(attempt.step_run), "attempt": attempt.number}
        answer = self._hand_in(token | outcome)
        try:
            return await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                self._give_back(answer.result())  # it came in the same moment as the cancellation
            raise

    def _hand_in(self, outcome: Outcome) -> asyncio.Future[Answer]:
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((outcome, answer))
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit_groups())
        return answer

    def _give_back(self, answer: Answer) -> None:
        """What was begun for somebody who was stopped meanwhile."""
        if isinstance(answer, dict):
            self._hand_in({"verb": "release", "step_run": answer["step_run"], "attempt": answer["attempt"]})

    async def _commit_groups(self) -> None:
        while self._waiting:
            await self._pace.keep(len(self._waiting))
            group, self._waiting = self._waiting[:_GROUP], self._waiting[_GROUP:]
            await self._commit(group)

    async def _commit(self, group: list[Waiting]) -> None:
        """Settle a group; if the database refuses it as a whole, each alone, so that one cannot spoil the others."""
        try:
            answers = await self._persist([outcome for outcome, _ in group])
        except Exception as error:
            if len(group) == 1 or isinstance(error, AWAY):
                for _, answer in group:
                    _tell(answer, error)
                return
            for waiting in group:
                await self._commit([waiting])
            return
        for (_, answer), value in zip(group, answers, strict=True):
            if answer.cancelled():
                self._give_back(value)
            _tell(answer, value)

    async def _persist(self, outcomes: list[Outcome]) -> list[Answer]:
        """Send until it is answered: what was done is not done again, because its attempts no longer run."""
        arguments = {"outcomes": Jsonb(outcomes), "worker": self._worker}
        clock = asyncio.get_running_loop().time
        deadline, delay = clock() + _PATIENCE_S, 0.05
        while True:
            try:
                answers: list[Answer] = (await self._ask("engine_settle", arguments))["answers"]
                return answers
            except AWAY as error:
                if clock() + delay > deadline:
                    raise
                log.warning("the database is away (%s); results are sent again", type(error).__name__)
            await asyncio.sleep(delay)
            delay = min(delay * 2, 2.0)

    async def _ask(self, name: str, arguments: dict[str, Any]) -> Row:
        async with self._pool.connection() as connection:
            row = await (await connection.execute(statement(name), arguments)).fetchone()
        assert row is not None, name
        return row


def _tell(answer: asyncio.Future[Answer], value: Answer | Exception) -> None:
    if answer.done():
        return
    if isinstance(value, Exception):
        answer.set_exception(value)
    else:
        answer.set_result(value)


def _storable(text: str) -> str:
    """Text that Postgres takes: no NUL, no lone surrogates."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()
