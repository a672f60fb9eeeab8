"""What the analysis measures, as data. Shares are 0 to 1, positions are 0 to 1 of the text unless they say percent."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Excerpt(BaseModel):
    """An exact substring of the chapter's text. `cut` says that the sentence goes on."""

    text: str
    cut: bool = False


class Readability(BaseModel):
    """Reading ease by the formula of the language (higher is easier); school grade for English only."""

    ease: float | None = None
    grade: float | None = None
    formula: str | None = None
    syllables_per_word: float | None = None


class NameEvidence(BaseModel):
    """How a capitalised name is used in one chapter."""

    mentions: int = 0
    inside: int = Field(default=0, description="Mentions that do not begin a sentence, where a capital means a name.")
    speaks: int = Field(default=0, description="Beside a verb of speaking.")
    acts: int = Field(default=0, description="Followed by a verb, or possessing something.")
    placed: int = Field(default=0, description="After a preposition of place.")
    articled: int = Field(default=0, description="After an article.")
    lower: int = Field(default=0, description="The same word without the capital.")


class SentenceLengths(BaseModel):
    """In words."""

    mean: float
    median: float
    spread: float = Field(description="Standard deviation.")
    longest: int


class Pacing(BaseModel):
    """What makes a passage read fast or slow, each measured alone."""

    sentence_mean: float
    paragraph_mean: float
    dialogue_share: float
    motion_per_1000: float | None = Field(default=None, description="Verbs of movement and force; English only.")
    scene_breaks: int


class Habits(BaseModel):
    """Counts of words that editors watch; English only."""

    adverbs: int = 0
    filters: int = 0
    hedges: int = 0
    said: int = 0
    other_tags: int = 0
    watched: dict[str, int] = {}


class ChapterAnalysis(BaseModel):
    """One chapter, measured without knowledge of the others."""

    number: int | None
    title: str
    part: str = ""
    language: str
    words: int
    characters: int
    sentences: int
    paragraphs: int
    sentence_lengths: SentenceLengths
    dialogue_share: float | None
    dialogue_style: str | None
    readability: Readability
    types: int
    mtld: float | None
    counts: dict[str, int] = Field(description="Lower-case words and how often they occur.")
    phrases: dict[str, int] = Field(default={}, description="Runs of four words that occur at least twice.")
    names: dict[str, NameEvidence] = {}
    sentiment: list[float] | None = Field(description="Mean tone, -1 to 1, of ten equal stretches; English only.")
    pacing: Pacing
    habits: Habits | None
    opening: Excerpt | None = None
    closing: Excerpt | None = None
