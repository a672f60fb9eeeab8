"""A worker's line to the queue: one connection that hears when something is queued, and claims it.

It goes by libpq's own calls, for what a driver does not offer: the answer of a claim comes before its commit, so that
the worker makes ready what it will start while Postgres waits for the disk. And whoever listens is woken for every
notification of the database; here that is the one process that is about to claim.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.adapt import Transformer
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGresult

from tasks.db import Row, statement

_CHANNEL = "procrastinate_queue_v1#"
_PATIENCE_S = 10.0

# A peer that is gone without a word is noticed by the kernel: nobody asks on a connection that only listens.
_CONNECTION: dict[str, Any] = {
    "autocommit": True,
    "application_name": "ledgerline-line",
    "connect_timeout": int(_PATIENCE_S),
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,  # milliseconds
}

Connection = psycopg.AsyncConnection[Any]


class Claim(NamedTuple):
    """What a claim brings. `rows`: what it will have taken, as soon as that is known; `kept`: once that is committed.

    Nothing that others can see may be done on the strength of `rows`. Several wait for `kept`, each with a shield.
    """

    rows: asyncio.Future[list[Row]]
    kept: asyncio.Future[None]

    def bring(self, rows: list[Row]) -> None:
        """The answer is here."""
        if not self.rows.done():
            self.rows.set_result(rows)

    def keep(self) -> None:
        """It is committed."""
        if not self.kept.done():
            self.kept.set_result(None)

    def fail(self, error: Exception) -> None:
        """It was refused; or the line was lost, and nobody knows whether anything was taken."""
        if not self.rows.done():
            self.rows.set_exception(error)
            self.kept.cancel()
        elif not self.kept.done():
            self.kept.set_exception(error)


class Line:
    """`rings`: what to call when something was put into a queue, by queue."""

    def __init__(self, url: str, worker: UUID) -> None:
        self.rings: dict[str, Callable[[], None]] = {}
        self._url = url
        self._worker = worker
        self._open = asyncio.Event()
        self._connection: Connection | None = None
        self._claims: deque[Claim] = deque()

    async def wait(self) -> None:
        """Until claims can be sent. Raises TimeoutError when that takes long."""
        async with asyncio.timeout(_PATIENCE_S):
            await self._open.wait()

    def claim(self, queues: Sequence[str], queue_worker: int | None, most: int) -> Claim:
        """Send a claim, behind those that are on the way. Raises OperationalError when the line is down."""
        if self._connection is None:
            raise psycopg.OperationalError("the line to the queue is down")
        loop = asyncio.get_running_loop()
        claim = Claim(loop.create_future(), loop.create_future())
        arguments = (f"{{{','.join(queues)}}}", self._worker, queue_worker, most)
        pgconn = self._connection.pgconn
        pgconn.send_query_prepared(b"claim", [None if value is None else str(value).encode() for value in arguments])
        pgconn.send_flush_request()
        pgconn.pipeline_sync()
        self._claims.append(claim)
        return claim

    async def attend(self) -> float:
        """Hear and be heard until the connection is lost, which raises OperationalError."""
        connection = await self._connect()
        try:
            await connection.execute(statement("line_prepare"))
            for queue in self.rings:
                await connection.execute(sql.SQL(statement("line_listen")).format(sql.Identifier(_CHANNEL + queue)))
            connection.pgconn.enter_pipeline_mode()
            await self._serve(connection)
        finally:
            await connection.close()
        return 0.0

    async def _connect(self) -> Connection:
        try:
            return await psycopg.AsyncConnection.connect(self._url, **_CONNECTION)
        except asyncio.CancelledError as error:
            # The half-made connection lives as long as this error is kept; a Postgres that wants to stop waits for it.
            traceback.clear_frames(error.__traceback__)
            raise

    async def _serve(self, connection: Connection) -> None:
        """Rings everywhere first: what was queued while nobody listened is there to be found."""
        loop = asyncio.get_running_loop()
        broken: asyncio.Future[None] = loop.create_future()
        socket = connection.fileno()

        def hear() -> None:
            try:
                self._hear(connection)
            except psycopg.Error as error:
                loop.remove_reader(socket)  # now: libpq has closed it, and the next connection may be given its number
                if not broken.done():
                    broken.set_exception(error)

        loop.add_reader(socket, hear)
        self._connection = connection
        self._open.set()
        try:
            for ring in self.rings.values():
                ring()
            await broken
        finally:
            if broken.cancelled() or not broken.done():
                loop.remove_reader(socket)
            self._open.clear()
            self._connection = None
            while self._claims:
                self._claims.popleft().fail(psycopg.OperationalError("the line to the queue was lost"))

    def _hear(self, connection: Connection) -> None:
        pgconn = connection.pgconn
        pgconn.consume_input()
        while self._claims and pgconn.status == ConnStatus.OK and not pgconn.is_busy():
            self._read(pgconn.get_result(), connection)
        while note := pgconn.notifies():
            if ring := self.rings.get(note.relname.decode().removeprefix(_CHANNEL)):
                ring()
        if pgconn.status != ConnStatus.OK:
            raise psycopg.OperationalError("the server has closed the connection")

    def _read(self, result: PGresult | None, connection: Connection) -> None:
        if result is None:
            return  # the end of what one statement has to say
        if result.status == ExecStatus.TUPLES_OK:
            self._claims[0].bring(_load(result, connection))
        elif result.status == ExecStatus.PIPELINE_SYNC:
            self._claims.popleft().keep()
        else:
            self._claims[0].fail(psycopg.errors.error_from_result(result))


def _load(result: PGresult, connection: Connection) -> list[Row]:
    transformer = Transformer(connection)
    transformer.set_pgresult(result)
    names = [(result.fname(column) or b"").decode() for column in range(result.nfields)]
    return [dict(zip(names, row, strict=True)) for row in transformer.load_rows(0, result.ntuples, tuple)]
