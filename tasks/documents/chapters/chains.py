"""Which marks of one family count 1, 2, 3… with restarts: the vote that tells headings from accidents."""

from __future__ import annotations

import itertools
from dataclasses import replace

from tasks.documents.chapters.lines import Lines
from tasks.documents.chapters.marks import LAST
from tasks.documents.chapters.model import Mark

_NEXT, _SKIP, _RESTART, _BREAK = 1.0, 0.2, 0.6, -1.5
LARGEST_SKIP = 3
_SHORTEST_PAGE = 450  # words between bare numbers that may be page numbers


def keep_chain(marks: list[Mark]) -> list[Mark]:
    """The best-counting subsequence of one family's marks, in order. Quadratic only in a short window."""
    marks = _number_last(_drop_repeats(marks))
    best: list[float] = []
    back: list[int] = []
    for i, mark in enumerate(marks):
        score, source = _open(mark), -1
        for j in range(max(0, i - 60), i):
            candidate = best[j] + _link(marks[j], mark)
            if candidate > score:
                score, source = candidate, j
        best.append(score)
        back.append(source)
    return _walk_back(marks, best, back)


def count_links(marks: list[Mark]) -> int:
    """How many marks follow their predecessor's number by one."""
    return sum(1 for a, b in itertools.pairwise(marks) if b.number == (a.number or 0) + 1)


def is_page_numbering(lines: Lines, marks: list[Mark]) -> bool:
    """Whether bare numbers are pages: evenly near each other, and standing in the middle of sentences."""
    if len(marks) < 5 or marks[0].family != "bare:arabic":
        return False
    gaps = sorted(lines.words_between(a.end, b.start) for a, b in itertools.pairwise(marks))
    broken = sum(1 for mark in marks[1:] if not _ends_sentence(lines, mark))
    median = gaps[len(gaps) // 2]
    return broken > 0.3 * len(marks) or (median < _SHORTEST_PAGE and gaps[-1] < 1.6 * median)


def _open(mark: Mark) -> float:
    return 1.0 if mark.number == 1 else 0.3 if (mark.number or 0) <= LARGEST_SKIP else -0.5


def _link(a: Mark, b: Mark) -> float:
    step = (b.number or 0) - (a.number or 0)
    if step == 1:
        return _NEXT
    if 1 < step <= LARGEST_SKIP:
        return _SKIP
    if b.number == 1:
        return _RESTART
    return _BREAK


def _walk_back(marks: list[Mark], best: list[float], back: list[int]) -> list[Mark]:
    if not marks:
        return []
    i = max(range(len(marks)), key=lambda k: best[k])
    chain = []
    while i >= 0:
        chain.append(marks[i])
        i = back[i]
    return chain[::-1]


def _drop_repeats(marks: list[Mark]) -> list[Mark]:
    """Running heads repeat a heading on each page: the first one counts."""
    kept: list[Mark] = []
    for mark in marks:
        if not kept or (mark.number, mark.title.lower()) != (kept[-1].number, kept[-1].title.lower()):
            kept.append(mark)
    return kept


def _number_last(marks: list[Mark]) -> list[Mark]:
    numbered: list[Mark] = []
    for mark in marks:
        if mark.number == LAST:
            mark = replace(mark, number=(numbered[-1].number or 0) + 1 if numbered else None)
        if mark.number is not None:
            numbered.append(mark)
    return numbered


def _ends_sentence(lines: Lines, mark: Mark) -> bool:
    before = lines.all[mark.line - 1].text if mark.line else "."
    return before.rstrip("\"'”’»)_*] ").endswith((".", "!", "?", "…", ":", "—", "--", "*")) or before.isupper()
