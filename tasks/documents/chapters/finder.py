"""Find the chapters of a text: marks, minus contents, by votes; what is left over becomes front and back matter."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.documents.chapters.contents import drop_contents
from tasks.documents.chapters.fallbacks import (
    outline_by_length,
    outline_by_names,
    outline_by_scenes,
    outline_by_structure,
)
from tasks.documents.chapters.licence import find_licence
from tasks.documents.chapters.lines import Lines
from tasks.documents.chapters.marks import find_marks
from tasks.documents.chapters.model import Kind, Mark, Section
from tasks.documents.chapters.outline import Outline, outline_by_numbers
from tasks.documents.chapters.titles import clean_title, find_title
from tasks.documents.model import Heading

MISSED_OPENING = 300  # words before "Chapter 2" that are chapter 1 without its heading

MOST_CHAPTERS = 2_000  # more is a list or an accident, not a book


def find_chapters(text: str, headings: Sequence[Heading] = ()) -> list[Section]:
    """The sections of a text in order of where they start, parts before the chapters they span.

    Every text with words has at least one chapter; `found_by` and `confidence` say how far to trust it.
    """
    lines = Lines(text)
    if not lines.all:
        return []
    span = find_licence(text)
    if not lines.words_between(*span):
        span = (0, len(text))
    marks = [m for m in find_marks(lines, headings) if span[0] <= m.start < span[1]]
    outline = _find_outline(lines, drop_contents(lines, marks), span)
    return _Sections(lines, outline, span).build()


def _find_outline(lines: Lines, marks: list[Mark], span: tuple[int, int]) -> Outline:
    for way in (outline_by_numbers, outline_by_structure, outline_by_names, outline_by_scenes):
        outline = way(lines, marks, span)
        if outline and len(outline.chapters) <= MOST_CHAPTERS:
            return outline
    return outline_by_length(lines, marks, span)


class _Sections:
    """Turns an outline into sections that follow one another without a gap."""

    def __init__(self, lines: Lines, outline: Outline, span: tuple[int, int]) -> None:
        self.lines, self.outline, self.span = lines, outline, span

    def build(self) -> list[Section]:
        sections = self._leaves() + self._licence()
        sections += [self._part(mark, sections) for mark in self.outline.parts]
        return sorted(sections, key=lambda s: (s.start, -s.end))

    def _leaves(self) -> list[Section]:
        kinds: list[tuple[Mark, Kind]] = [(m, "chapter") for m in self.outline.chapters]
        kinds += [(m, "front") for m in self.outline.front] + [(m, "back") for m in self.outline.back]
        kinds.sort(key=lambda pair: pair[0].start)
        bounds = sorted({m.start for m, _ in kinds} | {m.start for m in self.outline.parts} | {self.span[1]})
        leaves = []
        for mark, kind in kinds:
            end = next(b for b in bounds if b > mark.start)
            leaves.append(self._section(mark, kind, end))
        return self._opening(bounds[0]) + leaves

    def _section(self, mark: Mark, kind: Kind, end: int) -> Section:
        outline = self.outline
        if mark.start == mark.end:
            title, body = "", mark.start
        elif mark.role in ("front", "back", "end"):
            title, body = "", min(self.lines.next_start(mark.end), end)
        else:
            title, body = find_title(self.lines, mark, end)
        return Section(
            kind=kind,
            number=mark.number,
            title=name_section(mark, title),
            start=mark.start,
            body=min(body, end),
            end=end,
            found_by=outline.found_by,
            confidence=outline.confidence,
        )

    def _opening(self, first: int) -> list[Section]:
        """What lies before the first heading: a title page, or a first chapter whose heading is missing."""
        start = self.lines.next_start(self.span[0])
        words = self.lines.words_between(start, first)
        if start >= first or not words:
            return []
        numbered = next((m for m in self.outline.chapters if m.number), None)
        missed = words >= MISSED_OPENING and numbered is not None and numbered.number == 2
        return [
            Section(
                kind="chapter" if missed else "front",
                number=1 if missed else None,
                title="Opening" if missed else "Front matter",
                start=start,
                body=start,
                end=first,
                found_by="position",
                confidence=0.6,
            )
        ]

    def _licence(self) -> list[Section]:
        start, end = self.span
        whole = len(self.lines.text)
        around: list[tuple[Kind, int, int]] = [("front", 0, start), ("back", end, whole)]
        return [
            Section(
                kind=kind,
                number=None,
                title="Distributor's licence",
                start=a,
                body=a,
                end=b,
                found_by="licence",
                confidence=0.99,
            )
            for kind, a, b in around
            if self.lines.words_between(a, b)
        ]

    def _part(self, mark: Mark, sections: list[Section]) -> Section:
        """A part spans from its heading to the next heading of its kind, or to the back matter."""
        families = {m.family for m in self.outline.parts if m.rank < 3}
        others = [m for m in self.outline.chapters if m.family in families]  # parts that are one chapter
        later = [m.start for m in [*self.outline.parts, *others] if m.start > mark.start]
        back = [s.start for s in sections if s.kind == "back" and s.start > mark.start]
        end = min([*later, *back, self.span[1]])
        title, body = find_title(self.lines, mark, min([*(s.start for s in sections if s.start > mark.start), end]))
        return Section(
            kind="part",
            number=mark.number,
            title=name_section(mark, title),
            start=mark.start,
            body=body,
            end=end,
            found_by=self.outline.found_by,
            confidence=self.outline.confidence,
        )


def name_section(mark: Mark, title: str) -> str:
    """The heading as a reader would say it: "Chapter 3: The Inn", "First Narrative", "Prologue"."""
    label = mark.label or (f"Chapter {mark.number}" if mark.number else "")
    label = clean_title(mark.title) if mark.rank == 3 else label
    return ": ".join(part for part in (label, title) if part)
