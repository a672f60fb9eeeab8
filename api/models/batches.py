"""Batches on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import Field, model_validator

from api.models.base import Answer, Page, Request, example
from api.models.jobs import Progress

Outcome = Literal["waiting", "created", "duplicate", "refused"]

_ID = "01931c40-2b1f-7d11-9c0e-51d0a7c3e001"
_SUMMARY = {
    "id": _ID,
    "pipeline": "manuscript",
    "items": 1200,
    "created_by": "5f0c2a52-2a6e-4d2f-9c1e-6f9d0c5a7e11",
    "created_at": "2026-11-23T09:30:00Z",
    "cancelled_at": None,
    "links": {"self": f"/api/v1/batches/{_ID}", "items": f"/api/v1/batches/{_ID}/items"},
}
_ITEM = {
    "nr": 17,
    "outcome": "created",
    "code": None,
    "message": None,
    "job_id": "01931c2f-0d6b-7a40-8c59-8d7d1a4f3e21",
    "document_id": "01931c2e-8f1a-7c3e-9a55-2f6f0f7c1b10",
    "path": "autumn/story-17.docx",
    "title": None,
    "key": None,
}


class BatchQuery(Request):
    """What to do with each item."""

    pipeline: str = Field(min_length=1, max_length=63, description="A name that `GET /pipelines` lists.")


class BatchItem(Request):
    """One line of a batch: a document that is there already, or a file in the incoming area, or only parameters."""

    document_id: UUID | None = None
    path: str | None = Field(None, min_length=1, max_length=500)
    title: str | None = Field(None, min_length=1, max_length=500)
    params: dict[str, Any] = Field(default_factory=dict)
    key: str | None = Field(None, pattern=r"^[\x21-\x7e]{1,255}$")

    @model_validator(mode="after")
    def _one_pointer(self) -> BatchItem:
        if self.document_id and self.path:
            raise ValueError("Name a document or a path, not both.")
        return self


class BatchOfPrefix(Request):
    """A batch of all files below a folder of the incoming area."""

    model_config = example(prefix="autumn", params={})

    prefix: str = Field(max_length=500, description="The folder; empty for the whole incoming area.")
    params: dict[str, Any] = Field(default_factory=dict, description="Parameters of every job.")


class BatchLinks(Answer):
    """Where to go from a batch."""

    self: str
    items: str


class BatchSummary(Answer):
    """A batch as lists show it."""

    model_config = example(**_SUMMARY)

    id: UUID
    pipeline: str
    items: int
    created_by: UUID | None
    created_at: datetime
    cancelled_at: datetime | None
    links: BatchLinks


class Outcomes(Answer):
    """Items counted by outcome."""

    waiting: int = 0
    created: int = 0
    duplicate: int = 0
    refused: int = 0


class BatchJobs(Answer):
    """The jobs that the batch has created, counted by status."""

    queued: int = 0
    running: int = 0
    awaiting_review: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0


class Batch(BatchSummary):
    """A batch with its items and jobs counted."""

    model_config = example(
        **_SUMMARY,
        active=True,
        terminal=False,
        outcomes={"waiting": 200, "created": 990, "duplicate": 8, "refused": 2},
        jobs={"queued": 700, "running": 8, "awaiting_review": 0, "completed": 280, "failed": 2, "cancelled": 0},
        progress={"current": 292, "total": 1200, "percent": 24, "message": "200 items wait to be taken in."},
        poll_after_ms=5000,
    )

    active: bool = Field(description="Still moving, or waiting to. The opposite of `terminal`.")
    terminal: bool = Field(description="No item waits and every job that it created is over.")
    outcomes: Outcomes
    jobs: BatchJobs
    progress: Progress = Field(description="`current`: items that are over, of `total`.")
    poll_after_ms: int | None = Field(description="When asking again makes sense; null when it is over.")


class Batches(Answer):
    """A page of batches, newest first."""

    model_config = example(batches=[_SUMMARY], next_cursor=None)

    batches: list[BatchSummary]
    next_cursor: str | None = Field(description="For the next page; null on the last one.")


class Item(Answer):
    """What has become of one item."""

    model_config = example(**_ITEM)

    nr: int = Field(description="Number of its line, or its place below the prefix. Empty lines count.")
    outcome: Outcome
    code: str | None = Field(description="Why it was refused.")
    message: str | None
    job_id: UUID | None = Field(description="Its job; of a duplicate, the job that an equal request made before.")
    document_id: UUID | None
    path: str | None
    title: str | None
    key: str | None


class Items(Answer):
    """A page of items, in the order of their lines."""

    model_config = example(items=[_ITEM], next_cursor=None)

    items: list[Item]
    next_cursor: str | None = Field(description="For the next page; null on the last one.")


class BatchesPage(Page):
    """Which batches."""


class ItemsPage(Page):
    """Which items."""

    outcome: Outcome | None = Field(None, description="Only items of this outcome.")
