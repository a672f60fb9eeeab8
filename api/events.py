"""A job's history: a page of it, or live from any point on."""

from __future__ import annotations

from uuid import UUID

from flask import Response, request

from api.contract import Access, Room
from api.headers import LAST_EVENT_ID
from api.history import read_stretch
from api.house import house
from api.incoming import read_last_event_id
from api.models.jobs import Ended, Events, EventsQuery, StreamQuery
from api.people import Member
from api.rows import is_terminal
from api.stream import MEDIA_TYPE, Stream

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


@events.call(
    "GET",
    "/jobs/<uuid:job_id>/stream",
    "Follow a job live",
    access=Access.READ,
    query=StreamQuery,
    gives=Ended,
    media=MEDIA_TYPE,
    takes_headers={"Last-Event-ID": LAST_EVENT_ID},
    errors=("job_not_found",),
)
def follow_job(member: Member, job_id: UUID, query: StreamQuery) -> Response:
    """Server-sent events: the history first, then what happens, without gap or repeat. Each message's `id` is the
    event's number and its `data` the event as JSON. A comment comes every 15 seconds when nothing happens.

    After the event that ends the job comes a message of type `end` with its status, and the stream closes: close your
    EventSource then. If the connection breaks before, reconnect with `Last-Event-ID`, as EventSource does by itself.
    A stream also ends, without `end`, when the access token that opened it expires.
    """
    desk = house()
    after = read_last_event_id(request.headers.get("Last-Event-ID"), query.after)
    return Stream(desk, member, job_id, after).respond()
