"""The worker's view of one child process."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tasks.sandbox import kernel
from tasks.sandbox.wire import HEADER, MAX_BYTES, STARTED, Reply, open_reply

START_S = 60.0  # for the forkserver to import its modules and fork, and for a child to take a request
_BURIAL_S = 1.0
_FAULTS_BYTES = 16_384


class Unstarted(Exception):
    """The child ended before the call began, so that the call may be given to another child."""


@dataclass(frozen=True)
class Death:
    """How a child ended. `status` is the wait status; None when nobody can know."""

    status: int | None
    peak_memory_bytes: int = 0
    cause: str = ""


class Child:
    """One child process, from the order to fork it until it is buried."""

    def __init__(self, faults: int) -> None:
        loop = asyncio.get_running_loop()
        self.pid = 0
        self.born: asyncio.Future[None] = loop.create_future()
        self.death: asyncio.Future[Death] = loop.create_future()
        self.faults = ""  # where it was when it crashed: Python files, lines and names
        self._faults = faults
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def connect(self, channel: socket.socket) -> None:
        """Take over the worker's end of the child's socket."""
        try:
            self._reader, self._writer = await asyncio.open_unix_connection(sock=channel)
        except BaseException:
            channel.close()
            raise

    async def appeared(self) -> None:
        """Wait until it is born, or known to be dead, or has kept us waiting for a minute."""
        waits: set[asyncio.Future[Any]] = {self.born, self.death}
        await asyncio.wait(waits, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)

    async def begin(self, request: bytes) -> None:
        """Hand over a request and wait until the child has taken it. Unstarted when it did not."""
        assert self._reader is not None
        assert self._writer is not None
        self._writer.write(request)
        try:
            async with asyncio.timeout(START_S):
                started = await self._reader.readexactly(len(STARTED))
        except (EOFError, OSError) as error:
            raise Unstarted from error
        if started != STARTED:
            raise Unstarted

    async def reply(self) -> Reply:
        """How the call ended. EOFError or OSError when the child ended instead."""
        assert self._reader is not None
        (size,) = HEADER.unpack(await self._reader.readexactly(HEADER.size))
        if size > 2 * MAX_BYTES:
            raise EOFError("the child announced a reply that no child sends")
        return open_reply(await self._reader.readexactly(size))

    def kill(self) -> None:
        """End the child and its process group at once. One that is not born yet ends when it finds nobody there."""
        if self.pid and not self.death.done():
            kernel.kill_family(self.pid)
        self._hang_up()

    async def buried(self) -> Death:
        """How it ended. A Death without status when that is not known after a second."""
        await asyncio.wait({self.death}, timeout=_BURIAL_S)
        return self.death.result() if self.death.done() else Death(None)

    def learn_birth(self, pid: int) -> None:
        """It has been forked."""
        self.pid = pid
        if not self.born.done():
            self.born.set_result(None)

    def learn_death(self, death: Death) -> None:
        """It has ended. Hanging up wakes whoever reads: a grandchild may still hold the other end."""
        self.faults = self._read_faults()
        if not self.death.done():
            self.death.set_result(death)
        self._hang_up()

    def _read_faults(self) -> str:
        if self._faults < 0:
            return self.faults
        descriptor, self._faults = self._faults, -1
        os.set_blocking(descriptor, False)
        try:
            return os.read(descriptor, _FAULTS_BYTES).decode("utf-8", "replace")
        except BlockingIOError:
            return ""
        finally:
            os.close(descriptor)

    def _hang_up(self) -> None:
        with suppress(RuntimeError):  # the loop may be closed already, and the socket with it
            if self._writer is not None:
                self._writer.transport.abort()
