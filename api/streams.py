"""Live streams: of a job, of a document, of a tenant; and the tickets that open them."""

from __future__ import annotations

from uuid import UUID

from flask import Response

from api.contract import Access, Reply, Room
from api.feeds import DocumentFeed, JobFeed, TenantFeed
from api.headers import LAST_EVENT_ID, LAST_POSITION
from api.house import house
from api.incoming import read_last_event_id
from api.models.streams import (
    DocumentStreamQuery,
    JobMessage,
    LiveEvent,
    StreamQuery,
    StreamTicket,
    TenantMessage,
    TenantStreamQuery,
)
from api.people import Member
from api.positions import read_position
from api.stream import MEDIA_TYPE, Stream
from api.tickets import make_ticket

streams = Room("streams", "What happens, as it happens, as server-sent events: history first, then live.")


@streams.call(
    "GET",
    "/jobs/<uuid:job_id>/stream",
    "Follow a job live",
    access=Access.READ,
    query=StreamQuery,
    gives=JobMessage,
    media=MEDIA_TYPE,
    takes_headers={"Last-Event-ID": LAST_EVENT_ID},
    errors=("job_not_found",),
    ticket=True,
)
def follow_job(member: Member, job_id: UUID, query: StreamQuery) -> Response:
    """Server-sent events: the history first, then what happens, without gap or repeat. Each message's `id` is the
    event's number and its `data` the event as JSON. A comment comes every 15 seconds when nothing happens.

    After the event that ends the job comes a message of type `end` with its status, and the stream closes: close your
    EventSource then. If the connection breaks before, reconnect with `Last-Event-ID`, as EventSource does by itself.
    A stream also ends, without `end`, when the access token that opened it, or its ticket was made with, expires.
    """
    number = read_last_event_id(LAST_EVENT_ID)
    after = query.after if number is None else int(number)
    desk = house()
    return Stream(desk, member, JobFeed(desk, member, job_id, after)).respond()


@streams.call(
    "GET",
    "/documents/<uuid:document_id>/stream",
    "Follow a document live",
    access=Access.READ,
    query=DocumentStreamQuery,
    gives=LiveEvent,
    media=MEDIA_TYPE,
    takes_headers={"Last-Event-ID": LAST_POSITION},
    errors=("document_not_found", "position_unknown"),
    ticket=True,
)
def follow_document(member: Member, document_id: UUID, query: DocumentStreamQuery) -> Response:
    """The events of all jobs of a document, also of those that are started later: history first, then live, without
    gap or repeat, each job's events in order. The `data` of a message is the event, with its job, document and
    pipeline; the `id` is good for going on in this stream and means nothing else.

    It does not end when the jobs do, because there may be more: close it when you have seen enough. It ends when the
    access token expires.
    """
    desk = house()
    return Stream(desk, member, DocumentFeed(desk, member, document_id, read_position(query.after))).respond()


@streams.call(
    "GET",
    "/stream",
    "Follow all jobs live",
    access=Access.READ,
    query=TenantStreamQuery,
    gives=TenantMessage,
    media=MEDIA_TYPE,
    takes_headers={"Last-Event-ID": LAST_POSITION},
    errors=("position_unknown",),
    ticket=True,
)
def follow_tenant(member: Member, query: TenantStreamQuery) -> Response:
    """The events of all jobs of the tenant, or of one pipeline's. It starts now: the first message is of type `jobs`
    and holds what is active; what happens from then on follows, without gap or repeat. An event may come that `jobs`
    knew already: its `seq` is not above that job's `last_seq`.

    With `Last-Event-ID` or `after` it goes on from there instead, and `after=0` tells all there ever was.
    """
    desk = house()
    return Stream(desk, member, TenantFeed(desk, member, read_position(query.after), query.pipeline)).respond()


@streams.call(
    "POST",
    "/stream-tickets",
    "Get a stream ticket",
    access=Access.READ,
    gives=StreamTicket,
    status=201,
)
def get_ticket(member: Member) -> Reply:
    """For EventSource, which cannot send headers: add `?ticket=...` to the address of a stream, within a minute. A
    ticket opens one stream, once, as you, in the tenant of this call; whatever the stream answers, it is used up.

    So EventSource cannot reconnect by itself: when it reports an error, close it, get another ticket, and open the
    stream with `after` set to the last `id` you have.
    """
    ticket, good_for_s = make_ticket(house(), member)
    return Reply(StreamTicket(ticket=ticket, expires_in=good_for_s))
