"""What reading a document gives: its text and the little structure that formats tell us.

Light on purpose (pydantic only): chapter detection and the API's schemas import it without an extraction engine.
"""

from __future__ import annotations

from pydantic import BaseModel, Field


class Heading(BaseModel):
    """A line that the format itself marks as a heading."""

    offset: int = Field(ge=0, description="Where the heading's line begins, in characters of the extracted text.")
    level: int = Field(ge=1, description="1 is the outermost.")
    text: str


class ExtractedText(BaseModel):
    """A document as text: paragraphs as single lines with a blank line between them.

    Plain text keeps the lines it came with. There are no NUL characters and no lone surrogates. For each heading,
    `text[h.offset : h.offset + len(h.text)] == h.text`.
    """

    text: str
    headings: list[Heading] = []
    pages: int | None = Field(default=None, description="Pages of a paged format.")
    engine: str = Field(description="Which reader produced the text.")
    title: str | None = None
    author: str | None = None
    warnings: list[str] = Field(default=[], description="Sentences for the writer: what was left out or guessed.")
