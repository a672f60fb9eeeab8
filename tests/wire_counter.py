"""Counts round trips to Postgres where they cannot be hidden: on the wire, between a client and the server."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

_READY = b"Z"


class WireCounter:
    """A relay that counts ReadyForQuery: the server sends one at the end of each round trip. `url` leads through it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._door = socket.create_server(("127.0.0.1", 0))
        port = self._door.getsockname()[1]
        netloc = f"{parts.username}:{parts.password}@127.0.0.1:{port}"
        self.url = parts._replace(netloc=netloc, query="sslmode=disable&gssencmode=disable").geturl()
        self.round_trips = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._door.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._door.accept()
                server = socket.create_connection(self._server)
                threading.Thread(target=self._relay, args=(client, server), daemon=True).start()
                threading.Thread(target=self._count, args=(server, client), daemon=True).start()

    def _relay(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        _shut(target)

    def _count(self, source: socket.socket, target: socket.socket) -> None:
        waiting = b""
        with suppress(OSError):
            while data := source.recv(65536):
                waiting += data
                # A message is one letter, then its length without the letter.
                while len(waiting) >= 5 and len(waiting) > (length := struct.unpack(">xI", waiting[:5])[0]):
                    self.round_trips += waiting[:1] == _READY
                    waiting = waiting[length + 1 :]
                target.sendall(data)
        _shut(target)


@contextmanager
def counting(url: str) -> Iterator[WireCounter]:
    """A counter before a server."""
    counter = WireCounter(url)
    yield counter
    counter.close()


def _shut(target: socket.socket) -> None:
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
