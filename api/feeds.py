"""What a stream reads from: the events of one job, of a document's jobs, or of all jobs of a tenant.

A feed stands somewhere and reads on from there, as the member. One job's events go by their numbers: these are taken
under the job's row lock, so none appears below one that was seen. Events of many jobs go by positions, and only as far
as no transaction that began earlier is still running: see `ledger.event_position`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from pydantic import BaseModel

from api.codes import refuse
from api.history import Stretch, show_stretch
from api.house import House
from api.jobs_state import repair_silent
from api.models.streams import ActiveJobs, Ended
from api.people import Member
from api.positions import Position, position_of
from api.reading import read
from api.rows import show_active_job, show_live_event
from api.together import Reading
from tasks.db import Row

# Events of one look, and active jobs that a tenant's stream begins with.
MOST = 500
MOST_ACTIVE = 200


@dataclass(frozen=True)
class Portion:
    """What one look found. `is_end`: nothing will follow. `is_full`: more is there already. `is_held`: more is there,
    and may be told as soon as older transactions are over."""

    messages: list[str] = field(default_factory=list)
    is_end: bool = False
    is_full: bool = False
    is_held: bool = False


class Feed(Protocol):
    """Reads on from where it stands. `topic`: what wakes it; `wide`: that is a tenant or a document."""

    topic: UUID
    wide: bool

    def read(self) -> Portion:
        """What is new. Raises Refused when there is nothing to follow, or no longer."""
        ...


class JobFeed:
    """One job: ends with it."""

    wide = False

    def __init__(self, desk: House, member: Member, job_id: UUID, after: int) -> None:
        self.topic = job_id
        self._desk = desk
        self._member = member
        self._after = after
        self._repaired_at = float("-inf")

    def read(self) -> Portion:
        """The events that follow, and `end` after the last."""
        stretch = self._look()
        if not stretch.events and self._may_repair():
            repaired = repair_silent(self._desk, self.topic, stretch.status, stretch.silent_s)
            stretch = self._look() if repaired else stretch
        messages = [_message(event, str(event.seq)) for event in stretch.events]
        if stretch.events:
            self._after = stretch.events[-1].seq
        if stretch.is_end:
            messages.append(_message(Ended(status=stretch.status, last_seq=stretch.last_seq), kind="end"))
        return Portion(messages, stretch.is_end, is_full=len(stretch.events) == MOST)

    def _look(self) -> Stretch:
        member = self._member
        reading = Reading(member.caller.claims, member.tenant_id, self.topic, self._after, MOST)
        return show_stretch(self._desk.readings.ask(reading))

    def _may_repair(self) -> bool:
        """Once a lease: a thousand silent streams look at their jobs all the time."""
        now = time.monotonic()
        may = now - self._repaired_at >= self._desk.settings.lease_s
        self._repaired_at = now if may else self._repaired_at
        return may


class WideFeed:
    """Many jobs: goes on for ever. `since` None: from the beginning."""

    wide = True
    statement: str
    missing: tuple[str, str]

    def __init__(self, desk: House, member: Member, topic: UUID, since: Position | None) -> None:
        self.topic = topic
        self._desk = desk
        self._member = member
        self._since = since or Position(0)

    def read(self) -> Portion:
        """The events that follow, as far as they are settled."""
        asked = {"tenant_id": self._member.tenant_id, "document_id": self.topic, "most": MOST}
        rows = read(self._desk, self._member.caller, self.statement, **asked, **self._since.asked())
        if not rows:
            raise refuse(*self.missing)
        if self._since.number > rows[0]["newest"]:
            raise refuse("position_unknown", "This stream cannot go on from there. Start it again from now.")
        found = [row for row in rows if row["seq"] is not None]
        if found:
            self._since = position_of(found[-1])
        messages = [self._tell(row) for row in found if self._wants(row)]
        return Portion(messages, is_full=len(found) == MOST, is_held=rows[0]["held"])

    def _wants(self, row: Row) -> bool:
        return True

    def _tell(self, row: Row) -> str:
        return _message(show_live_event(row), str(position_of(row)))


class DocumentFeed(WideFeed):
    """All jobs of a document, those to come included."""

    statement = "api_document_stream"
    missing = ("document_not_found", "There is no such document.")


class TenantFeed(WideFeed):
    """All jobs of a tenant, or those of one pipeline. `since` None: from now, and what is active now comes first."""

    statement = "api_tenant_stream"
    missing = ("tenant_not_found", "There is no such tenant.")

    def __init__(self, desk: House, member: Member, since: Position | None, pipeline: str | None) -> None:
        super().__init__(desk, member, member.tenant_id, since)
        self._pipeline = pipeline
        self._fresh = since is None

    def read(self) -> Portion:
        """What is active, at first; then as every wide feed does."""
        if not self._fresh:
            return super().read()
        asked = {"tenant_id": self.topic, "pipeline": self._pipeline, "most": MOST_ACTIVE + 1}
        rows = read(self._desk, self._member.caller, "api_tenant_now", **asked)
        if not rows:
            raise refuse(*self.missing)
        self._fresh = False
        self._since = Position(rows[0]["settled"])
        jobs = [show_active_job(row) for row in rows if row["id"] is not None]
        active = ActiveJobs(jobs=jobs[:MOST_ACTIVE], complete=len(jobs) <= MOST_ACTIVE)
        return Portion([_message(active, str(self._since), "jobs")], is_full=True)

    def _wants(self, row: Row) -> bool:
        return self._pipeline in (None, row["pipeline"])


def _message(data: BaseModel, number: str | None = None, kind: str | None = None) -> str:
    lines = [f"event: {kind}"] if kind else []
    lines += [f"id: {number}"] if number else []
    return "\n".join([*lines, f"data: {data.model_dump_json(by_alias=True)}", "", ""])
