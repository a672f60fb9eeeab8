"""Documents: upload, find, look at, delete."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask import Response

from api.aside import aside
from api.codes import LIMITED, refuse
from api.contract import Access, Reply, Room
from api.headers import IF_NONE_MATCH
from api.house import house
from api.incoming import parse_json, read_form
from api.jobs_state import find_job
from api.models.documents import (
    Cancelled,
    Deleted,
    DeletionQuery,
    Document,
    Documents,
    DocumentsPage,
    UploadedDocument,
    UploadForm,
    UploadQuery,
)
from api.models.jobs import Cancellation, Job
from api.paging import cut, cut_ranked, read_cursor, read_ranked_cursor
from api.paths import document_path
from api.people import Member
from api.reading import read, read_one
from api.rows import show_document, show_document_summary
from api.storing import keep_and_record, record_document
from api.tags import TAGGED, UNCHANGED, answer_tagged, tag_of
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
            (member.tenant_id, upload.sha256),
            lambda: desk.storage.put(member.tenant_id, upload.sha256, upload.path),
            lambda connection: record_document(connection, member, document_row, params),
        )
    job = find_job(desk, member, job_id) if job_id else None
    document = show_document(row | {"last_job": _sum_up(job) if job else None})
    answer = UploadedDocument(**document.model_dump(), duplicate_of=row["duplicate_of"], job=job)
    return Reply(answer, headers={"Location": document_path(document.id)})


@documents.call(
    "GET",
    "/documents",
    "List and find documents",
    access=Access.READ,
    query=DocumentsPage,
    gives=Documents,
    errors=("cursor_invalid",),
)
def list_documents(member: Member, query: DocumentsPage) -> Documents:
    """The tenant's documents: all or those that fit, the newest first; with `q` those that are found by its words, the
    most relevant first.
    """
    by_relevance = query.q is not None and query.order != "newest"
    last_relevance, last_id = read_ranked_cursor(query.cursor) if by_relevance else (0, read_cursor(query.cursor))
    name, _, value = (query.category or "").partition("=")
    asked = query.model_dump(exclude={"limit", "cursor", "order", "category"}) | {
        "category_name": name or None,
        "category_value": value or None,
        "by_relevance": by_relevance,
        "last_id": last_id,
        "last_relevance": last_relevance,
        "most": query.limit + 1,
    }
    rows = read(house(), member.caller, "api_documents", tenant_id=member.tenant_id, **asked)
    rows, cursor = (cut_ranked if by_relevance else cut)(rows, query.limit)
    return Documents(documents=[show_document_summary(row) for row in rows], next_cursor=cursor)


@documents.call(
    "GET",
    "/documents/<uuid:document_id>",
    "Look at a document",
    access=Access.READ,
    gives=Document,
    takes_headers={"If-None-Match": IF_NONE_MATCH},
    gives_headers=TAGGED,
    also=UNCHANGED,
    errors=("document_not_found",),
)
def look_at_document(member: Member, document_id: UUID) -> Response:
    """What is known about one document: what it is, what pipelines found out, and how the last job on it stands."""
    text = find_document(member, document_id).model_dump_json()
    return answer_tagged(text, tag_of(text))


@documents.call(
    "DELETE",
    "/documents/<uuid:document_id>",
    "Delete a document",
    access=Access.WRITE,
    query=DeletionQuery,
    gives=Deleted,
    errors=("document_not_found", "document_in_use", "try_again"),
)
def delete_document(member: Member, document_id: UUID, query: DeletionQuery) -> Deleted:
    """The document goes, and with it everything made of it: its jobs with their history, results and artifacts. Nobody
    can get at any of it after this answer, and its bytes are deleted within minutes. Bytes that another document of the
    tenant has too stay with that.
    """
    with house().pool.connection() as connection:
        jobs = ledger.delete_document(connection, document_id, member.tenant_id, member.user_id, query.force)
    return Deleted(jobs=jobs)


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
    find_document(member, document_id)
    with house().pool.connection() as connection:
        stopped = ledger.cancel_document(connection, document_id, member.tenant_id, member.user_id, body.reason)
    return Cancelled(stopped=stopped)


def find_document(member: Member, document_id: UUID) -> Document:
    """The document as the member may see it. Raises Refused `document_not_found`."""
    asked = {"document_id": document_id, "tenant_id": member.tenant_id}
    row = read_one(house(), member.caller, "api_document", **asked)
    if row is None:
        raise refuse("document_not_found", "There is no such document.")
    return show_document(row)


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


def _sum_up(job: Job) -> dict[str, Any]:
    """A job as `api_document` has it."""
    return job.model_dump(include={"id", "pipeline", "status", "stage"}) | {"percent": job.progress.percent}


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
