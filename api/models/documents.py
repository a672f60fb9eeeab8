"""Documents on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from api.models.base import Answer, Page, Request, example
from api.models.jobs import Job

_DOCUMENT = {
    "id": "01931c2e-8f1a-7c3e-9a55-2f6f0f7c1b10",
    "title": "The Lamplighter's Ledger",
    "filename": "The Lamplighter's Ledger.docx",
    "kind": "docx",
    "media_type": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "bytes": 182044,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "status": "uploaded",
    "uploaded_by": "5f0c2a52-2a6e-4d2f-9c1e-6f9d0c5a7e11",
    "created_at": "2026-11-23T09:30:00Z",
    "links": {
        "self": "/api/v1/documents/01931c2e-8f1a-7c3e-9a55-2f6f0f7c1b10",
        "jobs": "/api/v1/jobs?document_id=01931c2e-8f1a-7c3e-9a55-2f6f0f7c1b10",
    },
}


class DocumentLinks(Answer):
    """Where to go from a document."""

    self: str
    jobs: str


class Document(Answer):
    """An uploaded file and what is known about it."""

    model_config = example(**_DOCUMENT)

    id: UUID
    title: str
    filename: str
    kind: str = Field(description="What its content is: pdf, docx, odt, epub, rtf, html, md or txt.")
    media_type: str
    bytes: int
    sha256: str
    status: Literal["uploaded", "finalised"] = Field(
        description="finalised: a person approved what it is known by, and only another approval changes that."
    )
    uploaded_by: UUID | None
    created_at: datetime
    links: DocumentLinks


class UploadedDocument(Document):
    """A document as its upload answers it: with the job that was started along with it, if one was."""

    model_config = example(**_DOCUMENT, job=None)

    job: Job | None = None


class Documents(Answer):
    """A page of documents, newest first."""

    model_config = example(documents=[_DOCUMENT], next_cursor="AZMcLo8afD6aVS9vD3wbEA")

    documents: list[Document]
    next_cursor: str | None = Field(description="For the next page; null on the last one.")


class DocumentsPage(Page):
    """Which documents."""


class Cancelled(Answer):
    """What cancelling all of something stopped."""

    model_config = example(stopped=2)

    stopped: int = Field(description="Jobs that were not over and are cancelled now.")


class UploadQuery(Request):
    """What to do with the upload."""

    pipeline: str | None = Field(
        None, min_length=1, max_length=63, description="Start this pipeline on the document, or keep neither."
    )


class UploadForm(Request):
    """The parts of an upload's form. The order does not matter."""

    file: Any = Field(description="The document.", json_schema_extra={"type": "string", "format": "binary"})
    title: str | None = Field(None, min_length=1, max_length=500, description="Default: the file's name.")
    params: str | None = Field(
        None,
        description="Parameters of the pipeline, as JSON.",
        json_schema_extra={"contentMediaType": "application/json"},
    )
