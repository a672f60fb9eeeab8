"""What requests of one process ask the database together: who they are, to submit jobs, and to read on in the events of
jobs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from api.rounds import Rounds
from tasks import ledger
from tasks.db import Pool, Row, statement

# Small enough that the first of a thousand need not wait for the last.
_MOST_READ = 100
_MOST_ENTERING = 100
_MOST_SUBMITTED = 32


@dataclass(frozen=True)
class Reading:
    """The events of a job after a number, as the user with these claims may see them."""

    claims: dict[str, Any]
    tenant_id: UUID
    job_id: UUID
    after: int
    most: int


@dataclass(frozen=True)
class Entrance:
    """Who a user is here. `known`: the digest of the pipeline's graph that the process has already."""

    user_id: UUID
    pipeline: str | None
    known: str | None


EntranceRounds = Rounds[Entrance, list[Row]]
EventRounds = Rounds[Reading, list[Row]]
SubmissionRounds = Rounds[ledger.Order, ledger.Seen]


def open_entrance_rounds(pool: Pool) -> EntranceRounds:
    """Rounds of entrances; each gets a row for each tenant it is a member of."""
    return Rounds(partial(_enter_all, pool), _MOST_ENTERING)


def open_event_rounds(pool: Pool) -> EventRounds:
    """Rounds of readings; each gets rows as `api_events` gives them."""
    return Rounds(partial(_read_all, pool), _MOST_READ)


def open_submission_rounds(pool: Pool) -> SubmissionRounds:
    """Rounds of submissions; each gets its job, or the Refused that is its own."""
    return Rounds(partial(_submit_all, pool), _MOST_SUBMITTED)


def _enter_all(pool: Pool, entrances: list[Entrance]) -> list[list[Row]]:
    return _ask(pool, "api_enter", [vars(entrance) | {"user_id": str(entrance.user_id)} for entrance in entrances])


def _read_all(pool: Pool, readings: list[Reading]) -> list[list[Row]]:
    return _ask(pool, "api_round", [_describe(reading) for reading in readings])


def _ask(pool: Pool, name: str, questions: list[dict[str, Any]]) -> list[list[Row]]:
    """The rows of each question; the statement says in `nr` whose they are."""
    asked = [question | {"nr": nr} for nr, question in enumerate(questions)]
    with pool.connection() as connection:
        rows = connection.execute(statement(name), {"asked": Jsonb(asked)}).fetchall()
    found: defaultdict[int, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["nr"]].append(row)
    return [found[nr] for nr in range(len(questions))]


def _describe(reading: Reading) -> dict[str, Any]:
    ids = {"tenant_id": str(reading.tenant_id), "job_id": str(reading.job_id)}
    return ids | {"claims": json.dumps(reading.claims), "after": reading.after, "most": reading.most}


def _submit_all(pool: Pool, orders: list[ledger.Order]) -> Sequence[ledger.Seen | Exception]:
    with pool.connection() as connection:
        return ledger.submit_together(connection, orders)
