"""Documents: upload, list, look at."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from api.aside import aside
from api.codes import LIMITED, refuse
from api.contract import Access, Reply, Room
from api.house import house
from api.incoming import parse_json, read_form
from api.jobs_state import find_job
from api.models.documents import (
    Cancelled,
    Document,
    Documents,
    DocumentsPage,
    UploadedDocument,
    UploadForm,
    UploadQuery,
)
from api.models.jobs import Cancellation
from api.paging import cut, read_cursor
from api.paths import document_path
from api.people import Member
from api.reading import read, read_one
from api.rows import show_document
from api.storing import keep_and_record, record_document
from api.uploads import Upload, receive
from tasks import ledger
from tasks.documents.kinds import Kind, sniff
from tasks.intake import title_of

documents = Room("documents", "Files that writers upload. Their bytes never change: a new version is a new document.")

UNREADABLE = (
    "empty_file", "unsupported_type", "type_mismatch", "not_text", "encrypted_file", "corrupt_file", "zip_bomb",
)  # fmt: skip


@documents.call(
    "POST",
    "/documents",
    "Upload a document",
    access=Access.WRITE,
    query=UploadQuery,
    form=UploadForm,
    gives=UploadedDocument,
    status=201,
    gives_headers={"Location": "Path of the document."},
    errors=(
        "file_missing", "one_file_only", "multipart_broken", "file_too_large", "body_too_large", *UNREADABLE,
        "json_broken", "unknown_pipeline", "params_invalid", "document_not_accepted", "pipeline_changed",
        "storage_full", "storage_unavailable", "storage_limit_reached", *LIMITED,
    ),
)  # fmt: skip
def upload_document(member: Member, query: UploadQuery) -> Reply:
    """Send a file as multipart/form-data, in the field `file`. It is hashed and sniffed on its way in: what it is, is
    told by its content, and its name must fit.

    With `pipeline` the document and its first job are made together or not at all. A refused or broken upload leaves
    nothing behind.
    """
    desk = house()
    with receive(desk.staging, member.upload_bytes or desk.settings.max_upload_bytes) as upload:
        form = read_form(UploadForm, upload.fields | {"file": None})
        params = _params(member, form)
        kind = aside(sniff, upload.head(), upload.filename, path=upload.path)
        title = form.title or title_of(upload.filename)
        document_row = _describe(member, upload, kind, title)
        with desk.pool.connection() as connection:
            ledger.check_storage(connection, member.tenant_id, upload.size)
        row, job_id = keep_and_record(
            desk,
            lambda: desk.storage.put(member.tenant_id, upload.sha256, upload.path),
            lambda connection: record_document(connection, member, document_row, params),
        )
    document = show_document(row)
    job = find_job(desk, member, job_id) if job_id else None
    answer = UploadedDocument(**document.model_dump(), job=job)
    return Reply(answer, headers={"Location": document_path(document.id)})


@documents.call(
    "GET",
    "/documents",
    "List documents",
    access=Access.READ,
    query=DocumentsPage,
    gives=Documents,
    errors=("cursor_invalid",),
)
def list_documents(member: Member, query: DocumentsPage) -> Documents:
    """The tenant's documents, newest first."""
    page = {"before": read_cursor(query.cursor), "most": query.limit + 1}
    rows = read(house(), member.caller, "api_documents", tenant_id=member.tenant_id, **page)
    rows, cursor = cut(rows, query.limit)
    return Documents(documents=[show_document(row) for row in rows], next_cursor=cursor)


@documents.call(
    "GET",
    "/documents/<uuid:document_id>",
    "Look at a document",
    access=Access.READ,
    gives=Document,
    errors=("document_not_found",),
)
def look_at_document(member: Member, document_id: UUID) -> Document:
    """What is known about one document."""
    asked = {"document_id": document_id, "tenant_id": member.tenant_id}
    row = read_one(house(), member.caller, "api_document", **asked)
    if row is None:
        raise refuse("document_not_found", "There is no such document.")
    return show_document(row)


@documents.call(
    "POST",
    "/documents/<uuid:document_id>/cancel",
    "Cancel a document's jobs",
    access=Access.WRITE,
    body=Cancellation,
    gives=Cancelled,
    errors=("document_not_found",),
)
def cancel_document(member: Member, document_id: UUID, body: Cancellation) -> Cancelled:
    """Stops every job on the document that is not over: queued ones at once, running ones within seconds."""
    look_at_document(member, document_id)
    with house().pool.connection() as connection:
        stopped = ledger.cancel_document(connection, document_id, member.tenant_id, member.user_id, body.reason)
    return Cancelled(stopped=stopped)


def _params(member: Member, form: UploadForm) -> dict[str, Any]:
    """The parameters for the pipeline that is to be started, checked before anything is stored."""
    params = parse_json(form.params) if form.params else {}
    if not isinstance(params, dict):
        raise refuse("params_invalid", "The field `params` must hold a JSON object.", problems=[])
    return check_params(member, params)


def check_params(member: Member, params: dict[str, Any]) -> dict[str, Any]:
    """The parameters for the pipeline that is to be started along with a document. Raises Refused `params_invalid`."""
    if member.graph is not None:
        return member.graph.check(params)
    if params:
        raise refuse("params_invalid", "`params` belong to a pipeline, and none is named.", problems=[])
    return {}


def _describe(member: Member, upload: Upload, kind: Kind, title: str) -> dict[str, Any]:
    return {
        "id": ledger.new_id(),
        "tenant_id": member.tenant_id,
        "user_id": member.user_id,
        "title": title,
        "filename": upload.filename,
        "kind": kind.name,
        "media_type": kind.media_type,
        "bytes": upload.size,
        "sha256": upload.sha256,
    }
