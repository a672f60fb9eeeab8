"""Many who ask the database the same kind of thing at the same moment are answered in one round trip.

Nobody waits for company: whoever asks while nobody does, asks alone and at once. Whoever asks meanwhile is in the next
round, with all others who came. So a round is as large as it has to be, and no larger.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


_new_turn = threading.Event


@dataclass(eq=False)
class _Place(Generic[Question]):
    """Somebody who asks. `round`: those it is to ask for, itself the first of them, when it is to lead."""

    question: Question
    turn: threading.Event = field(default_factory=lambda: _new_turn())
    round: list[_Place[Question]] | None = None
    answer: Any = None


class Rounds(Generic[Question, Answer]):
    """The rounds of one process, `at_once` of them at the same time.

    `answer`: gives an answer for each of up to `most` questions, in their order; an exception is raised for the one who
    asked. What it raises itself is raised for all.
    """

    def __init__(
        self, answer: Callable[[list[Question]], Sequence[Answer | Exception]], most: int, at_once: int = 1
    ) -> None:
        self._answer = answer
        self._most = most
        self._at_once = at_once
        self._lock = threading.Lock()
        self._waiting: list[_Place[Question]] = []
        self._under_way = 0

    def ask(self, question: Question) -> Answer:
        """The answer, in the next round there is."""
        mine = _Place(question)
        with self._lock:
            self._waiting.append(mine)
            if self._under_way < self._at_once:
                self._under_way += 1
                self._appoint()
        self._wait(mine)
        if mine.round is not None:
            self._lead(mine.round)
        if isinstance(mine.answer, BaseException):
            raise mine.answer
        answer: Answer = mine.answer
        return answer

    def _wait(self, mine: _Place[Question]) -> None:
        """Until it is our turn. Who is ended while waiting keeps nobody: those it was to ask for wait on."""
        try:
            mine.turn.wait()
        except BaseException:
            with self._lock:
                if mine in self._waiting:
                    self._waiting.remove(mine)
                elif mine.round is not None:
                    self._waiting[:0] = mine.round[1:]
                    self._hand_over()
            raise

    def _lead(self, places: list[_Place[Question]]) -> None:
        """One round; then the first of those who came meanwhile leads the next."""
        try:
            answers: Sequence[Any] = self._answer([place.question for place in places])
        except BaseException as error:
            answers = [error] * len(places)
        for place, answer in zip(places, answers, strict=True):
            place.answer = answer
        with self._lock:
            self._hand_over()
        for place in places:
            place.turn.set()

    def _hand_over(self) -> None:
        """A round is over. When nobody waits, whoever comes next begins one."""
        if self._waiting:
            self._appoint()
        else:
            self._under_way -= 1

    def _appoint(self) -> None:
        places = self._waiting[: self._most]
        del self._waiting[: self._most]
        places[0].round = places
        places[0].turn.set()
