"""Batches: thousands of jobs submitted together, looked at, cancelled and retried as one."""

from __future__ import annotations

import hashlib
from itertools import islice
from pathlib import Path
from uuid import UUID

from flask import Response, request

from api.aside import aside
from api.batch_lines import read_rows, spool, too_many, write_lines
from api.codes import refuse
from api.contract import JSON, Access, Reply, Room
from api.headers import IDEMPOTENCY_KEY, IF_NONE_MATCH
from api.house import House, house
from api.incoming import check, parse_json, read_idempotency_key
from api.models.batches import (
    Batch,
    Batches,
    BatchesPage,
    BatchOfPrefix,
    BatchQuery,
    Items,
    ItemsPage,
)
from api.models.jobs import Cancellation
from api.paging import cut, read_cursor, write_cursor
from api.paths import batch_path
from api.people import Member
from api.reading import read, read_one
from api.rows import show_batch, show_batch_summary, show_item
from tasks import batches as ledger_batches
from tasks import ledger
from tasks.intake import staged
from tasks.storage import incoming_key

batches = Room("batches", "Many jobs submitted together: one request, one progress, and an outcome for each item.")

NDJSON = "application/x-ndjson"
_ROWS_AT_A_TIME = 500


@batches.call(
    "POST",
    "/batches",
    "Submit a batch",
    access=Access.WRITE,
    query=BatchQuery,
    takes={NDJSON: None, JSON: BatchOfPrefix},
    gives=Batch,
    status=202,
    takes_headers={"Idempotency-Key": IDEMPOTENCY_KEY},
    gives_headers={
        "Location": "Path of the batch.",
        "Idempotent-Replayed": "`true` when an equal request made this batch before.",
    },
    errors=(
        "unknown_pipeline", "params_invalid", "json_broken", "path_invalid", "body_too_large", "batch_empty",
        "too_many_items", "idempotency_key_invalid", "idempotency_key_reused", "try_again", "storage_full",
        "storage_unavailable",
    ),
)  # fmt: skip
def submit_batch(member: Member, query: BatchQuery) -> Reply:
    """Send one JSON object a line as application/x-ndjson: `document_id`, or `path` of a file in the tenant's incoming
    area with `title`; `params`; and `key`, which does for that item what Idempotency-Key does for a job. Or send
    `prefix` as application/json for all files below a folder.

    Answers when the lines are on record; workers turn them into jobs. A line that is wrong is an item that is refused,
    and the others are not. A body that does not come in whole leaves nothing.
    """
    desk, key = house(), read_idempotency_key()
    assert member.graph is not None
    if request.mimetype not in (NDJSON, JSON):
        raise refuse("media_type_unsupported", f"Send this as {NDJSON} or {JSON}.", expected=NDJSON)
    with staged(desk.staging) as path:
        body = spool(
            path, desk.settings.max_batch_bytes if request.mimetype == NDJSON else desk.settings.max_body_bytes
        )
        digest = hashlib.sha256(f"{member.graph.name} {request.mimetype} {body}".encode()).hexdigest()
        batch_id = _find_same(desk, member, key, digest)
        replayed = batch_id is not None
        if batch_id is None:
            if request.mimetype == JSON:
                _list_prefix(desk, member, path)
            batch_id = _record(desk, member, path, key, digest)
    headers = {"Location": batch_path(batch_id)} | ({"Idempotent-Replayed": "true"} if replayed else {})
    return Reply(_look(desk, member, batch_id), headers=headers)


@batches.call(
    "GET", "/batches", "List batches", access=Access.READ, query=BatchesPage, gives=Batches, errors=("cursor_invalid",)
)
def list_batches(member: Member, query: BatchesPage) -> Batches:
    """The tenant's batches, newest first."""
    page = {"before": read_cursor(query.cursor), "most": query.limit + 1}
    rows = read(house(), member.caller, "api_batches", tenant_id=member.tenant_id, **page)
    rows, cursor = cut(rows, query.limit)
    return Batches(batches=[show_batch_summary(row) for row in rows], next_cursor=cursor)


@batches.call(
    "GET",
    "/batches/<uuid:batch_id>",
    "Look at a batch",
    access=Access.READ,
    gives=Batch,
    takes_headers={"If-None-Match": IF_NONE_MATCH},
    gives_headers={"ETag": "Changes whenever anything in the answer changes."},
    also={304: "Nothing has changed since the ETag in If-None-Match."},
    errors=("batch_not_found",),
)
def look_at_batch(member: Member, batch_id: UUID) -> Response:
    """Its items counted by outcome, its jobs by status, and one progress. `terminal` is decided here."""
    text = _look(house(), member, batch_id).model_dump_json()
    etag = hashlib.sha256(text.encode()).hexdigest()[:32]
    same = bool(request.if_none_match) and request.if_none_match.contains_weak(etag)
    response = Response(status=304) if same else Response(text, mimetype=JSON)
    response.set_etag(etag)
    response.headers["Cache-Control"] = "private, no-cache"
    return response


@batches.call(
    "GET",
    "/batches/<uuid:batch_id>/items",
    "List a batch's items",
    access=Access.READ,
    query=ItemsPage,
    gives=Items,
    errors=("batch_not_found", "cursor_invalid"),
)
def list_items(member: Member, batch_id: UUID, query: ItemsPage) -> Items:
    """In the order of their lines, all or those of one outcome."""
    after = read_cursor(query.cursor)
    rows = read(
        house(),
        member.caller,
        "api_batch_items",
        batch_id=batch_id,
        tenant_id=member.tenant_id,
        outcome=query.outcome,
        after=min(after.int, 2**31 - 1) if after else 0,
        most=query.limit + 1,
    )
    if not rows:
        raise refuse("batch_not_found", "There is no such batch.")
    rows = [row for row in rows if row["nr"] is not None]
    page = rows[: query.limit]
    cursor = write_cursor(UUID(int=page[-1]["nr"])) if len(rows) > query.limit else None
    return Items(items=[show_item(row) for row in page], next_cursor=cursor)


@batches.call(
    "POST",
    "/batches/<uuid:batch_id>/cancel",
    "Cancel a batch",
    access=Access.WRITE,
    body=Cancellation,
    gives=Batch,
    status=202,
    errors=("batch_not_found", "batch_is_over"),
)
def cancel_batch(member: Member, batch_id: UUID, body: Cancellation) -> Batch:
    """No further item becomes a job from now on. Workers refuse what waits and cancel what is live, chunk by chunk."""
    desk = house()
    with desk.pool.connection() as connection:
        ledger_batches.cancel_batch(connection, batch_id, member.tenant_id, member.user_id, body.reason)
    return _look(desk, member, batch_id)


@batches.call(
    "POST",
    "/batches/<uuid:batch_id>/retry",
    "Retry the failed jobs of a batch",
    access=Access.WRITE,
    gives=Batch,
    status=202,
    errors=("batch_not_found", "batch_is_over", "nothing_failed"),
)
def retry_batch(member: Member, batch_id: UUID) -> Batch:
    """Workers reopen every job of the batch that has failed; each goes on from the step that failed."""
    desk = house()
    with desk.pool.connection() as connection:
        ledger_batches.retry_batch(connection, batch_id, member.tenant_id, member.user_id)
    return _look(desk, member, batch_id)


def _find_same(desk: House, member: Member, key: str | None, digest: str) -> UUID | None:
    if key is None:
        return None
    with desk.pool.connection() as connection:
        return ledger_batches.find_batch(connection, member.tenant_id, key, digest)


def _list_prefix(desk: House, member: Member, path: Path) -> None:
    """Replace a body that names a folder by one line for each file below it."""
    data = path.read_bytes()
    parse_json(data)
    wanted = check(lambda: BatchOfPrefix.model_validate_json(data, strict=True))
    incoming_key(wanted.prefix)
    assert member.graph is not None
    member.graph.check(wanted.params)
    found = desk.storage.walk(member.tenant_id, wanted.prefix)
    aside(write_lines, path, found, wanted.params, desk.settings.max_batch_items)


def _record(desk: House, member: Member, path: Path, key: str | None, digest: str) -> UUID:
    """The batch and all its items, in one transaction."""
    assert member.graph is not None
    batch_id, most, count = ledger.new_id(), desk.settings.max_batch_items, 0
    rows = read_rows(path, batch_id, member.tenant_id, member.graph.check)
    with desk.pool.connection() as connection, connection.transaction():
        ledger_batches.open_batch(connection, batch_id, member.tenant_id, member.user_id, member.graph.name)
        with ledger_batches.copying_items(connection) as copy:
            # Lines are read beside the loop in which this process serves everybody; a few at a time are in memory.
            while some := aside(lambda: list(islice(rows, _ROWS_AT_A_TIME))):
                count += len(some)
                if count > most:
                    raise too_many(most)
                for row in some:
                    copy.write_row(row)
        if not count:
            raise refuse("batch_empty", "There is no item in this batch.")
        ledger_batches.close_batch(connection, batch_id, count, key, digest)
    return batch_id


def _look(desk: House, member: Member, batch_id: UUID) -> Batch:
    row = read_one(desk, member.caller, "api_batch", batch_id=batch_id, tenant_id=member.tenant_id)
    if row is None:
        raise refuse("batch_not_found", "There is no such batch.")
    return show_batch(row)
