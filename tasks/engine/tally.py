"""What became of the attempts of one worker, counted until the ledger is told."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from tasks.engine.attempt import Attempt
from tasks.ledger import ATTEMPT_BUCKETS

Outcome = Literal["completed", "reused", "skipped", "retrying", "failed", "stale"]

_LONGEST_CODE = 64

Key = tuple[str, str, str, str]


@dataclass
class Ending:
    """How an attempt ended. Without an outcome nobody knows yet: it was given back, or the database was away."""

    outcome: Outcome | None = None
    code: str = ""


@dataclass
class Sum:
    """Attempts of one kind."""

    attempts: int = 0
    seconds: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(ATTEMPT_BUCKETS) + 1))


class Tally:
    """Counts since the last `take`."""

    def __init__(self) -> None:
        self._sums: dict[Key, Sum] = {}

    @contextmanager
    def watch(self, attempt: Attempt) -> Iterator[Ending]:
        """Count an attempt when it has ended, as whoever carries it out says it did."""
        started, ending = time.monotonic(), Ending()
        yield ending
        if ending.outcome is not None:
            key = (attempt.pipeline, attempt.step, ending.outcome, ending.code[:_LONGEST_CODE])
            self._add(key, 1, seconds := time.monotonic() - started, _bucket(seconds))

    def take(self) -> list[dict[str, Any]]:
        """What was counted, as the ledger takes it; from here on it counts anew."""
        taken, self._sums = self._sums, {}
        names = ("pipeline", "step", "outcome", "code")
        return [dict(zip(names, key, strict=True)) | vars(one) for key, one in taken.items()]

    def give_back(self, told: Iterable[dict[str, Any]]) -> None:
        """Keep what could not be told."""
        for one in told:
            key = (one["pipeline"], one["step"], one["outcome"], one["code"])
            self._add(key, one["attempts"], one["seconds"], one["buckets"])

    def _add(self, key: Key, attempts: int, seconds: float, buckets: list[int]) -> None:
        held = self._sums.setdefault(key, Sum())
        held.attempts += attempts
        held.seconds += seconds
        held.buckets = [was + more for was, more in zip(held.buckets, buckets, strict=True)]


def _bucket(seconds: float) -> list[int]:
    place = bisect_left(ATTEMPT_BUCKETS, seconds)
    return [int(place == number) for number in range(len(ATTEMPT_BUCKETS) + 1)]
