"""Health on the wire."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.models.base import Answer, example

CheckName = Literal["database", "migrations", "storage", "workers", "sweep"]


class Alive(Answer):
    """The process answers."""

    model_config = example(status="alive")

    status: Literal["alive"] = "alive"


class Check(Answer):
    """One thing that must be so."""

    name: CheckName
    ok: bool
    message: str = Field(description="What is wrong, in a sentence; empty when nothing is.")


class Readiness(Answer):
    """Whether work that is sent here would be done."""

    model_config = example(
        ready=False,
        checks=[
            {"name": "database", "ok": True, "message": ""},
            {"name": "workers", "ok": False, "message": "No live worker serves: llm."},
        ],
    )

    ready: bool
    checks: list[Check]
