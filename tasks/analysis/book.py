"""A whole book, put together from its measured chapters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pydantic import BaseModel, Field

from tasks.analysis.arc import Arc, trace_arc
from tasks.analysis.cast import Character, Pair, find_cast, find_pairs
from tasks.analysis.landmarks import Landmark, place_landmarks
from tasks.analysis.measures import Measure, list_measures
from tasks.analysis.model import ChapterAnalysis, Habits
from tasks.analysis.numbers import Distribution, average, describe, find_outliers
from tasks.analysis.rows import ChapterRow, make_rows

WORDS_PER_MINUTE = 240
WORDS_PER_PAGE = 250
MOST_PHRASES = 15
MOST_WATCHED = 15


class Vocabulary(BaseModel):
    """The words of the whole book."""

    types: int
    once: int = Field(description="Words that occur once in the whole book.")
    mtld: float | None
    phrases: dict[str, int]
    habits: Habits | None


class Synthesis(BaseModel):
    """Everything measured about a book."""

    language: str
    words: int
    characters: int
    sentences: int
    paragraphs: int
    minutes: int = Field(description=f"To read, at {WORDS_PER_MINUTE} words a minute.")
    pages: int = Field(description=f"Of {WORDS_PER_PAGE} words.")
    dialogue_share: float | None
    sentence_mean: float
    ease: float | None
    ease_formula: str | None
    grade: float | None
    first_person: float = Field(description="Share of all words that are I or me.")
    lengths: Distribution
    outliers: list[int] = Field(description="Positions of chapters far longer or shorter than the others.")
    chapters: list[ChapterRow]
    arc: Arc | None
    landmarks: list[Landmark]
    cast: list[Character]
    pairs: list[Pair]
    vocabulary: Vocabulary
    measures: list[Measure]


def synthesize_book(chapters: Sequence[ChapterAnalysis]) -> Synthesis:
    """Put the chapters of one book together. ValueError when there are none."""
    if not chapters:
        raise ValueError("a book needs at least one chapter")
    weights = [float(chapter.words) for chapter in chapters]
    words = int(sum(weights))
    language = _main_language(chapters)
    counts = _sum_counts(chapters)
    cast = find_cast(chapters)
    arc = trace_arc(chapters)
    rows = make_rows(chapters, cast, counts)
    ease = average([chapter.readability.ease for chapter in chapters], weights)
    grade = average([chapter.readability.grade for chapter in chapters], weights)
    dialogue = average([chapter.dialogue_share for chapter in chapters], weights)
    return Synthesis(
        language=language,
        words=words,
        characters=sum(chapter.characters for chapter in chapters),
        sentences=sum(chapter.sentences for chapter in chapters),
        paragraphs=sum(chapter.paragraphs for chapter in chapters),
        minutes=max(1, round(words / WORDS_PER_MINUTE)),
        pages=max(1, round(words / WORDS_PER_PAGE)),
        dialogue_share=None if dialogue is None else round(dialogue, 4),
        sentence_mean=round(words / max(1, sum(chapter.sentences for chapter in chapters)), 2),
        ease=None if ease is None else round(ease, 1),
        ease_formula=next((c.readability.formula for c in chapters if c.readability.formula), None),
        grade=None if grade is None else round(grade, 1),
        first_person=round((counts["i"] + counts["me"]) / max(1, words), 4),
        lengths=describe(weights),
        outliers=[i + 1 for i in find_outliers(weights)],
        chapters=rows,
        arc=arc,
        landmarks=place_landmarks(chapters, arc, [row.pace for row in rows]),
        cast=cast,
        pairs=find_pairs(cast),
        vocabulary=_sum_vocabulary(chapters, counts),
        measures=list_measures(language, words, arc is not None, len(chapters)),
    )


def _main_language(chapters: Sequence[ChapterAnalysis]) -> str:
    """The language of most words."""
    totals: Counter[str] = Counter()
    for chapter in chapters:
        totals[chapter.language] += chapter.words
    return totals.most_common(1)[0][0]


def _sum_counts(chapters: Sequence[ChapterAnalysis]) -> Counter[str]:
    total: Counter[str] = Counter()
    for chapter in chapters:
        total.update(chapter.counts)
    return total


def _sum_vocabulary(chapters: Sequence[ChapterAnalysis], counts: Counter[str]) -> Vocabulary:
    phrases: Counter[str] = Counter()
    for chapter in chapters:
        phrases.update(chapter.phrases)
    mtld = average([chapter.mtld for chapter in chapters], [float(chapter.words) for chapter in chapters])
    return Vocabulary(
        types=len(counts),
        once=sum(1 for n in counts.values() if n == 1),
        mtld=None if mtld is None else round(mtld, 1),
        phrases={phrase: n for phrase, n in phrases.most_common(MOST_PHRASES) if n >= 3},
        habits=_sum_habits([chapter.habits for chapter in chapters if chapter.habits]),
    )


def _sum_habits(habits: Sequence[Habits]) -> Habits | None:
    if not habits:
        return None
    watched: Counter[str] = Counter()
    for each in habits:
        watched.update(each.watched)
    return Habits(
        adverbs=sum(h.adverbs for h in habits),
        filters=sum(h.filters for h in habits),
        hedges=sum(h.hedges for h in habits),
        said=sum(h.said for h in habits),
        other_tags=sum(h.other_tags for h in habits),
        watched=dict(watched.most_common(MOST_WATCHED)),
    )
