"""Tables of contents: headings listed with next to nothing between them."""

from __future__ import annotations

import re
from itertools import groupby

from tasks.documents.chapters.lines import Lines
from tasks.documents.chapters.model import Mark
from tasks.documents.chapters.names import is_contents

FEWEST_WORDS = 40  # fewer between two headings of one kind is a list, not a chapter
SHORTEST_LIST = 3
_LEADER = re.compile(r"(?:\.\s*){4,}\d*\s*$|(?:…\s*)+\d+\s*$|\t+\d+\s*$| {4,}\d+\s*$")

Region = tuple[int, int]


def drop_contents(lines: Lines, marks: list[Mark]) -> list[Mark]:
    """The marks that are not entries of a table of contents or of another list."""
    regions = _find_regions(lines, marks)
    last_seen = {_identity(m): m.start for m in marks}
    kept = [m for m in marks if not _is_listed(lines, m, regions, last_seen)]
    return kept if any(m.alone for m in kept) else marks


def find_titles(lines: Lines) -> set[str]:
    """The lines of a table of contents under its own heading, as bare lower-case titles."""
    for line in lines.all:
        if is_contents(line.text) and line.opens and line.closes:
            return {bare_title(entry.text) for entry in lines.all[line.index + 1 : line.index + 150]} - {""}
    return set()


def bare_title(text: str) -> str:
    """A title without leaders, page number, case and punctuation, to compare two settings of it."""
    text = re.sub(r"(?:\s*[.…·]){2,}\s*\d*\s*$|\s+\d+\s*$", "", text)
    return " ".join(re.findall(r"\w+", text.lower()))


def _find_regions(lines: Lines, marks: list[Mark]) -> list[Region]:
    regions: list[Region] = []
    by_family = sorted(marks, key=lambda m: (m.family, m.start))
    for family, group in groupby(by_family, key=lambda m: m.family):
        if family not in ("name", "structure"):
            regions += _find_lists(lines, list(group))
    return _merge(regions)


def _find_lists(lines: Lines, marks: list[Mark]) -> list[Region]:
    """Stretches in which marks of one family count upwards with too little between them."""
    regions, first = [], 0
    for after in range(1, len(marks) + 1):
        if after < len(marks) and _follow_at_once(lines, marks[after - 1], marks[after]):
            continue
        end, restarts = _find_list_end(marks, first, after - 1)
        if end - first >= (SHORTEST_LIST - 1 if restarts else SHORTEST_LIST):
            regions.append((marks[first].start, marks[end - 1].end))
        first = after
    return regions


def _follow_at_once(lines: Lines, a: Mark, b: Mark) -> bool:
    if lines.words_between(a.end, b.start) >= FEWEST_WORDS:
        return False
    return b.number == (a.number or 0) + 1 or b.number == 1


def _find_list_end(marks: list[Mark], first: int, last: int) -> tuple[int, bool]:
    """Where the list in marks[first..last] ends (exclusive), and whether the numbers begin again after it."""
    if last > first and marks[last].number == 1:
        return last, True  # the last one is the first real heading
    if last + 1 < len(marks) and marks[last + 1].number == marks[first].number:
        return last + 1, True  # other front matter stands between the list and the first real heading
    return last, False


def _merge(regions: list[Region]) -> list[Region]:
    merged: list[Region] = []
    for start, end in sorted(regions):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _is_listed(lines: Lines, mark: Mark, regions: list[Region], last_seen: dict[tuple[str, object], int]) -> bool:
    if _LEADER.search(lines.all[mark.line].text[-80:]):
        return True
    # The part or prologue at either edge of a list belongs to it when it is said again later.
    recurs = mark.rank in (0, 3) and last_seen[_identity(mark)] > mark.start
    for start, end in regions:
        if start <= mark.start <= end:
            return True
        gap = (mark.end, start) if mark.end <= start else (end, mark.start)
        if recurs and lines.words_between(*gap) < FEWEST_WORDS // 2:
            return True
    return False


def _identity(mark: Mark) -> tuple[str, object]:
    return mark.family, mark.number if mark.number is not None else mark.title.lower()
