"""Many streams that are woken at the same moment, read in one round trip: each as its own user, under its own claims.

Nobody waits for company: whoever asks while nobody does, asks alone and at once. Whoever asks meanwhile is in the next
round, with all others who came. So a round is as large as it has to be, and no larger.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from tasks.db import Pool, Row, statement

# Small enough that the first of a thousand need not wait for the last.
_MOST_IN_A_ROUND = 100


@dataclass(eq=False)
class _Question:
    asked: dict[str, Any]
    turn: threading.Event = field(default_factory=threading.Event)
    leads: bool = False
    rows: list[Row] = field(default_factory=list)
    error: BaseException | None = None


class Rounds:
    """The rounds of one process, one after the other."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._waiting: list[_Question] = []
        self._under_way = False

    def read_events(self, claims: dict[str, Any], tenant_id: UUID, job_id: UUID, after: int, most: int) -> list[Row]:
        """Rows as `api_events` gives them to the user with these claims. Raises what the database raises."""
        asked = {"claims": json.dumps(claims), "tenant_id": str(tenant_id), "job_id": str(job_id)}
        mine = _Question(asked | {"after": after, "most": most})
        with self._lock:
            self._waiting.append(mine)
            if not self._under_way:
                self._under_way = mine.leads = True
                mine.turn.set()
        mine.turn.wait()
        if mine.leads:
            self._lead()
        if mine.error is not None:
            raise mine.error
        return mine.rows

    def _lead(self) -> None:
        """One round, for those who wait, the leader first; then the next of them leads."""
        with self._lock:
            questions = self._waiting[:_MOST_IN_A_ROUND]
            del self._waiting[:_MOST_IN_A_ROUND]
        try:
            self._ask(questions)
        except BaseException as error:
            for question in questions:
                question.error = error
        with self._lock:
            self._under_way = bool(self._waiting)
            if self._waiting:
                self._waiting[0].leads = True
                self._waiting[0].turn.set()
        for question in questions:
            question.turn.set()

    def _ask(self, questions: list[_Question]) -> None:
        asked = [question.asked | {"nr": nr} for nr, question in enumerate(questions)]
        with self._pool.connection() as connection:
            rows = connection.execute(statement("api_round"), {"asked": Jsonb(asked)}).fetchall()
        found: defaultdict[int, list[Row]] = defaultdict(list)
        for row in rows:
            found[row["nr"]].append(row)
        for nr, question in enumerate(questions):
            question.rows = found[nr]
