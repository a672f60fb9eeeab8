"""Paragraphs rebuilt from lines: by indents, gaps, letter sizes, and lines that end before they had to."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import median

from tasks.documents.pdf_lines import Line, Page, most_common

_CHAPTER = re.compile(r"^(?:chapter|part|book|prologue|epilogue)\b[^.!?]{0,60}[.:]?$", re.I)
_SENTENCE_END = re.compile(r"[.!?…:;。！？][\"'”’»)\]*]*$|[”»]$|^\W+$")
_GAP = 1.4
_SCENE_GAP = 1.9
_TALLER = 1.15


@dataclass
class Paragraph:
    """Lines that belong together, the page they begin on, and whether a wide gap stands before them."""

    lines: list[Line]
    page: int
    after_gap: bool


@dataclass(frozen=True)
class _Column:
    """A run of lines down one page, with the edges that full lines reach. Parts of one run share its `number`."""

    lines: list[Line]
    page: int
    measured: bool
    number: int = 0
    left: float = 0.0
    right: float = 0.0


@dataclass(frozen=True)
class _Style:
    """Habits of the whole document: distance between lines, whether paragraphs are told by indents."""

    leading: float | None
    indents: bool


def rebuild(pages: list[Page]) -> list[Paragraph]:
    """The document's paragraphs, joined across columns and pages."""
    runs = [column for number, page in enumerate(pages) for column in _columns(number, page)]
    columns = _with_edges(runs)
    style = _Style(_leading(runs), _uses_indents(columns))
    result: list[Paragraph] = []
    before: tuple[Line, _Column] | None = None
    for line, column in _lines(columns):
        starts, gap = (True, False) if before is None else _compare(*before, line, column, style)
        if starts:
            result.append(Paragraph([line], column.page, gap))
        else:
            result[-1].lines.append(line)
        before = line, column
    return result


def _lines(columns: list[_Column]) -> Iterator[tuple[Line, _Column]]:
    for column in columns:
        for line in column.lines:
            yield line, column


def _compare(last: Line, last_column: _Column, line: Line, column: _Column, style: _Style) -> tuple[bool, bool]:
    """Whether `line` begins a paragraph, and whether a wide gap stands before it."""
    crosses = last_column.number != column.number
    if not crosses:
        distance = (line.down - last.down) / style.leading if style.leading else 1.0
        # The white around a heading is no scene break.
        gap = distance > _SCENE_GAP and not _differs(last, line, column)
        if distance > _GAP * max(1.0, line.size / _usual(last, line)):
            return True, gap
    if _differs(last, line, column):
        return True, False
    if last.hyphen:
        return False, False
    if _CHAPTER.match(line.text) or _CHAPTER.match(last.text):
        return True, False
    if _is_indented(line, column) and not _continues_indented(last, last_column, line, column):
        return True, False
    if _ends_early(last, last_column, line):
        return _SENTENCE_END.search(last.text) is not None or not line.text[:1].islower(), False
    return crosses and not style.indents and _SENTENCE_END.search(last.text) is not None, False


def _usual(last: Line, line: Line) -> float:
    return min(last.size, line.size) or 1.0


def _differs(last: Line, line: Line, column: _Column) -> bool:
    """Headings and notes are set larger or smaller than the text."""
    if not column.measured or not last.size:
        return False
    return not 1 / _TALLER < line.size / last.size < _TALLER


def _is_indented(line: Line, column: _Column) -> bool:
    return line.left - column.left > (0.5 * line.size if column.measured else 1.5)


def _continues_indented(last: Line, last_column: _Column, line: Line, column: _Column) -> bool:
    """Centred lines that share their middle, or lines set in that share their edge, and run on from full lines."""
    same_edge = abs((last.left - last_column.left) - (line.left - column.left)) < 0.3 * line.size
    if _is_centred(last, last_column):
        same_edge = abs(last.left + last.right - line.left - line.right) < 0.6 * line.size
    runs_on = line.text[:1].islower() or not _ends_early(last, last_column, line)
    return same_edge and runs_on and not _SENTENCE_END.search(last.text)


def _is_centred(line: Line, column: _Column) -> bool:
    off = abs(line.left + line.right - column.left - column.right)
    return column.measured and _is_indented(line, column) and off < 0.6 * line.size


def _ends_early(last: Line, column: _Column, line: Line) -> bool:
    """Whether the next line's first word would have fitted: then the writer, not the margin, ended the line."""
    word = line.text.split(maxsplit=1)[0] if line.text else ""
    letter = last.width / max(1, len(last.text)) if len(last.text) > 5 else 0.5 * last.size
    slack = 1.05 if column.measured else 1.6
    return last.right + slack * letter * (len(word) + 1) < column.right


def _columns(number: int, page: Page) -> Iterator[_Column]:
    """Runs of lines that go down the page; a line that stands higher than the one before begins a new run."""
    run: list[Line] = []
    for line in page.lines:
        if run and line.down < run[-1].down - 0.5 * line.size:
            yield _Column(run, number, page.measured)
            run = []
        run.append(line)
    if run:
        yield _Column(run, number, page.measured)


def _with_edges(columns: list[_Column]) -> list[_Column]:
    """Columns with their margins; short ones borrow from the document's usual ones."""
    lefts = Counter(round(_left(column)) for column in columns if len(column.lines) >= 5)
    widths = [_right(column) - _left(column) for column in columns if len(column.lines) >= 5]
    width = median(widths) if widths else 0.0
    result: list[_Column] = []
    for number, column in enumerate(columns):
        left = _usual_left(_left(column), lefts)
        right = _right(column) if len(column.lines) >= 5 else max(_right(column), left + width)
        result += _insets(replace(column, number=number, left=left, right=right))
    return result


def _insets(column: _Column) -> Iterator[_Column]:
    """A column, with blocks set in from both margins (letters, quotations) as columns of their own."""
    run: list[Line] = []
    for line in [*column.lines, None]:
        if line is not None and (not run or abs(line.left - run[-1].left) < 1):
            run.append(line)
            continue
        left, right = _inset_edges(run, column) or (column.left, column.right)
        yield replace(column, lines=run, left=left, right=right)
        run = [] if line is None else [line]


def _inset_edges(run: list[Line], column: _Column) -> tuple[float, float] | None:
    """The edges of a block set in on both sides, None for ordinary lines: a block is justified, talk is not."""
    left, right = run[0].left, max(line.right for line in run)
    inset = column.measured and left - column.left > run[0].size and column.right - right > run[0].size
    full = sum(1 for line in run[:-1] if right - line.right < 0.06 * (right - left))
    return (left, right) if inset and len(run) > 3 and full * 3 >= 2 * (len(run) - 1) else None


def _usual_left(left: float, lefts: Counter[int]) -> float:
    """The margin a column hangs on: its own when usual, else a usual one a little further left."""
    near = [edge for edge, count in lefts.items() if -2 <= left - edge <= 60 and count > 1]
    if not near or any(abs(left - edge) <= 2 for edge in near):
        return left
    return float(max(near, key=lambda edge: lefts[edge]))


def _left(column: _Column) -> float:
    """The leftmost edge that more than a stray line has."""
    edges = Counter(round(line.left) for line in column.lines)
    enough = max(1, len(column.lines) // 10)
    return float(min(edge for edge, count in edges.items() if count >= enough or len(edges) == len(column.lines)))


def _right(column: _Column) -> float:
    edges = sorted(line.right for line in column.lines)
    # Without measures a line of narrow letters counts as long, so the very longest lines tell little.
    return edges[-1] if column.measured else edges[int(0.9 * (len(edges) - 1))]


def _leading(columns: list[_Column]) -> float | None:
    """The usual distance from line to line."""
    steps = [
        line.down - last.down
        for column in columns
        for last, line in zip(column.lines, column.lines[1:], strict=False)
        if line.down > last.down
    ]
    return most_common(steps, 0.5)


def _uses_indents(columns: list[_Column]) -> bool:
    """Whether first lines are set in: at least one line in fifty is, where full lines are at the margin."""
    lines = list(_lines(columns))
    return sum(_is_indented(line, column) for line, column in lines) * 50 > len(lines)
