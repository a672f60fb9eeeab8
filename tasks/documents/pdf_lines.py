"""What engines find on a page of a PDF: lines with a place, or lines alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

# Ways in which engines and typesetters mark a word that goes on in the next line.
HYPHENS = "-\u2010\u00ad\u0002\ufffe"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text. Places in points from the left and down the page, `size` the height of its letters.

    `hyphen`: the mark at its end (taken off `text`) when a word goes on in the next line, else empty.
    """

    text: str
    left: float
    right: float
    down: float
    size: float
    hyphen: str = ""

    @property
    def width(self) -> float:
        """How far it reaches."""
        return self.right - self.left


@dataclass
class Page:
    """Lines in reading order. Not `measured`: places count characters and lines instead of points."""

    lines: list[Line]
    measured: bool


@dataclass
class Scan:
    """Everything an engine found. `bookmarks`: (page index, level from 1, title)."""

    engine: str
    pages: list[Page]
    title: str | None = None
    author: str | None = None
    bookmarks: list[tuple[int, int, str]] = field(default_factory=list)
    unreadable_pages: list[int] = field(default_factory=list)
    cut: bool = False  # forms were taken out of the file, because they would draw without end

    @property
    def characters(self) -> int:
        """Characters found, blanks not counted."""
        return sum(len("".join(line.text.split())) for page in self.pages for line in page.lines)


def line_of(text: str, left: float, right: float, down: float, size: float) -> Line:
    """A line from raw text: its closing hyphen becomes a mark, a visible soft hyphen inside a word a hyphen."""
    text = text.strip()
    hyphen = ""
    if len(text) > 1 and text[-1] in HYPHENS and text[-2].isalnum():
        text, hyphen = text[:-1], text[-1]
        # The engine writes its own mark for the plain hyphen, so both are the same habit of the typesetter.
        hyphen = "-" if hyphen in "\u0002\ufffe" else hyphen
    for mark in "\u00ad\u0002\ufffe":
        text = text.replace(mark, "-")
    return Line(text, left, right, down, size, hyphen)


def unmeasured(texts: list[str]) -> Page:
    """A page of lines whose places are unknown: characters stand for points, an empty line for a gap."""
    lines = []
    down = 0.0
    for text in texts:
        down += 1
        if text.strip():
            left = float(len(text) - len(text.lstrip()))
            lines.append(line_of(text, left, float(len(text.rstrip())), down, 1.0))
    return Page(lines, measured=False)


def join_rows(lines: list[Line]) -> list[Line]:
    """Pieces that stand side by side (cells of a table, words around a wide gap) as one line, with tabs."""
    rows: list[Line] = []
    for line in lines:
        last = rows[-1] if rows else None
        if last is not None and _beside(last, line):
            gap = "\t" if line.left - last.right > 2 * last.size else " "
            rows[-1] = replace(
                last, text=f"{last.text}{last.hyphen}{gap}{line.text}", right=line.right, hyphen=line.hyphen
            )
        else:
            rows.append(line)
    return rows


def _beside(first: Line, second: Line) -> bool:
    same_height = abs(first.down - second.down) < 0.3 * min(first.size, second.size)
    return same_height and second.left >= first.right - 0.2 * first.size


def most_common(values: list[float], step: float) -> float | None:
    """The value that occurs most, to the nearest `step`; None without values."""
    if not values:
        return None
    return Counter(round(value / step) for value in values).most_common(1)[0][0] * step
