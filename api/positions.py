"""Where a stream over many jobs stands: the `id` of its messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from api.headers import LAST_POSITION
from api.incoming import read_last_event_id
from tasks.db import Row

_NO_JOB = UUID(int=0)


@dataclass(frozen=True)
class Position:
    """After an event; or, without a job, before all events of that number."""

    number: int
    job_id: UUID = _NO_JOB
    seq: int = 0

    def __str__(self) -> str:
        return f"{self.number}-{self.job_id.hex}-{self.seq}" if self.seq else str(self.number)

    def asked(self) -> dict[str, Any]:
        """As the statements take it."""
        return {"position": self.number, "job_id": self.job_id, "seq": self.seq}


def position_of(row: Row) -> Position:
    """Of an event."""
    return Position(row["position"], row["job_id"], row["seq"])


def read_position(after: str | None) -> Position | None:
    """Where a client left off: what `Last-Event-ID` says, else `after`, else None. Raises Refused `request_invalid`."""
    text = read_last_event_id(LAST_POSITION) or after
    if text is None:
        return None
    number, _, rest = text.partition("-")
    job_id, _, seq = rest.partition("-")
    return Position(int(number), UUID(job_id), int(seq)) if rest else Position(int(number))
