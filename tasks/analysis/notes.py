"""Sentences made of measured facts only. Each carries its numbers; none says what is good."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from pydantic import BaseModel

from tasks.analysis.book import Synthesis
from tasks.analysis.rows import ChapterRow

FAST, SLOW = 65.0, 35.0  # one and a half standard deviations
MOST_LISTED = 3
FEWEST_WORDS = 400  # of a chapter, before its reading ease is set beside others
FEWEST_MENTIONS = 10
LONGEST_SILENCE = 0.3  # of all chapters


class Note(BaseModel):
    """An observation with the section of the report it belongs to, and its numbers."""

    section: str
    text: str
    numbers: dict[str, float]


def write_notes(book: Synthesis) -> list[Note]:
    """All notes, in the order of the report's sections."""
    sections = (_note_lengths, _note_pace, _note_dialogue, _note_arc, _note_cast, _note_language)
    return [note for section in sections for note in section(book)]


def name_row(row: ChapterRow) -> str:
    """A chapter as the notes call it: its title, with its part and position."""
    title = row.title or f"Chapter {row.position}"
    where = [row.part] if row.part else []
    if not re.match(rf"Chapter {row.position}\b", title):
        where.append(f"no. {row.position}")
    return f"{title} ({', '.join(where)})" if where else title


def _note_lengths(book: Synthesis) -> Iterator[Note]:
    rows = book.chapters
    if len(rows) < 3:
        return
    longest, shortest = max(rows, key=lambda r: r.words), min(rows, key=lambda r: r.words)
    ratio = longest.words / max(1, shortest.words)
    yield Note(
        section="chapters",
        text=f"The longest chapter, {name_row(longest)}, has {longest.words:,} words; the shortest, "
        f"{name_row(shortest)}, has {shortest.words:,}: a ratio of {ratio:.1f} to 1.",
        numbers={"longest": longest.words, "shortest": shortest.words, "ratio": round(ratio, 1)},
    )
    if book.outliers:
        named = "; ".join(f"{name_row(rows[i - 1])}, {rows[i - 1].words:,} words" for i in book.outliers[:6])
        more = f"; and {len(book.outliers) - 6} more" if len(book.outliers) > 6 else ""
        yield Note(
            section="chapters",
            text=f"Half of all chapters have between {book.lengths.lower:,.0f} and {book.lengths.upper:,.0f} words. "
            f"Far outside that: {named}{more}.",
            numbers={"lower": book.lengths.lower, "upper": book.lengths.upper, "outliers": len(book.outliers)},
        )


def _note_pace(book: Synthesis) -> Iterator[Note]:
    paced = [(row, row.pace) for row in book.chapters if row.pace is not None]
    fast = sorted((p for p in paced if p[1] >= FAST), key=lambda p: -p[1])[:MOST_LISTED]
    slow = sorted((p for p in paced if p[1] <= SLOW), key=lambda p: p[1])[:MOST_LISTED]
    for kind, found in (("fastest", fast), ("slowest", slow)):
        if found:
            named = "; ".join(f"{name_row(row)}, {pace:.0f}" for row, pace in found)
            yield Note(
                section="pace",
                text=f"The {kind} on the page, where 50 is this book's own average: {named}.",
                numbers={str(row.position): pace for row, pace in found},
            )
    run = _find_slow_run([pace for _, pace in paced])
    if run and len(paced) == len(book.chapters):
        first, last = paced[run[0]][0], paced[run[1]][0]
        yield Note(
            section="pace",
            text=f"The longest run of chapters below average pace goes from {name_row(first)} to {name_row(last)}: "
            f"{run[1] - run[0] + 1} chapters in a row.",
            numbers={"first": first.position, "last": last.position},
        )


def _find_slow_run(paces: list[float]) -> tuple[int, int] | None:
    """First and last index of the longest run below 50; None when it is shorter than four."""
    best, start = (0, -1), 0
    for i, pace in enumerate([*paces, 100.0]):
        if pace >= 50:
            best = max(best, (start, i - 1), key=lambda run: run[1] - run[0])
            start = i + 1
    return best if best[1] - best[0] >= 3 else None


def _note_dialogue(book: Synthesis) -> Iterator[Note]:
    rows = [row for row in book.chapters if row.dialogue_share is not None]
    if len(rows) < 3 or book.dialogue_share is None:
        return
    most = max(rows, key=lambda r: r.dialogue_share or 0)
    least = min(rows, key=lambda r: r.dialogue_share or 0)
    yield Note(
        section="dialogue",
        text=f"{book.dialogue_share:.0%} of the words stand inside quotation marks. "
        f"Most in {name_row(most)}, {most.dialogue_share:.0%}; least in {name_row(least)}, {least.dialogue_share:.0%}.",
        numbers={"share": book.dialogue_share, "most": most.dialogue_share or 0, "least": least.dialogue_share or 0},
    )


def _note_arc(book: Synthesis) -> Iterator[Note]:
    if not book.arc:
        return
    for kind, pick in (("highest", max), ("lowest", min)):
        percent = pick(range(len(book.arc.points)), key=book.arc.points.__getitem__)
        tone = book.arc.points[percent]
        row = book.chapters[_chapter_at(book, percent) - 1]
        yield Note(
            section="arc",
            text=f"The smoothed tone is {kind} at {percent}% of the text, in {name_row(row)}: {tone:+.2f}, "
            f"against a mean of {book.arc.mean:+.2f}.",
            numbers={"percent": percent, "tone": round(tone, 3), "mean": book.arc.mean},
        )


def _chapter_at(book: Synthesis, percent: float) -> int:
    return max((row.position for row in book.chapters if row.begins <= percent), default=1)


def _note_cast(book: Synthesis) -> Iterator[Note]:
    chapters = len(book.chapters)
    if chapters >= 3:
        yield from _note_absences(book, chapters)
    late = [p for p in book.cast[:12] if p.first > 0.5 * chapters and chapters >= 4]
    for person in late[:MOST_LISTED]:
        yield Note(
            section="cast",
            text=f"{person.name} is first named in {name_row(book.chapters[person.first - 1])}, "
            f"{book.chapters[person.first - 1].begins:.0f}% into the text, and then {person.mentions} times.",
            numbers={"first": person.first, "mentions": person.mentions},
        )


def _note_absences(book: Synthesis, chapters: int) -> Iterator[Note]:
    for person in book.cast[:8]:
        gap = find_longest_absence(person.by_chapter)
        length = gap[1] - gap[0] + 1 if gap else 0
        if gap and person.mentions >= FEWEST_MENTIONS and length >= max(3, LONGEST_SILENCE * chapters):
            first, last = book.chapters[gap[0]], book.chapters[gap[1]]
            yield Note(
                section="cast",
                text=f"{person.name} is not named between {name_row(first)} and {name_row(last)}: "
                f"{length} chapters in a row of {chapters}.",
                numbers={"first": gap[0] + 1, "last": gap[1] + 1, "chapters": length},
            )


def find_longest_absence(by_chapter: list[int]) -> tuple[int, int] | None:
    """First and last index of the longest run without a mention between two mentions."""
    met = [i for i, n in enumerate(by_chapter) if n]
    gaps = [(a + 1, b - 1) for a, b in itertools.pairwise(met) if b - a > 1]
    return max(gaps, key=lambda gap: gap[1] - gap[0], default=None)


def _note_language(book: Synthesis) -> Iterator[Note]:
    rows = [row for row in book.chapters if row.ease is not None and row.words >= FEWEST_WORDS]
    if len(rows) >= 3 and book.ease is not None:
        hard, easy = min(rows, key=lambda r: r.ease or 0), max(rows, key=lambda r: r.ease or 0)
        yield Note(
            section="language",
            text=f"Reading ease runs from {hard.ease:.0f} in {name_row(hard)} to {easy.ease:.0f} in {name_row(easy)}; "
            f"the book as a whole has {book.ease:.0f} (higher is easier).",
            numbers={"hardest": hard.ease or 0, "easiest": easy.ease or 0, "book": book.ease},
        )
    habits = book.vocabulary.habits
    if habits and habits.said + habits.other_tags >= 20:
        share = habits.said / (habits.said + habits.other_tags)
        yield Note(
            section="language",
            text=f"Of {habits.said + habits.other_tags:,} verbs that can tag speech, {share:.0%} are a form of “say”.",
            numbers={"said": habits.said, "other": habits.other_tags, "share": round(share, 3)},
        )
