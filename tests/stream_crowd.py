"""Very many clients of live streams, in one thread: who was told what, and when."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from waiting import until

_ID = re.compile(rb"^id: (\S+)$", re.MULTILINE)
_MARK = re.compile(rb'"message":"mark (\d+)"')


class Client(asyncio.Protocol):
    """One open stream. `ids`: of its messages. `marks`: when a message with `mark N` in it came, by N."""

    def __init__(self, request: bytes) -> None:
        self.ids: list[str] = []
        self.marks: dict[int, float] = {}
        self.status = ""
        self.closed = False
        self._request = request
        self._rest = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        *messages, self._rest = (self._rest + data).split(b"\n\n")
        for message in messages:
            if not self.status:
                self.status = message.split(b"\r\n", 1)[0].decode()
            self.ids += [one.decode() for one in _ID.findall(message)]
            self.marks |= dict.fromkeys(map(int, _MARK.findall(message)), now)

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True


@contextmanager
def crowd(url: str, paths: Sequence[str], headers: dict[str, str]) -> Iterator[list[Client]]:
    """Open a stream for each path, and wait until each has begun."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    clients: list[Client] = []
    try:
        opened: Future[list[Client]] = asyncio.run_coroutine_threadsafe(_open(url, paths, headers), loop)
        clients = opened.result(120)
        until(lambda: all(client.ids for client in clients), within=120)
        assert {client.status for client in clients} == {"HTTP/1.1 200 OK"}
        yield clients
    finally:
        for client in clients:
            loop.call_soon_threadsafe(client.transport.abort)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


async def _open(url: str, paths: Sequence[str], headers: dict[str, str]) -> list[Client]:
    place = urlsplit(url)
    lines = [f"{name}: {value}" for name, value in headers.items()]
    gate = asyncio.Semaphore(50)

    async def open_one(path: str) -> Client:
        request = "\r\n".join([f"GET {place.path}{path} HTTP/1.1", "Host: x", *lines, "", ""]).encode()
        async with gate:
            _, client = await asyncio.get_running_loop().create_connection(
                lambda: Client(request), place.hostname, place.port
            )
            while not (client.ids or client.closed):
                await asyncio.sleep(0.01)
        return client

    return list(await asyncio.gather(*map(open_one, paths)))
