"""What chapter detection gives and what its steps hand to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, Field

Kind = Literal["chapter", "part", "front", "back"]


class Section(BaseModel):
    """A stretch of the text. Offsets are characters of the text that was searched; `text[body:end]` is what is read.

    Chapters, front and back matter follow one another. A part spans its chapters.
    """

    kind: Kind
    number: int | None = Field(None, description="The number its heading gives, if it gives one.")
    title: str = Field(description="The heading as a reader would say it.")
    start: int = Field(ge=0, description="Where the heading begins.")
    body: int = Field(ge=0, description="Where the text after the heading begins.")
    end: int = Field(ge=0)
    found_by: str = Field(description="numbers, structure, names, scene breaks, chunks, whole text, position, licence.")
    confidence: float = Field(ge=0, le=1)


@dataclass(frozen=True, slots=True)
class Line:
    """One line that is not blank. `start` and `end` are offsets of its text without surrounding space."""

    index: int
    start: int
    end: int
    text: str
    gap: int  # blank lines before it
    opens: bool  # it begins a paragraph
    closes: bool  # it ends a paragraph
    words: int  # words of all lines before it


@dataclass(frozen=True, slots=True)
class Mark:
    """A line that may be a heading. `family` groups marks that are numbered in one way."""

    line: int
    start: int
    end: int
    family: str
    number: int | None
    label: str  # as said: "Chapter 3", "First Narrative", "" for a bare number
    title: str  # what follows the number on the same line
    rank: int  # 0 part, 1 chapter, 2 other numbered, 3 unnumbered name
    alone: bool  # stands in a paragraph of its own
    level: int = 0  # of a heading in the document's structure; 0 when there is none
    role: str = ""  # for unnumbered names: chapter, front or back
