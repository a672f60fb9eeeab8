"""Reviews on the wire: what waits for a person, and what people decided."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import ConfigDict, Field

from api.models.artifacts import Artifact
from api.models.base import Answer, Page, Request, example
from tasks.pipeline import Categories, Keywords, Language, Paragraph, Title

ReviewStatus = Literal["open", "approved", "rejected", "reprocessed", "expired", "withdrawn"]

_ID = "01931c33-6c1e-7f52-8a10-5b8f3f0d7c44"
_JOB_ID = "01931c2f-0d6b-7a40-8c59-8d7d1a4f3e21"
_DOCUMENT_ID = "01931c2e-8f1a-7c3e-9a55-2f6f0f7c1b10"
_ARTIFACT = {
    "id": "01931c31-2f0e-7bb1-b5d4-0c8c3f9de001",
    "job_id": _JOB_ID,
    "step": "categorise",
    "item": None,
    "name": "summary.md",
    "media_type": "text/markdown; charset=utf-8",
    "bytes": 3120,
    "sha256": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
    "created_at": "2026-11-23T09:31:10Z",
    "links": {"self": "/api/v1/artifacts/01931c31-2f0e-7bb1-b5d4-0c8c3f9de001"},
}
_REVIEW = {
    "id": _ID,
    "job_id": _JOB_ID,
    "pipeline": "review",
    "document_id": _DOCUMENT_ID,
    "document_title": "The Lamplighter's Ledger",
    "step": "approval",
    "status": "open",
    "opened_at": "2026-11-23T09:31:11Z",
    "expires_at": "2027-02-21T09:31:11Z",
    "assigned_to": "7d1f4b0e-52a1-4c57-8a35-6a9a3e1c2b90",
    "comment": "",
    "decided_by": None,
    "decided_at": None,
    "artifacts": [_ARTIFACT],
    "links": {
        "self": f"/api/v1/review/{_ID}",
        "job": f"/api/v1/jobs/{_JOB_ID}",
        "artifacts": f"/api/v1/jobs/{_JOB_ID}/artifacts",
        "document": f"/api/v1/documents/{_DOCUMENT_ID}",
        "assign": f"/api/v1/review/{_ID}/assign",
        "approve": f"/api/v1/review/{_ID}/approve",
        "reject": f"/api/v1/review/{_ID}/reject",
        "reprocess": f"/api/v1/review/{_ID}/reprocess",
    },
}
_FIELDS = {
    "title": "The Lamplighter's Ledger",
    "summary": "A lamplighter keeps an account of every lamp in a harbour town.",
    "keywords": ["lamp", "harbour", "ledger"],
    "categories": {"form": "fiction", "length": "novelette"},
    "language": "en",
}


class ReviewLinks(Answer):
    """Where to go from a review."""

    self: str
    job: str
    artifacts: str = Field(description="All of the job's artifacts.")
    document: str | None
    assign: str | None = Field(description="Null when there is nothing left to decide, like the three below.")
    approve: str | None = Field(description="Null when there is nothing left to decide.")
    reject: str | None
    reprocess: str | None


class Review(Answer):
    """One gate of one job, each time it opened. Decided once."""

    model_config = example(**_REVIEW)

    id: UUID
    job_id: UUID
    pipeline: str
    document_id: UUID | None
    document_title: str | None
    step: str = Field(description="The gate.")
    status: ReviewStatus = Field(
        description="`expired`: nobody decided in time; `withdrawn`: the job ended or was reprocessed otherwise."
    )
    opened_at: datetime
    expires_at: datetime | None = Field(description="When the job fails if nobody decided; null: it waits for ever.")
    assigned_to: UUID | None = Field(description="The user who is expected to decide, if anybody is; others still may.")
    comment: str
    decided_by: UUID | None = Field(description="The user who decided, if a person did.")
    decided_at: datetime | None
    artifacts: list[Artifact] = Field(description="What there is to look at: the job's first 20 artifacts, by step.")
    links: ReviewLinks


class Fields(Answer):
    """What a reviewer may correct about a document, as it stands."""

    title: str
    summary: str
    keywords: list[str]
    categories: dict[str, Any]
    language: str | None


class Edit(Answer):
    """One corrected field."""

    from_: Any = Field(alias="from", description="What stood there at the moment of the decision.")
    to: Any = Field(description="What the reviewer wants there.")


class ReviewDetail(Review):
    """A review with what can be done about it."""

    model_config = example(
        **_REVIEW, fields=_FIELDS, edits={}, reprocess_from=["validate", "extract", "analyse", "categorise"]
    )

    fields: Fields | None = Field(description="The document's fields as they stand now; null without a document.")
    edits: dict[str, Edit] = Field(description="What was corrected along with the approval, by field.")
    reprocess_from: list[str] = Field(description="Steps the job can run again from, in order; empty when decided.")


class Reviews(Answer):
    """A page of reviews. Open ones: those that wait longest first. Others: newest first."""

    model_config = example(reviews=[_REVIEW], next_cursor=None)

    reviews: list[Review]
    next_cursor: str | None = Field(description="For the next page; null on the last one.")


class ReviewsPage(Page):
    """Which reviews."""

    status: ReviewStatus = Field("open", description="Only reviews of this status.")
    pipeline: str | None = Field(None, max_length=63, description="Only reviews of this pipeline.")
    document_id: UUID | None = Field(None, description="Only reviews of jobs on this document.")
    assigned_to: Literal["me", "none"] | UUID | None = Field(
        None, description="Only reviews that this user is expected to decide: `me`, a user's id, or `none` for nobody."
    )


class Seen(Request):
    """Fields of the document as the reviewer saw them: `fields` of the review, or a part of it."""

    # As it stands there, so that it can be compared: nothing is trimmed, and null means that nothing stood there.
    model_config = ConfigDict(str_strip_whitespace=False)

    title: str | None = None
    summary: str | None = None
    keywords: list[str] | None = None
    categories: dict[str, Any] | None = None
    language: str | None = None


class Edits(Request):
    """Fields of the document as they are to be. Those that are left out, or null, stay as they are."""

    title: Title | None = None
    summary: Paragraph | None = None
    keywords: Keywords | None = None
    categories: Categories | None = None
    language: Language | None = Field(default=None, description="A language tag: en, de-AT.")


class Approval(Request):
    """What the reviewer has to say, and what is to be corrected about the document."""

    model_config = example(
        comment="Good, with a better title.",
        edits={"title": "The Lamplighter's Ledger"},
        seen={"title": "lamplighter FINAL 2"},
    )

    comment: str = Field("", max_length=2000, description="Becomes part of the job's history.")
    edits: Edits = Field(
        default_factory=Edits,
        description="Fields to correct. What differs from the document is kept as a diff.",
    )
    seen: Seen = Field(
        default_factory=Seen, description="Approve only if these fields of the document are still like this."
    )


class Assignment(Request):
    """Who is expected to decide."""

    model_config = example(user_id="7d1f4b0e-52a1-4c57-8a35-6a9a3e1c2b90")

    user_id: UUID | None = Field(description="A member who may decide; null: nobody in particular.")


class Verdict(Request):
    """What the reviewer has to say."""

    model_config = example(comment="Good. The blurb can go out.")

    comment: str = Field("", max_length=2000, description="Becomes part of the job's history.")


class Reprocessing(Request):
    """From where the job is to run again, and why."""

    model_config = example(from_step="extract", comment="The second half is missing.")

    from_step: str = Field(min_length=1, max_length=63, description="One of `reprocess_from`.")
    comment: str = Field("", max_length=2000, description="Becomes part of the job's history.")
