"""Many who ask the database the same kind of thing at the same moment are answered in one round trip.

Nobody waits for company: whoever asks while nobody does, asks alone and at once. Whoever asks meanwhile is in the next
round, with all others who came. So a round is as large as it has to be, and no larger.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


_new_turn = threading.Event


@dataclass(eq=False)
class _Place(Generic[Question]):
    """Somebody who asks. `leads`: it is to ask for all who wait, itself the first of them."""

    question: Question
    turn: threading.Event = field(default_factory=lambda: _new_turn())
    leads: bool = False
    answer: Any = None


class Rounds(Generic[Question, Answer]):
    """The rounds of one process, one at a time.

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
                self._under_way = True
                self._appoint()
        try:
            mine.turn.wait()
        except BaseException:
            self._leave(mine)
            raise
        if mine.leads:
            self._lead()
        if isinstance(mine.answer, BaseException):
            raise mine.answer
        answer: Answer = mine.answer
        return answer

    def _leave(self, mine: _Place[Question]) -> None:
        """Who is ended while waiting keeps nobody: those it was to ask for wait on."""
        with self._lock:
            if mine in self._waiting:
                self._waiting.remove(mine)
                if mine.leads:
                    self._hand_over()

    def _lead(self) -> None:
        """One round; then the first of those who came meanwhile leads the next."""
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
        # The next round is sent before this one's leader goes on: while the database works, so do we.
        time.sleep(0)

    def _hand_over(self) -> None:
        """A round is over. When nobody waits, whoever comes next begins one."""
        if self._waiting:
            self._appoint()
        else:
            self._under_way = False

    def _appoint(self) -> None:
        self._waiting[0].leads = True
        self._waiting[0].turn.set()
