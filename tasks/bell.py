"""The bell of a worker: one connection that hears when something is queued, and rings the lane that serves the queue.

It reads its socket by itself: a task that waits for notifications is woken through several turns of the loop, and a
job that is picked up at once waits for each of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import psycopg
from psycopg import sql

from tasks.db import statement

NAME = "ledgerline-bell"

_CHANNEL = "procrastinate_queue_v1#"
_PROBE_S = 30.0
_PATIENCE_S = 10.0

Connection = psycopg.AsyncConnection[Any]


class Bell:
    """`rings`: what to call when something was put into a queue, by queue."""

    def __init__(self, url: str, rings: Mapping[str, Callable[[], None]]) -> None:
        self._url = url
        self._rings = {_CHANNEL + queue: ring for queue, ring in rings.items()}

    async def listen(self) -> float:
        """Ring until the connection is lost, which raises OperationalError. Rings everywhere first: what was queued
        while nobody listened is there to be found."""
        async with await psycopg.AsyncConnection.connect(
            self._url, autocommit=True, application_name=NAME, connect_timeout=int(_PATIENCE_S)
        ) as connection:
            connection.add_notify_handler(lambda note: self._ring(note.channel))
            for channel in self._rings:
                await connection.execute(sql.SQL(statement("bell_listen")).format(sql.Identifier(channel)))
            for channel in self._rings:
                self._ring(channel)
            while True:
                await self._attend(connection)
                # A connection that fell asleep on the way is noticed by nobody who only listens.
                await asyncio.wait_for(connection.execute(statement("bell_probe")), _PATIENCE_S)

    async def _attend(self, connection: Connection) -> None:
        """Hear what comes, for a while."""
        loop = asyncio.get_running_loop()
        broken: asyncio.Future[None] = loop.create_future()
        loop.add_reader(connection.fileno(), partial(self._hear, connection, broken))
        try:
            await asyncio.wait([broken], timeout=_PROBE_S)
        finally:
            loop.remove_reader(connection.fileno())
        if broken.done():
            broken.result()

    def _hear(self, connection: Connection, broken: asyncio.Future[None]) -> None:
        try:
            connection.pgconn.consume_input()
            while note := connection.pgconn.notifies():
                self._ring(note.relname.decode())
        except psycopg.OperationalError as error:
            if not broken.done():
                broken.set_exception(error)

    def _ring(self, channel: str) -> None:
        if ring := self._rings.get(channel):
            ring()
