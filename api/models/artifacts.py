"""Artifacts on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import Field

from api.models.base import Answer, Request, cursor_field, example

_ARTIFACT = {
    "id": "01931c31-2f0e-7bb1-b5d4-0c8c3f9de001",
    "job_id": "01931c2f-0d6b-7a40-8c59-8d7d1a4f3e21",
    "step": "report",
    "item": None,
    "name": "report.md",
    "media_type": "text/markdown",
    "bytes": 48210,
    "sha256": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
    "created_at": "2026-11-23T09:31:10Z",
    "links": {"self": "/api/v1/artifacts/01931c31-2f0e-7bb1-b5d4-0c8c3f9de001"},
}


class ArtifactLinks(Answer):
    """Where to get it."""

    self: str


class Artifact(Answer):
    """A file that a job made."""

    model_config = example(**_ARTIFACT)

    id: UUID
    job_id: UUID
    step: str
    item: int | None
    name: str
    media_type: str
    bytes: int
    sha256: str
    created_at: datetime
    links: ArtifactLinks


class Artifacts(Answer):
    """A page of a job's artifacts, oldest first."""

    model_config = example(artifacts=[_ARTIFACT], next_cursor=None)

    artifacts: list[Artifact]
    next_cursor: str | None


class ArtifactsPage(Request):
    """Which artifacts."""

    limit: int = Field(1000, ge=1, le=1000, description="Most rows of this page.")
    cursor: str | None = cursor_field()


class ArtifactQuery(Request):
    """How to be given an artifact."""

    redirect: Literal["0", "1"] = Field("1", description="0: answer with the link as JSON instead of going there.")


class ArtifactLink(Answer):
    """A link that needs no token, for a short while."""

    model_config = example(
        url="https://api.example.com/api/v1/files/WyIwMTkz...",
        expires_in=300,
        name="report.md",
        media_type="text/markdown",
        bytes=48210,
    )

    url: str
    expires_in: int = Field(description="Seconds.")
    name: str
    media_type: str
    bytes: int
