"""A stretch of a job's history, read in one snapshot with where the job is."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from api.house import House
from api.jobs_state import job_not_found, repair_silent
from api.models.jobs import Event, JobStatus
from api.people import Member
from api.reading import read
from api.rows import is_terminal, show_event
from tasks.db import Row


@dataclass(frozen=True)
class Stretch:
    """Events that follow a number, and where the job was when they were read."""

    events: list[Event]
    status: JobStatus
    last_seq: int
    silent_s: float

    @property
    def is_end(self) -> bool:
        """Whether the job is over and nothing comes after these events."""
        return is_terminal(self.status) and (not self.events or self.events[-1].seq == self.last_seq)


def read_stretch(desk: House, member: Member, job_id: UUID, after: int, most: int) -> Stretch:
    """Up to `most` events after a number. Raises Refused `job_not_found`.

    Where nothing is new, a job that looks stale is repaired: whoever waits for its next event does not wait for
    something that died.
    """
    asked = {"job_id": job_id, "tenant_id": member.tenant_id, "after": after, "most": most}
    stretch = show_stretch(read(desk, member.caller, "api_events", **asked))
    if not stretch.events and repair_silent(desk, job_id, stretch.status, stretch.silent_s):
        stretch = show_stretch(read(desk, member.caller, "api_events", **asked))
    return stretch


def show_stretch(rows: list[Row]) -> Stretch:
    """Rows of `api_events`. Raises Refused `job_not_found` when there are none."""
    if not rows:
        raise job_not_found()
    found = [show_event(row) for row in rows if row["seq"] is not None]
    return Stretch(found, rows[0]["job_status"], rows[0]["last_seq"], rows[0]["silent_s"])
