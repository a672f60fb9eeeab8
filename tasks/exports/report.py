"""What a manuscript report holds, whatever it is written as."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from tasks.analysis.book import Synthesis
from tasks.analysis.notes import Note

SCHEMA: Literal["ledgerline.manuscript/1"] = "ledgerline.manuscript/1"


class LeftOut(BaseModel):
    """A section of the document that was not measured."""

    title: str
    kind: str = Field(description="front, back, or short for a chapter below the least length.")
    words: int


class Division(BaseModel):
    """How the text was divided into chapters."""

    found_by: str
    confidence: float
    chapters: int
    parts: list[str]
    left_out: list[LeftOut]


class ManuscriptReport(BaseModel):
    """The report as data. `schema` names the shape; a change that breaks readers changes its number."""

    schema_: Literal["ledgerline.manuscript/1"] = Field(default=SCHEMA, alias="schema", serialization_alias="schema")
    title: str
    author: str | None
    kind: str
    pages: int | None = Field(description="Pages of the document, where it has pages.")
    division: Division
    book: Synthesis
    notes: list[Note]
    warnings: list[str]


def write_json(report: ManuscriptReport) -> bytes:
    """The report as UTF-8 JSON, the same bytes for the same report."""
    return report.model_dump_json(indent=2, by_alias=True).encode()
