"""Rounds go on, whatever becomes of those who ask."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from waiting import until

from api import rounds
from api.rounds import Rounds


class Ended(BaseException):
    """What a server throws into a request that it ends."""


class Turn(threading.Event):
    """An event whose waiter can be ended."""

    ended = False

    def wait(self, timeout: float | None = None) -> bool:
        until(lambda: self.is_set() or self.ended)
        if self.ended:
            raise Ended
        return True


class Asker(threading.Thread):
    """Somebody who asks; what came of it."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.ask = ask
        self.got: Any = None
        self.start()

    def run(self) -> None:
        try:
            self.got = self.ask()
        except BaseException as error:
            self.got = error


@pytest.fixture
def gate() -> threading.Event:
    return threading.Event()


@pytest.fixture
def held(gate: threading.Event, monkeypatch: pytest.MonkeyPatch) -> Rounds[int, int]:
    """Rounds that answer with the double, the first of them when the gate opens."""

    def double(numbers: list[int]) -> list[int]:
        gate.wait(20)
        return [2 * number for number in numbers]

    monkeypatch.setattr(rounds, "_new_turn", Turn)
    return Rounds(double, 100)


def ask(held: Rounds[int, int], *numbers: int) -> list[Asker]:
    """Askers in this order, each in its place before the next one comes."""
    askers = []
    for number in numbers:
        waiting = len(held._waiting)
        askers.append(Asker(lambda number=number: held.ask(number)))
        until(lambda waiting=waiting: len(held._waiting) > waiting or not waiting)
    return askers


def test_who_is_ended_while_it_waits_is_left_out_and_keeps_nobody(
    held: Rounds[int, int], gate: threading.Event
) -> None:
    askers = [*ask(held, 1)]
    until(lambda: held._under_way and not held._waiting)
    askers += ask(held, 2, 3, 4)
    until(lambda: len(held._waiting) == 3)
    held._waiting[1].turn.ended = True  # type: ignore[attr-defined]
    askers[2].join(20)
    gate.set()
    for asker in askers:
        asker.join(20)
    assert [asker.got for asker in askers[:2]] == [2, 4]
    assert isinstance(askers[2].got, Ended)
    assert askers[3].got == 8


def test_who_is_ended_when_it_is_to_lead_hands_over(held: Rounds[int, int], gate: threading.Event) -> None:
    askers = [*ask(held, 1)]
    until(lambda: held._under_way and not held._waiting)
    askers += ask(held, 2, 3)
    until(lambda: len(held._waiting) == 2)
    first = held._waiting[0]
    first.turn.is_set = lambda: False  # type: ignore[method-assign]
    gate.set()
    until(lambda: first.leads)
    first.turn.ended = True  # type: ignore[attr-defined]
    for asker in askers:
        asker.join(20)
    assert (askers[0].got, type(askers[1].got), askers[2].got) == (2, Ended, 6)
    assert held.ask(5) == 10
