"""Users, tenants and pipelines on the wire."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from api.models.base import Answer, example

_PIPELINE = {
    "name": "manuscript",
    "title": "Manuscript report",
    "version": 1,
    "accepts": ["docx", "pdf", "txt", "md"],
    "params_schema": {"type": "object", "properties": {}, "additionalProperties": False},
}


class User(Answer):
    """The user a token speaks for."""

    id: UUID
    email: str | None


class Tenant(Answer):
    """A tenant the user is a member of."""

    id: UUID
    name: str
    role: Literal["owner", "editor", "reviewer", "viewer"]


class Me(Answer):
    """Who asks."""

    model_config = example(
        user={"id": "5f0c2a52-2a6e-4d2f-9c1e-6f9d0c5a7e11", "email": "ada@example.com"},
        tenants=[{"id": "01931c20-0000-7000-8000-000000000001", "name": "Ada's novels", "role": "owner"}],
    )

    user: User
    tenants: list[Tenant]


class Pipeline(Answer):
    """A pipeline that jobs can be started for."""

    model_config = example(**_PIPELINE)

    name: str
    title: str
    version: int
    accepts: list[str] = Field(description="Kinds of document it takes; empty when it takes none.")
    params_schema: dict[str, Any] = Field(description="JSON Schema of a job's `params`.")


class Pipelines(Answer):
    """All pipelines."""

    model_config = example(pipelines=[_PIPELINE])

    pipelines: list[Pipeline]
