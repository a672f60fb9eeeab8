"""Several hands at the ledger at the same time, each on a connection of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from ledger_play import Play
from psycopg.rows import dict_row

from tasks.errors import Refused

T = TypeVar("T")


def at_once(play: Play, url: str, *acts: Callable[[Play], Any]) -> list[Any]:
    """Let everybody act at the same moment; what each got, in order. A refusal is what one got, too."""
    gate = threading.Barrier(len(acts))

    def act(one: Callable[[Play], Any]) -> Any:
        with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:
            own = play.on(connection)
            gate.wait(30)
            try:
                return one(own)
            except Refused as refusal:
                return refusal

    with ThreadPoolExecutor(len(acts)) as hands:
        return list(hands.map(act, acts))


class Watch:
    """Something that is looked at over and over while others work."""

    def __init__(self) -> None:
        self.looks = 0
        self.seen: list[Any] = []


@contextmanager
def watching(play: Play, url: str, look: Callable[[Play], Any]) -> Iterator[Watch]:
    """Call `look` without pause beside what happens inside; what it gave that was not empty is in `seen`."""
    watch, over = Watch(), threading.Event()

    def watch_on() -> None:
        with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:
            own = play.on(connection)
            while not over.is_set():
                watch.looks += 1
                if found := look(own):
                    watch.seen.append(found)

    with ThreadPoolExecutor(1) as eyes:
        looking = eyes.submit(watch_on)
        try:
            yield watch
        finally:
            over.set()
            looking.result(30)
