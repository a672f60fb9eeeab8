"""Each chapter as one row of the book, with what can only be said beside the others: pace, people, words of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pydantic import BaseModel, Field

from tasks.analysis.cast import Character
from tasks.analysis.languages import is_common
from tasks.analysis.model import ChapterAnalysis, Excerpt
from tasks.analysis.numbers import standardize

MOST_OWN_WORDS = 6
MOST_PEOPLE = 4


class ChapterRow(BaseModel):
    """A chapter as one row. Positions count from 1; `begins` is percent of all words."""

    position: int
    number: int | None
    title: str
    part: str
    words: int
    begins: float
    sentences: int
    paragraphs: int
    sentence_mean: float
    sentence_median: float
    sentence_spread: float
    sentence_longest: int
    dialogue_share: float | None
    ease: float | None
    grade: float | None
    mtld: float | None
    tone: float | None
    tone_points: list[float] | None
    pace: float | None = Field(description="50 is this book's average, 10 is one standard deviation; higher is faster.")
    motion_per_1000: float | None
    scene_breaks: int
    people: list[str] = Field(description="The most mentioned, most first.")
    own_words: list[str] = Field(description="Words this chapter uses and the rest of the book hardly does.")
    opening: Excerpt | None
    closing: Excerpt | None


def measure_pace(chapters: Sequence[ChapterAnalysis]) -> list[float | None]:
    """Shorter sentences and paragraphs, more dialogue and more movement, each against this book's own average.

    50 is the average and 10 one standard deviation. None for a book of fewer than three chapters.
    """
    if len(chapters) < 3:
        return [None] * len(chapters)
    pacing = [chapter.pacing for chapter in chapters]
    measures = [
        [-value for value in standardize([p.sentence_mean for p in pacing])],
        [-value for value in standardize([min(p.paragraph_mean, 400.0) for p in pacing])],
        standardize([p.dialogue_share for p in pacing]),
        standardize([p.motion_per_1000 or 0.0 for p in pacing]),
    ]
    combined = standardize([sum(values) for values in zip(*measures, strict=True)])
    return [round(50 + 10 * value, 1) for value in combined]


def make_rows(chapters: Sequence[ChapterAnalysis], cast: Sequence[Character], counts: Counter[str]) -> list[ChapterRow]:
    """The rows in order. `counts` are the words of the whole book."""
    rows, passed = [], 0
    total = sum(chapter.words for chapter in chapters) or 1
    names = {word.lower() for name in [n for p in cast for n in (p.name, *p.aliases)] for word in name.split()}
    spread = Counter(word for chapter in chapters for word in chapter.counts)
    for i, (chapter, pace) in enumerate(zip(chapters, measure_pace(chapters), strict=True)):
        people = sorted((p for p in cast if p.by_chapter[i]), key=lambda p: -p.by_chapter[i])
        row = _make_row(chapter, i + 1, 100 * passed / total)
        row.pace = pace
        row.people = [person.name for person in people[:MOST_PEOPLE]]
        row.own_words = _find_own_words(chapter, counts, spread, names, len(chapters))
        rows.append(row)
        passed += chapter.words
    return rows


def _make_row(chapter: ChapterAnalysis, position: int, begins: float) -> ChapterRow:
    tone = chapter.sentiment
    return ChapterRow(
        position=position,
        number=chapter.number,
        title=chapter.title,
        part=chapter.part,
        words=chapter.words,
        begins=round(begins, 2),
        sentences=chapter.sentences,
        paragraphs=chapter.paragraphs,
        sentence_mean=chapter.sentence_lengths.mean,
        sentence_median=chapter.sentence_lengths.median,
        sentence_spread=chapter.sentence_lengths.spread,
        sentence_longest=chapter.sentence_lengths.longest,
        dialogue_share=chapter.dialogue_share,
        ease=chapter.readability.ease,
        grade=chapter.readability.grade,
        mtld=chapter.mtld,
        tone=None if tone is None else round(sum(tone) / len(tone), 4),
        tone_points=tone,
        pace=None,
        motion_per_1000=chapter.pacing.motion_per_1000,
        scene_breaks=chapter.pacing.scene_breaks,
        people=[],
        own_words=[],
        opening=chapter.opening,
        closing=chapter.closing,
    )


def _find_own_words(
    chapter: ChapterAnalysis, counts: Counter[str], spread: Counter[str], names: set[str], chapters: int
) -> list[str]:
    """Words used at least three times here, in few chapters elsewhere, and mostly here. Names are left out."""
    if chapters < 3:
        return []
    names = names | {word.lower() for name in chapter.names for word in name.split()}
    own = [
        (n, word)
        for word, n in chapter.counts.items()
        if n >= 3
        and len(word) > 3
        and n > 0.6 * counts[word]
        and spread[word] <= max(2, chapters // 8)
        and word.removesuffix("'s") not in names
        and not is_common(word, chapter.language)
    ]
    return [word for _, word in sorted(own, key=lambda item: (-item[0], item[1]))[:MOST_OWN_WORDS]]
