"""Clients of live streams, as a program follows them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from api_play import Person, Served

Message = dict[str, str]


def frames(lines: Iterator[str]) -> Iterator[Message]:
    """Messages of a stream; comments come as {"": text}."""
    message: Message = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            message[name] = value.removeprefix(" ")
        elif message:
            yield message
            message = {}


@contextmanager
def following(served: Served, person: Person | None, path: str, after: object = None) -> Iterator[Iterator[Message]]:
    """The messages of a stream. `after`: sent as Last-Event-ID."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    with served.client(person) as client, client.stream("GET", path, headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        assert response.headers["X-Accel-Buffering"] == "no"
        yield frames(response.iter_lines())


def events(messages: Iterator[Message], count: int) -> list[dict[str, Any]]:
    """The next so many events, each with the `id` it came with under "position"; other messages are passed over."""
    found: list[dict[str, Any]] = []
    while len(found) < count:
        message = next(messages)
        if "data" in message and "event" not in message:
            found.append(json.loads(message["data"]) | {"position": message["id"]})
    return found


def lines_of(event: dict[str, Any]) -> tuple[str, int]:
    """What an event is known by."""
    return event["job_id"], event["seq"]
