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
    question: Question
    turn: threading.Event = field(default_factory=lambda: _new_turn())
    leads: bool = False
    answer: Any = None


class Rounds(Generic[Question, Answer]):
    """The rounds of one process, one after the other.

    `answer`: gives an answer for each of up to `most` questions, in their order; an exception is raised for the one who
    asked. What it raises itself is raised for all.
    """

    def __init__(self, answer: Callable[[list[Question]], Sequence[Answer | Exception]], most: int) -> None:
        self._answer = answer
        self._most = most
        self._lock = threading.Lock()
        self._waiting: list[_Place[Question]] = []
        self._under_way = False

    def ask(self, question: Question) -> Answer:
        """The answer, in the next round there is."""
        mine = _Place(question)
        with self._lock:
            self._waiting.append(mine)
            if not self._under_way:
                self._under_way = mine.leads = True
                mine.turn.set()
        self._wait(mine)
        if mine.leads:
            self._lead()
        if isinstance(mine.answer, BaseException):
            raise mine.answer
        answer: Answer = mine.answer
        return answer

    def _wait(self, mine: _Place[Question]) -> None:
        """Until it is our turn. Who is ended while waiting is not left in the row: the others would wait for it."""
        try:
            mine.turn.wait()
        except BaseException:
            with self._lock:
                if mine in self._waiting:
                    self._waiting.remove(mine)
                if mine.leads:
                    self._hand_over()
            raise

    def _lead(self) -> None:
        """One round, for those who wait, the leader first; then the next of them leads."""
        with self._lock:
            places = self._waiting[: self._most]
            del self._waiting[: self._most]
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
        """The first who waits leads the next round; when nobody waits, whoever comes next does."""
        self._under_way = bool(self._waiting)
        if self._waiting:
            self._waiting[0].leads = True
            self._waiting[0].turn.set()
