"""From marks to an outline: which of them head chapters, which head parts, and what lies before and after.

Families of marks are weighed by what they call themselves (chapters, parts), by how well they count, and by how they
nest. A part, a prologue or an epilogue is a *holder*: numbered marks inside it are its chapters, and without any it
is one itself.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass, replace

from tasks.documents.chapters.chains import count_links, is_page_numbering, keep_chain
from tasks.documents.chapters.lines import Lines
from tasks.documents.chapters.model import Mark

NEAR = 60  # words between a part's heading and its first chapter
INTRODUCTION = 150  # words under a part's heading that are a chapter of their own
SHORTEST = 20  # words; a holder with fewer and nothing inside is no chapter


@dataclass(frozen=True)
class Outline:
    """Marks in their roles, each in order; `found_by` and `confidence` of the chapters."""

    chapters: list[Mark]
    parts: list[Mark]
    front: list[Mark]
    back: list[Mark]
    found_by: str
    confidence: float


def find_chains(lines: Lines, marks: list[Mark]) -> dict[str, list[Mark]]:
    """The families that count: at least two marks in a row, bare ones at least three unless headed by structure."""
    families: dict[str, list[Mark]] = defaultdict(list)
    for mark in marks:
        if mark.alone and mark.number is not None:
            families[mark.family].append(mark)
    chains = {}
    for family, found in families.items():
        chain = keep_chain(found)
        if not _counts(chain) or is_page_numbering(lines, chain):
            continue
        chains[family] = chain
    return chains


def _counts(chain: list[Mark]) -> bool:
    if len(chain) < 2 or count_links(chain) < 0.3 * (len(chain) - 1):
        return False
    weak = not chain[0].family.startswith("noun:") and not all(mark.level for mark in chain)
    return not weak or (len(chain) >= 3 and (chain[0].number or 9) <= 2)


def choose_main(lines: Lines, chains: dict[str, list[Mark]]) -> list[Mark]:
    """The chain that numbers the chapters: a word for chapters first, then the longest, parts last."""
    for rank in (1, 2, 0):
        ranked = [chain for chain in chains.values() if chain[0].rank == rank]
        if ranked:
            return max(ranked, key=lambda chain: (count_links(chain), not chain[0].family.startswith("bare")))
    return []


def outline_by_numbers(lines: Lines, marks: list[Mark], span: tuple[int, int]) -> Outline | None:
    """The outline that numbered headings give inside `span`; None when nothing counts."""
    chains = find_chains(lines, marks)
    main = choose_main(lines, chains)
    if not main:
        return None
    holders = _find_holders(lines, marks, chains, main)
    chapters, parts = _fill(lines, chains, main, holders, span)
    chapters += _named_beside(marks, chapters, main)
    chapters.sort(key=lambda m: m.start)
    first, last = chapters[0].start, chapters[-1].start
    front = [m for m in marks if m.role == "front" and m.start < min([first, *(p.start for p in parts)])]
    back = _find_back(marks, last)
    structured = sum(1 for m in chapters if m.level) / len(chapters)
    return Outline(chapters, parts, front, back, "numbers", _confidence(main, structured))


def _confidence(main: list[Mark], structured: float) -> float:
    """Between .5 and .99: how many headings follow each other by one or begin again, and whether they have a style."""
    steps = list(itertools.pairwise(main))
    regular = sum(1 for a, b in steps if b.number in ((a.number or 0) + 1, 1)) / max(1, len(steps))
    strength = 0.9 if main[0].rank == 1 else 0.8
    return round(min(0.99, strength * regular + 0.09 * structured + 0.05 * min(1, len(main) / 5)), 2)


def _find_holders(lines: Lines, marks: list[Mark], chains: dict[str, list[Mark]], main: list[Mark]) -> list[Mark]:
    """Part headings, and prologues, epilogues and their like."""
    holders = {m.start: m for m in marks if m.role == "chapter" and m.alone}
    for chain in _single_parts(marks) + list(chains.values()):
        if chain[0].family != main[0].family and (chain[0].rank == 0 or _opens_runs(lines, chain, main)):
            holders |= {m.start: m for m in chain}
    known = {m.family for m in holders.values()}
    taken = {m.start for m in main}
    # One more of a family of holders that its chain left out: "Second Epilogue" after "First Epilogue".
    holders |= {m.start: m for m in marks if m.alone and m.family in known and m.rank < 3}
    return [holders[start] for start in sorted(holders) if start not in taken]


def _single_parts(marks: list[Mark]) -> list[list[Mark]]:
    """Part headings that have no second of their kind."""
    families: dict[str, list[Mark]] = defaultdict(list)
    for mark in marks:
        if mark.alone and mark.rank == 0 and mark.number == 1:
            families[mark.family].append(mark)
    return [found for found in families.values() if len(found) == 1]


def _opens_runs(lines: Lines, chain: list[Mark], main: list[Mark]) -> bool:
    """Whether marks of this chain stand right above the first chapter of a run, at least twice."""
    firsts = [m.start for m in main if m.number == 1]
    near = sum(1 for m in chain if any(s - m.start > 0 and lines.words_between(m.end, s) <= NEAR for s in firsts))
    return near >= 2


def _fill(
    lines: Lines, chains: dict[str, list[Mark]], main: list[Mark], holders: list[Mark], span: tuple[int, int]
) -> tuple[list[Mark], list[Mark]]:
    """Walk the holders and give each its chapters, or make it one."""
    chapters, parts = _fill_root(lines, chains, main, holders, span)
    for here, after in zip(holders, [*holders[1:], None], strict=False):
        end = after.start if after else span[1]
        inside = _chapters_inside(lines, chains, main, here, end)
        if not inside:
            thin = lines.words_between(here.end, end) < SHORTEST
            (parts if thin else chapters).append(here)
            continue
        opening = lines.words_between(here.end, inside[0].start)
        if here.rank == 3 or opening > INTRODUCTION:
            (chapters if opening > NEAR else parts).append(here)
        else:
            parts.append(here)
        chapters += inside
    return chapters, parts


def _fill_root(
    lines: Lines, chains: dict[str, list[Mark]], main: list[Mark], holders: list[Mark], span: tuple[int, int]
) -> tuple[list[Mark], list[Mark]]:
    """The chapters above the first holder, with those of another family that come before the main ones."""
    end = holders[0].start if holders else span[1]
    inside = _within(main, span[0], end)
    first = inside[0].start if inside else end
    others = [c for c in chains.values() if c[0].family != main[0].family and c[0].rank == 1]
    before = [chain for other in others if len(chain := _within(other, span[0], first)) >= 2]
    return [*max(before, key=len, default=[]), *inside], []


def _chapters_inside(
    lines: Lines, chains: dict[str, list[Mark]], main: list[Mark], holder: Mark, end: int
) -> list[Mark]:
    found = _within(main, holder.end, end)
    if found and holder.rank < 3:
        return found
    end = found[0].start if found else end
    others = [keep_chain(_within(c, holder.end, end)) for c in chains.values() if c[0].family != main[0].family]
    runs = [c for c in others if len(c) >= 2 and (c[0].number or 9) <= 2 and c[0].rank > 0]
    return [*max(runs, key=len, default=[]), *found]


def _within(chain: list[Mark], start: int, end: int) -> list[Mark]:
    return [m for m in chain if start <= m.start < end]


def _named_beside(marks: list[Mark], chapters: list[Mark], main: list[Mark]) -> list[Mark]:
    """Headings without a number that the document sets at the level of its chapters."""
    levels = {m.level for m in main}
    if levels == {0} or len(levels) > 1:
        return []
    taken = {m.start for m in chapters}
    apart = {m.start for m in marks if m.role in ("front", "back", "end") or m.rank == 0}
    level = levels.pop()
    return [
        replace(m, number=None)
        for m in marks
        if m.family == "structure" and m.level == level and m.start > main[0].start and m.start not in taken | apart
    ]


def _find_back(marks: list[Mark], last: int) -> list[Mark]:
    return [m for m in marks if m.role in ("back", "end") and m.start > last]


def outline_by(marks: list[Mark], chapters: list[Mark], found_by: str, confidence: float) -> Outline:
    """An outline of unnumbered chapters, with the front and back matter around them."""
    first, last = chapters[0].start, chapters[-1].start
    front = [m for m in marks if m.role == "front" and m.start < first]
    return Outline(chapters, [], front, _find_back(marks, last), found_by, confidence)
