"""Chapters of a text that does not number them: by its structure, by names, by scene breaks, and at last by length."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable

from tasks.documents.chapters.contents import bare_title, find_titles
from tasks.documents.chapters.lines import Lines
from tasks.documents.chapters.marks import looks_titled
from tasks.documents.chapters.model import Line, Mark
from tasks.documents.chapters.outline import Outline, outline_by

SHORTEST_CHAPTER = 250  # words, as the median between two unnumbered headings
LONGEST_NAME = 10
CHUNK = 3_000  # words
SHORTEST_SCENE = 200
SCENE_BREAK = re.compile(r"(?:[*#~•·⁂§—–_=-]\s*){1,9}|\[?(?:scene|section) break\]?", re.IGNORECASE)


def outline_by_structure(lines: Lines, marks: list[Mark], span: tuple[int, int]) -> Outline | None:
    """Headings that the format marks: the level whose stretches are as long as chapters are."""
    apart = {m.start for m in marks if m.role in ("front", "back", "end")}
    found = [m for m in marks if m.family == "structure" and m.start not in apart]
    for level, count in sorted(Counter(m.level for m in found).items()):
        level_marks = [m for m in found if m.level == level]
        deeper = [m for m in found if m.level == level + 1]
        if count < 2 or _median_gap(lines, level_marks, span[1]) < 2 * LONGEST_NAME:
            continue
        if len(deeper) >= 2 * count and _median_gap(lines, deeper, span[1]) >= 4 * SHORTEST_CHAPTER:
            continue
        return outline_by(marks, level_marks, "structure", 0.9 if count > 2 else 0.75)
    return None


def outline_by_names(lines: Lines, marks: list[Mark], span: tuple[int, int]) -> Outline | None:
    """Lines set apart like titles, three or more of one look, as far from each other as chapters are."""
    listed = find_titles(lines)
    apart = {m.start for m in marks if m.role in ("front", "back", "end")}
    candidates = [line for line in _inside(lines, span) if _looks_named(line) and line.start not in apart]
    for look in (_is_listed(listed), _is_capitals, _is_spaced):
        chosen = _drop_close(lines, [line for line in candidates if look(line)])
        named = [_name(line) for line in chosen]
        if len(named) >= 3 and _median_gap(lines, named, span[1]) >= SHORTEST_CHAPTER:
            return outline_by(marks, named, "names", 0.85 if look is not _is_capitals and listed else 0.6)
    return None


def outline_by_scenes(lines: Lines, marks: list[Mark], span: tuple[int, int]) -> Outline | None:
    """Stretches between scene breaks, none shorter than a scene."""
    starts = [span[0]]
    for line in _inside(lines, span):
        if is_scene_break(line) and lines.words_between(starts[-1], line.start) >= SHORTEST_SCENE:
            starts.append(lines.next_start(line.end))
    if lines.words_between(starts[-1], span[1]) < SHORTEST_SCENE:
        starts.pop()
    if len(starts) < 3:
        return None
    return outline_by(marks, [_cut(lines, start, n, "Scene") for n, start in enumerate(starts, 1)], "scene breaks", 0.4)


def outline_by_length(lines: Lines, marks: list[Mark], span: tuple[int, int]) -> Outline:
    """Stretches of about the same length, cut between paragraphs; one stretch when the text is short."""
    words = lines.words_between(*span)
    count = max(1, round(words / CHUNK))
    starts, due = [span[0]], words / count
    base = lines.words_before(span[0])
    for line in _inside(lines, span):
        if line.opens and line.words - base >= due * len(starts) and len(starts) < count:
            starts.append(line.start)
    if len(starts) == 1:
        whole = _cut(lines, span[0], None, "Whole text")
        return outline_by(marks, [whole], "whole text", 0.9 if words < CHUNK else 0.2)
    return outline_by(marks, [_cut(lines, start, n, "Stretch") for n, start in enumerate(starts, 1)], "chunks", 0.2)


def is_scene_break(line: Line) -> bool:
    """Whether a line is an ornament that parts two scenes."""
    return line.opens and line.closes and len(line.text) <= 24 and bool(SCENE_BREAK.fullmatch(line.text))


def _inside(lines: Lines, span: tuple[int, int]) -> list[Line]:
    return lines.all[lines.at(span[0]) : lines.at(span[1])]


def _looks_named(line: Line) -> bool:
    if not (line.opens and line.closes) or len(line.text) > 80 or len(line.text.split()) > LONGEST_NAME:
        return False
    text = line.text.strip("*_# ")
    if not text or text[0] in "\"“‘'«([—–-" or text.endswith((".", ",", ";", ":", '"', "”", "—", "--")):
        return False
    return looks_titled(text)


def _is_listed(titles: set[str]) -> Callable[[Line], bool]:
    return lambda line: bare_title(line.text) in titles


def _is_capitals(line: Line) -> bool:
    return line.text.isupper() and len(line.text) > 3


def _is_spaced(line: Line) -> bool:
    return line.gap >= 2


def _drop_close(lines: Lines, chosen: list[Line]) -> list[Line]:
    """Of headings with next to nothing between them the last one counts: the others are a list or a title page."""
    following = [*chosen[1:], None]
    enough = SHORTEST_CHAPTER // 5
    return [a for a, b in zip(chosen, following, strict=False) if b is None or b.words - a.words >= enough]


def _name(line: Line) -> Mark:
    title = line.text.strip("*_# ")
    return Mark(line.index, line.start, line.end, "name", None, "", title, 3, True)


def _cut(lines: Lines, start: int, number: int | None, label: str) -> Mark:
    """A mark without a heading: its text begins where it begins."""
    return Mark(lines.at(start) - 1, start, start, "cut", number, f"{label} {number}" if number else label, "", 2, True)


def _median_gap(lines: Lines, marks: list[Mark], end: int) -> int:
    bounds = [m.start for m in marks] + [end]
    gaps = sorted(lines.words_between(a, b) for a, b in itertools.pairwise(bounds))
    return gaps[len(gaps) // 2] if gaps else 0
