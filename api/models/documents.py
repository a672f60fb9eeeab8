"""Documents on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field

from api.models.base import Answer, Page, Request, cursor_field, example
from api.models.jobs import Job, JobStatus

DocumentStatus = Literal["uploaded", "finalised"]

# Something to see, and nothing that cannot be stored.
_STORABLE = r"^[^\x00]*[^\x00\s][^\x00]*$"

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
    "summary": "Novelette, fiction, in English: 8,182 words in 13 chapters, 34 minutes to read.",
    "keywords": ["lamp", "ferry"],
    "categories": {"form": "fiction", "length": "novelette"},
    "language": "en",
    "links": {
        "self": "/api/v1/documents/01931c2e-8f1a-7c3e-9a55-2f6f0f7c1b10",
        "jobs": "/api/v1/jobs?document_id=01931c2e-8f1a-7c3e-9a55-2f6f0f7c1b10",
    },
}
_DESCRIBED = {
    "metadata": {"words": 8182, "chapters": 13},
    "described_at": "2026-11-23T09:30:12Z",
    "described_by": "01931c30-02b4-7f0e-8d2a-5b1de2c7f001",
    "finalised_at": None,
    "finalised_by": None,
    "last_job": {
        "id": "01931c30-02b4-7f0e-8d2a-5b1de2c7f001",
        "pipeline": "manuscript",
        "status": "completed",
        "terminal": True,
        "stage": "exporting",
        "percent": 100,
        "links": {"self": "/api/v1/jobs/01931c30-02b4-7f0e-8d2a-5b1de2c7f001"},
    },
}


class DocumentLinks(Answer):
    """Where to go from a document."""

    self: str
    jobs: str


class LastJobLinks(Answer):
    """Where to go from the last job."""

    self: str


class LastJob(Answer):
    """The last job on a document, in short."""

    id: UUID
    pipeline: str
    status: JobStatus
    terminal: bool = Field(description="Over: nothing will change any more, unless a person retries it.")
    stage: str
    percent: int
    links: LastJobLinks


class DocumentSummary(Answer):
    """A document as lists show it."""

    model_config = example(**_DOCUMENT)

    id: UUID
    title: str
    filename: str
    kind: str = Field(description="What its content is: pdf, docx, odt, epub, rtf, html, md or txt.")
    media_type: str
    bytes: int
    sha256: str
    status: DocumentStatus = Field(
        description="finalised: a person approved what it is known by, and only another approval changes that."
    )
    uploaded_by: UUID | None
    created_at: datetime
    summary: str = Field(description="What a pipeline found out, in a sentence or two; empty until one has.")
    keywords: list[str]
    categories: dict[str, str] = Field(description="Names of categories, and what it is in each.")
    language: str | None = Field(description="As a tag: en, pt-BR.")
    links: DocumentLinks


class Document(DocumentSummary):
    """An uploaded file and what is known about it."""

    model_config = example(**_DOCUMENT | _DESCRIBED)

    metadata: dict[str, Any] = Field(description="What else the pipeline found out, for programs.")
    described_at: datetime | None
    described_by: UUID | None = Field(description="The job that did.")
    finalised_at: datetime | None
    finalised_by: UUID | None = Field(description="The job in which a person approved what it is known by.")
    last_job: LastJob | None


class UploadedDocument(Document):
    """A document as its upload answers it: with the job that was started along with it, if one was."""

    model_config = example(**_DOCUMENT | _DESCRIBED, duplicate_of=None, job=None)

    duplicate_of: UUID | None = Field(None, description="The first document of the tenant with the very same bytes.")
    job: Job | None = None


class Documents(Answer):
    """A page of documents."""

    model_config = example(documents=[_DOCUMENT], next_cursor="AZMcLo8afD6aVS9vD3wbEA")

    documents: list[DocumentSummary]
    next_cursor: str | None = Field(description="For the next page; null on the last one.")


class DocumentsPage(Page):
    """Which documents. Several filters: those that fit all."""

    cursor: str | None = cursor_field(ranked=True)
    q: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        pattern=_STORABLE,
        description='Words of its title, file name, summary, keywords, categories or text; `"a phrase"`, `or` and '
        "`-not` as on search pages. Where the database has pg_trgm, titles and names with a slip of the pen are found.",
    )
    order: Literal["relevance", "newest"] | None = Field(
        None, description="Default: relevance with `q`, newest without."
    )
    status: DocumentStatus | None = Field(None, description="Only documents of this status.")
    kind: str | None = Field(None, pattern="^[a-z0-9]{1,16}$", description="Only files of this kind.")
    keyword: str | None = Field(
        None, min_length=1, max_length=100, pattern=_STORABLE, description="Only documents with this keyword."
    )
    category: str | None = Field(
        None,
        max_length=201,
        pattern=r"^[^=\x00\s][^=\x00]{0,99}=[^\x00]{0,99}[^\x00\s]$",
        description="Only those that are this in that category: `form=fiction`.",
    )
    uploaded_by: UUID | None = Field(None, description="Only those that this user uploaded.")
    created_after: AwareDatetime | None = Field(None, description="Only those uploaded then or later.")
    created_before: AwareDatetime | None = Field(None, description="Only those uploaded earlier.")


class DeletionQuery(Request):
    """How to delete."""

    force: bool = Field(False, description="Also while work on it goes on: that is cancelled.")


class Deleted(Answer):
    """What went with a document."""

    model_config = example(jobs=2)

    jobs: int = Field(description="Its jobs, with their history and all they made.")


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
