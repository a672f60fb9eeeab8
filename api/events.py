"""A job's history, a page at a time."""

from __future__ import annotations

from uuid import UUID

from api.contract import Access, Room
from api.history import read_stretch
from api.house import house
from api.models.jobs import Events, EventsQuery
from api.people import Member
from api.rows import is_terminal

events = Room("events", "What happened to a job, numbered without gaps: audit trail and source of live streams.")


@events.call(
    "GET",
    "/jobs/<uuid:job_id>/events",
    "Read a job's history",
    access=Access.READ,
    query=EventsQuery,
    gives=Events,
    errors=("job_not_found",),
)
def list_events(member: Member, job_id: UUID, query: EventsQuery) -> Events:
    """Events in order, from the number after `after` on."""
    found = read_stretch(house(), member, job_id, query.after, query.limit)
    return Events(
        events=found.events,
        next_after=found.events[-1].seq if found.events else query.after,
        last_seq=found.last_seq,
        status=found.status,
        terminal=is_terminal(found.status),
    )
