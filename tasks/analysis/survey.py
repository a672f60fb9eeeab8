"""A document of any kind, measured at a glance: what a person wants to know before deciding about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pydantic import BaseModel, Field

from tasks.analysis.book import WORDS_PER_MINUTE, synthesize_book
from tasks.analysis.cast import Character
from tasks.analysis.keywords import Keyword, find_keywords
from tasks.analysis.model import ChapterAnalysis, Excerpt
from tasks.analysis.numbers import average

MOST_PEOPLE = 10
MOST_OPENINGS = 5
# Where books begin speech with a dash. Elsewhere a dash begins the point of a list.
_DASHED = ("es", "fr", "it", "pt")


class Mentioned(BaseModel):
    """Somebody the text names."""

    name: str
    mentions: int
    speaks: int = Field(description="Times the name stands beside a verb of speaking.")


class Opening(BaseModel):
    """The first words under a title, as they stand in the text."""

    title: str
    quote: Excerpt


class Survey(BaseModel):
    """Everything measured about a document. What could not be measured is null, or empty."""

    language: str
    words: int
    characters: int
    sentences: int
    paragraphs: int
    minutes: int = Field(description=f"To read, at {WORDS_PER_MINUTE} words a minute.")
    chapters: int = Field(description="1 when nothing divides the text.")
    dialogue_share: float | None = Field(description="Of all words, those in quotation marks; null without any marks.")
    sentence_mean: float
    ease: float | None
    ease_formula: str | None
    grade: float | None
    keywords: list[Keyword]
    people: list[Mentioned]
    speakers: int = Field(description="Times any name at all stands beside a verb of speaking.")
    openings: list[Opening]


def survey(parts: Sequence[ChapterAnalysis], most_keywords: int) -> Survey:
    """Put the measured parts of one document together. ValueError when there are none."""
    book = synthesize_book(parts)
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(part.counts)
    names = [name for person in book.cast for name in (person.name, *person.aliases)]
    copied = set(Survey.model_fields) - {"chapters", "dialogue_share"}
    return Survey(
        **{name: value for name, value in book if name in copied},
        chapters=len(parts),
        dialogue_share=_measure_dialogue(parts),
        keywords=find_keywords(counts, book.language, names, most_keywords),
        people=[_mention(person) for person in book.cast[:MOST_PEOPLE]],
        speakers=sum(person.speaks for person in book.cast),
        openings=[Opening(title=part.title, quote=part.opening) for part in parts[:MOST_OPENINGS] if part.opening],
    )


def _measure_dialogue(parts: Sequence[ChapterAnalysis]) -> float | None:
    """Parts without any marks hold no dialogue, where others hold some."""
    shares = [None if _is_list(part) else part.dialogue_share for part in parts]
    if all(share is None for share in shares):
        return None
    mean = average([share or 0.0 for share in shares], [float(part.words) for part in parts])
    return None if mean is None else round(mean, 4)


def _is_list(part: ChapterAnalysis) -> bool:
    return part.dialogue_style == "dash" and part.language not in _DASHED


def _mention(person: Character) -> Mentioned:
    return Mentioned(name=person.name, mentions=person.mentions, speaks=person.speaks)
