"""Running heads, running feet and page numbers: found by what repeats, taken away without eating chapter headings.

A line at a page's edge goes when neighbouring pages have the same line at the same place, or the same line but for
numbers that move on with the pages. What could be a chapter heading stays where it is first seen.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.documents.pdf_lines import Line, Page

_EDGE = 3
_NEIGHBOURS = 4
_SAME_PLACE = 3.0
_NUMBER = re.compile(r"\d+")
_ROMAN_FOLIO = re.compile(r"^[ \-–—\[(]*([ivxlc]+)[ \-–—\])]*$")
_CHAPTER = re.compile(
    r"^\W*(?:(?:chapter|part|book|volume|section|act|scene|canto|letter|kapitel|chapitre|cap[ií]tulo|capitolo)\b.{0,80}"
    r"|(?:prologue|epilogue|preface|foreword|introduction|interlude|afterword)\W*|[IVXLC]+\W*)$",
    re.I,
)
_BARE_UPPER_ROMAN = re.compile(r"^\W*[IVXLC]+\W*$")


@dataclass(frozen=True)
class _Mark:
    """A line at the edge of a page, with its numbers taken out."""

    page: int
    position: int
    line: Line
    pattern: str
    numbers: tuple[int, ...]
    outermost: bool


def strip_heads(pages: list[Page]) -> list[Page]:
    """The same pages without running heads, feet and page numbers."""
    marks = [_marks(number, page) for number, page in enumerate(pages)]
    body = _body_size(pages)
    seen: set[str] = set()
    result = []
    for number, page in enumerate(pages):
        heads = set()
        for mark in marks[number]:
            if _is_head(mark, marks, pages) and not _is_heading(mark, seen, body):
                heads.add(mark.position)
            seen.add(mark.line.text.casefold())
        dropped = _at_edges(range(len(page.lines)), heads) | _at_edges(_by_place(page), heads)
        kept = [line for position, line in enumerate(page.lines) if position not in dropped]
        result.append(Page(kept, page.measured))
    return result


def _at_edges(order: Sequence[int], heads: set[int]) -> set[int]:
    """Those heads that nothing else stands outside of: a refrain inside the text is no running head."""
    before = itertools.takewhile(heads.__contains__, order)
    after = itertools.takewhile(heads.__contains__, reversed(order))
    return {*before, *after}


def _by_place(page: Page) -> list[int]:
    """Positions of lines from the top of the page to its bottom."""
    positions = list(range(len(page.lines)))
    return sorted(positions, key=lambda position: page.lines[position].down) if page.measured else positions


def _marks(number: int, page: Page) -> list[_Mark]:
    """Lines at the edges of one page: the first and last as read, and the highest and lowest as printed."""
    lines = page.lines
    count = len(lines)
    by_place = _by_place(page)
    outer = {by_place[0], by_place[-1]} if by_place else set()
    edge = {*range(min(_EDGE, count)), *range(max(0, count - _EDGE), count), *by_place[:2], *by_place[-2:]}
    return [_mark(number, position, lines[position], position in outer) for position in sorted(edge)]


def _mark(number: int, position: int, line: Line, outermost: bool) -> _Mark:
    text = " ".join(line.text.casefold().split())
    roman = _ROMAN_FOLIO.match(line.text)
    if roman is not None:
        return _Mark(number, position, line, "#roman", (_roman(roman[1]),), outermost)
    numbers = tuple(int(value[:9]) for value in _NUMBER.findall(text))
    return _Mark(number, position, line, _NUMBER.sub("#", text), numbers, outermost)


def _is_head(mark: _Mark, marks: list[list[_Mark]], pages: list[Page]) -> bool:
    """Two repetitions on neighbouring pages are enough; one is, when both stand outermost at the same height."""
    found = 0
    measured = pages[mark.page].measured
    for number in range(max(0, mark.page - _NEIGHBOURS), min(len(marks), mark.page + _NEIGHBOURS + 1)):
        if number == mark.page or pages[number].lines == pages[mark.page].lines:
            # A page that is there twice says nothing about what is at its edges.
            continue
        twin = next((other for other in marks[number] if _repeats(mark, other, measured)), None)
        if twin is not None:
            found += 2 if measured and mark.outermost and twin.outermost and abs(number - mark.page) <= 2 else 1
    return found >= 2


def _repeats(mark: _Mark, other: _Mark, measured: bool) -> bool:
    if mark.pattern != other.pattern or not _numbers_follow(mark, other):
        return False
    line, twin = mark.line, other.line
    return not measured or (abs(line.down - twin.down) < _SAME_PLACE and 0.9 < line.size / twin.size < 1.1)


def _numbers_follow(mark: _Mark, other: _Mark) -> bool:
    """Each number stands still or moves with the pages; a number alone, or a chapter's, must do what is its nature."""
    apart = other.page - mark.page
    steps = [theirs - ours for ours, theirs in zip(mark.numbers, other.numbers, strict=True)]
    if _CHAPTER.match(mark.line.text) and mark.pattern != "#roman":
        return not any(steps)
    if not re.sub(r"#roman|\W", "", mark.pattern):
        return apart in steps
    return all(step in (0, apart) for step in steps)


def _is_heading(mark: _Mark, seen: set[str], body: float | None) -> bool:
    """Whether a repeated line may yet be a heading: met for the first time and looking like one."""
    if mark.line.text.casefold() in seen or mark.pattern == "#roman":
        return False
    large = body is not None and mark.line.size > 1.3 * body and mark.numbers != ()
    return large or bool(_CHAPTER.match(mark.line.text)) or bool(_BARE_UPPER_ROMAN.match(mark.line.text))


def _body_size(pages: list[Page]) -> float | None:
    sizes: Counter[float] = Counter()
    for page in pages:
        for line in page.lines if page.measured else ():
            sizes[line.size] += len(line.text)
    return sizes.most_common(1)[0][0] if sizes else None


def _roman(text: str) -> int:
    values = [{"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}[letter] for letter in text]
    following = [*values[1:], 0]
    return sum(-value if value < after else value for value, after in zip(values, following, strict=True))
