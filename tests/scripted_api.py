"""An HTTP server that says what a test tells it to say, and remembers what it was asked."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

AT = "2026-11-02T10:00:00+00:00"


class Asked(BaseHTTPRequestHandler):
    """One request. The server's `answers` are used up in order; each writes one response."""

    server: Scripted

    def do_GET(self) -> None:
        self.server.requests.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        self.server.answers.pop(0)(self)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def say(self, status: int, media_type: str, body: str) -> None:
        """A response that ends when the connection is closed."""
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.end_headers()
        self.wfile.write(body.encode())

    def break_off(self) -> None:
        """Reset the connection, as a killed server does."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.wfile.flush()
        self.connection.close()


Answer = Callable[[Asked], None]


class Scripted(ThreadingHTTPServer):
    """The server, its script and its memory."""

    answers: list[Answer]
    requests: list[tuple[str, str, dict[str, str]]]
    url: str


@contextmanager
def scripted_api(*answers: Answer) -> Iterator[Scripted]:
    """A server on a free port of 127.0.0.1."""
    server = Scripted(("127.0.0.1", 0), Asked)
    server.answers, server.requests = list(answers), []
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def answer(body: dict[str, Any], status: int = 200) -> Answer:
    """JSON."""
    return lambda asked: asked.say(status, "application/json", json.dumps(body))


def refuse(status: int, code: str, message: str) -> Answer:
    """The envelope of every error."""
    return answer({"error": {"code": code, "message": message, "details": {}}}, status)


def stream(*frames: str, broken: bool = False) -> Answer:
    """An event stream; `broken` when its connection is reset at the end."""

    def send(asked: Asked) -> None:
        asked.say(200, "text/event-stream", "".join(frames))
        if broken:
            asked.break_off()

    return send


def frame(seq: int, kind: str = "progress", status: str = "running", **fields: Any) -> str:
    """One event as the stream sends it."""
    data = {"status": status, "percent": fields.pop("percent", seq), **fields.pop("data", {})}
    row = {"seq": seq, "at": AT, "kind": kind, "stage": "parsing", "message": f"event {seq}", "data": data} | fields
    return f"id: {seq}\nevent: {kind}\ndata: {json.dumps(row)}\n\n"


END = 'event: end\ndata: {"status": "completed"}\n\n'
