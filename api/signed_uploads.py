"""Direct uploads: announced, sent to the store by a signed link, and confirmed. Then they are documents."""

from __future__ import annotations

from contextlib import ExitStack
from typing import IO, Any
from uuid import UUID

from flask import request
from werkzeug.exceptions import RequestEntityTooLarge

from api.aside import aside
from api.codes import LIMITED, refuse
from api.contract import Access, Reply, Room
from api.documents import UNREADABLE, check_params, find_document
from api.house import House, house
from api.jobs_state import find_job
from api.models.documents import UploadedDocument
from api.models.uploads import Confirmation, NewUpload, OpenUpload, Received
from api.paths import document_path
from api.people import Member
from api.storing import keep_and_record, record_document
from tasks import ledger
from tasks.db import Row
from tasks.errors import Refused
from tasks.intake import Announced, clean_name, examine, staged, title_of
from tasks.storage import LocalStorage, upload_key
from tasks.storage.files import CHUNK

uploads = Room("uploads", "Large files, sent straight to the store by a signed link and confirmed afterwards.")

# What is wrong with the bytes themselves: they are removed, and may be sent again.
_WRONG_BYTES = (*UNREADABLE, "file_too_large", "upload_incomplete", "hash_mismatch")


@uploads.call(
    "POST",
    "/documents/uploads",
    "Announce a direct upload",
    access=Access.WRITE,
    body=NewUpload,
    gives=OpenUpload,
    status=201,
    errors=("file_too_large", "storage_unavailable", "storage_full", "storage_limit_reached"),
)
def announce_upload(member: Member, body: NewUpload) -> OpenUpload:
    """Gives a signed link to send the bytes to. Confirm them afterwards: until then there is no document."""
    desk = house()
    most = desk.settings.max_direct_upload_bytes
    if body.bytes > most:
        raise refuse("file_too_large", f"This file is too large. The limit is {most} bytes.", limit=most)
    upload_id = ledger.new_id()
    signed = desk.storage.sign_upload(member.tenant_id, upload_id, body.bytes)
    filename = clean_name(body.filename)
    announced = {
        "id": upload_id,
        "tenant_id": member.tenant_id,
        "user_id": member.user_id,
        "filename": filename,
        "title": body.title or title_of(filename),
        "bytes": body.bytes,
        "sha256": body.sha256,
        "ttl_s": desk.settings.upload_ttl_s,
    }
    with desk.pool.connection() as connection:
        ledger.check_storage(connection, member.tenant_id, body.bytes)
        expires_at = ledger.open_upload(connection, announced)
    return OpenUpload(id=upload_id, expires_at=expires_at, **vars(signed))


@uploads.call(
    "PUT",
    "/uploads/<token>",
    "Send bytes by a signed link",
    access=Access.PUBLIC,
    takes={"application/octet-stream": None},
    gives=Received,
    errors=(
        "link_invalid", "link_expired", "file_too_large", "upload_incomplete", "storage_full", "storage_unavailable",
    ),
)  # fmt: skip
def receive_upload(token: str) -> Received:
    """Takes the bytes where files lie on the API's own disk, and stops at the announced size. The link is the
    permission. What was sent before is replaced, and what does not come in whole is not kept.
    """
    storage = house().storage
    if not isinstance(storage, LocalStorage):
        raise refuse("link_invalid", "This link is not valid.")
    tenant_id, upload_id, size = storage.open_upload(token)
    if (request.content_length or 0) > size:
        raise _too_large(size)
    # One more, because a body that reaches the limit counts as one that exceeds it.
    request.max_content_length = size + 1
    with ExitStack() as stack:
        _copy(stack.enter_context(storage.receive(tenant_id, upload_id)), size)
        # Waiting for the disk to have it all is done beside the loop.
        aside(stack.pop_all().close)
    return Received(bytes=size)


@uploads.call(
    "POST",
    "/documents/<uuid:document_id>/uploaded",
    "Confirm a direct upload",
    access=Access.WRITE,
    body=Confirmation,
    gives=UploadedDocument,
    status=201,
    gives_headers={"Location": "Path of the document."},
    also={200: "The document that this upload has become before."},
    errors=(
        "upload_not_found", "upload_expired", *_WRONG_BYTES, "document_not_found", "unknown_pipeline",
        "params_invalid", "document_not_accepted", "pipeline_changed", "storage_full", "storage_unavailable",
        *LIMITED,
    ),
)  # fmt: skip
def confirm_upload(member: Member, document_id: UUID, body: Confirmation) -> Reply:
    """Reads the bytes once: size and digest must be those announced, and what it is, is told by the content. Then the
    document, and its first job when `pipeline` is named, are made together or not at all.

    Asking twice gives the same document. When the bytes are wrong they are removed, and may be sent again by the same
    link.
    """
    desk = house()
    params = check_params(member, body.params)
    upload = _find(desk, member, document_id)
    if upload["status"] == "confirmed":
        return _answer(desk, member, upload, status=200)
    try:
        closed = _take_in(desk, member, upload, body.sha256, params)
    except Refused as error:
        if error.code in _WRONG_BYTES:
            desk.storage.discard(member.tenant_id, upload_key(document_id))
        raise
    return _answer(desk, member, closed)


def _find(desk: House, member: Member, upload_id: UUID) -> Row:
    with desk.pool.connection() as connection:
        return ledger.lock_upload(connection, upload_id, member.tenant_id)


def _take_in(desk: House, member: Member, upload: Row, sha256: str | None, params: dict[str, Any]) -> Row:
    """Bytes, document and job; gives the upload as it is then."""
    size, key = upload["bytes"], upload_key(upload["id"])
    announced = Announced(member.tenant_id, key, upload["filename"], size, size, upload["sha256"])
    with staged(desk.staging) as path:
        try:
            arrival = aside(examine, desk.storage, announced, path)
        except Refused as error:
            if error.code == "file_not_found":
                return _when_gone(desk, member, upload["id"])
            raise
        if sha256 not in (None, arrival.drawn.sha256):
            raise refuse("hash_mismatch", "What came in is not what was announced.", found=arrival.drawn.sha256)

        def record(connection: ledger.Connection) -> Row:
            locked = ledger.lock_upload(connection, upload["id"], member.tenant_id)
            if locked["status"] == "confirmed":
                return locked
            document = arrival.document(upload["id"], member.user_id, upload["title"])
            _, job_id = record_document(connection, member, document, params)
            ledger.close_upload(connection, upload["id"], job_id)
            return locked | {"status": "confirmed", "job_id": job_id}

        address = (member.tenant_id, arrival.drawn.sha256)
        closed = keep_and_record(desk, address, lambda: desk.storage.adopt(member.tenant_id, arrival.drawn), record)
    desk.storage.discard(member.tenant_id, key)
    return closed


def _when_gone(desk: House, member: Member, upload_id: UUID) -> Row:
    """There are no bytes: somebody has confirmed them meanwhile, or they never came."""
    upload = _find(desk, member, upload_id)
    if upload["status"] != "confirmed":
        raise refuse("upload_incomplete", "The file has not come in yet.", announced=upload["bytes"], found=0)
    return upload


def _answer(desk: House, member: Member, upload: Row, status: int = 201) -> Reply:
    document = find_document(member, upload["id"])
    job = find_job(desk, member, upload["job_id"]) if upload["job_id"] else None
    answer = UploadedDocument(**document.model_dump(), job=job)
    return Reply(answer, status, headers={"Location": document_path(document.id)})


def _copy(target: IO[bytes], size: int) -> None:
    """The request's body, which must be of that size, into a file."""
    received = 0
    try:
        while chunk := request.stream.read(CHUNK):
            received += len(chunk)
            if received > size:
                raise _too_large(size)
            target.write(chunk)
    except RequestEntityTooLarge:
        raise _too_large(size) from None
    if received != size:
        raise refuse("upload_incomplete", "The file has not come in whole.", announced=size, found=received)


def _too_large(size: int) -> Refused:
    return refuse("file_too_large", "This file is larger than announced.", limit=size)
