"""Finalised documents as an export hands them out."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field

from api.models.base import Answer, Request, example

_DOCUMENT = {
    "id": "01931c2e-8f1a-7c3e-9a55-2f6f0f7c1b10",
    "title": "The Lamplighter's Ledger",
    "filename": "The Lamplighter's Ledger.docx",
    "kind": "docx",
    "media_type": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "bytes": 182044,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "language": "en",
    "summary": "A lamplighter keeps an account of every lamp in a harbour town.",
    "keywords": ["lamp", "harbour", "ledger"],
    "categories": {"form": "fiction", "length": "novelette"},
    "metadata": {"words": 8182, "chapters": 13},
    "created_at": "2026-11-23T09:30:00Z",
    "finalised_at": "2026-11-24T16:02:11Z",
    "job_id": "01931c2f-0d6b-7a40-8c59-8d7d1a4f3e21",
    "pipeline": "review",
    "decision": "approved",
    "comment": "Good, with a better title.",
    "decided_by": "7d1f4b0e-52a1-4c57-8a35-6a9a3e1c2b90",
    "decided_at": "2026-11-24T16:02:09Z",
}


class ExportedDocument(Answer):
    """A finalised document, and how it came to be one."""

    model_config = example(**_DOCUMENT)

    id: UUID
    title: str
    filename: str
    kind: str
    media_type: str
    bytes: int
    sha256: str
    language: str | None
    summary: str
    keywords: list[str]
    categories: dict[str, Any]
    metadata: dict[str, Any] = Field(description="Numbers and names that steps found, for programs.")
    created_at: datetime
    finalised_at: datetime
    job_id: UUID | None = Field(description="The job that finalised it.")
    pipeline: str | None = Field(description="What that job ran.")
    decision: str | None = Field(description="`approved`, when a person decided; of the last gate of that job.")
    comment: str | None
    decided_by: UUID | None
    decided_at: datetime | None


class Export(Answer):
    """All of them, those finalised first at the top. An export without `count` at its end is not whole."""

    model_config = example(documents=[_DOCUMENT], count=1)

    documents: list[ExportedDocument]
    count: int


class ExportQuery(Request):
    """What to export, and how."""

    format: Literal["json", "csv"] = Field("json", description="`json` for programs, `csv` for spreadsheets.")
    finalised_after: AwareDatetime | None = Field(
        None, description="Only documents finalised at this time or later, as 2026-11-01T00:00:00Z."
    )
    finalised_before: AwareDatetime | None = Field(None, description="Only documents finalised earlier than this.")
    pipeline: str | None = Field(None, max_length=63, description="Only documents finalised by this pipeline.")
