"""What requests of one process ask the database together: to submit jobs, and to read on in the events of jobs."""

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
_MOST_SUBMITTED = 32


@dataclass(frozen=True)
class Reading:
    """The events of a job after a number, as the user with these claims may see them."""

    claims: dict[str, Any]
    tenant_id: UUID
    job_id: UUID
    after: int
    most: int


EventRounds = Rounds[Reading, list[Row]]
SubmissionRounds = Rounds[ledger.Order, ledger.Seen]


def open_event_rounds(pool: Pool) -> EventRounds:
    """Rounds of readings; each gets rows as `api_events` gives them."""
    return Rounds(partial(_read_all, pool), _MOST_READ)


def open_submission_rounds(pool: Pool) -> SubmissionRounds:
    """Rounds of submissions; each gets its job, or the Refused that is its own."""
    return Rounds(partial(_submit_all, pool), _MOST_SUBMITTED)


def _read_all(pool: Pool, readings: list[Reading]) -> list[list[Row]]:
    asked = [_describe(reading, nr) for nr, reading in enumerate(readings)]
    with pool.connection() as connection:
        rows = connection.execute(statement("api_round"), {"asked": Jsonb(asked)}).fetchall()
    found: defaultdict[int, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["nr"]].append(row)
    return [found[nr] for nr in range(len(readings))]


def _describe(reading: Reading, nr: int) -> dict[str, Any]:
    ids = {"tenant_id": str(reading.tenant_id), "job_id": str(reading.job_id)}
    return ids | {"nr": nr, "claims": json.dumps(reading.claims), "after": reading.after, "most": reading.most}


def _submit_all(pool: Pool, orders: list[ledger.Order]) -> Sequence[ledger.Seen | Exception]:
    with pool.connection() as connection:
        return ledger.submit_together(connection, orders)
