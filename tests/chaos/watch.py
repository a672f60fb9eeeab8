"""Watching a chaos run from outside: how far it is, and that nothing drifts at any sample."""

from __future__ import annotations

import threading
import time
from typing import Any

from chaos.crew import AWAY, Crew, Line

_LEAST_PAUSE_S = 0.1


class Sampler:
    """Asks for drift again and again. `drift`: what it saw, with the time since the start."""

    def __init__(self, crew: Crew) -> None:
        self.samples = 0
        self.drift: list[dict[str, Any]] = []
        self._crew = crew
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._began = time.monotonic()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(60)

    def _sample(self) -> None:
        line, pause = Line(self._crew), _LEAST_PAUSE_S
        while not self._over.wait(pause):
            began = time.monotonic()
            try:
                rows = line.ask(
                    lambda c: c.execute("select now(), d.* from ops.drift d limit 20").fetchall(), patience=0
                )
            except AWAY:
                continue
            self.samples += 1
            self.drift += [row | {"seen_after_s": round(began - self._began, 2)} for row in rows]
            # On a large ledger the question is dear: it may take a third of the time, not all of it.
            pause = max(_LEAST_PAUSE_S, 2 * (time.monotonic() - began))
        line.hang_up()


def count_over(line: Line) -> int:
    """How many jobs are over."""
    return int(line.rows("select count(*) from jobs where finished_at is not null")[0]["count"])
