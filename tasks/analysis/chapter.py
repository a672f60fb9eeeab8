"""One chapter, measured."""

from __future__ import annotations

from collections import Counter

from tasks.analysis.dialogue import find_style, measure_dialogue
from tasks.analysis.excerpts import quote_closing, quote_opening
from tasks.analysis.habits import count_habits
from tasks.analysis.languages import guess_language
from tasks.analysis.model import ChapterAnalysis
from tasks.analysis.names import find_names
from tasks.analysis.pacing import measure_pacing, measure_sentences
from tasks.analysis.readability import measure_readability
from tasks.analysis.sentiment import measure_sentiment
from tasks.analysis.vocabulary import find_phrases, measure_mtld
from tasks.analysis.words import Prose


def analyze_chapter(
    text: str,
    *,
    number: int | None = None,
    title: str = "",
    part: str = "",
    language: str = "auto",
    quotes: bool = True,
) -> ChapterAnalysis:
    """Measure one chapter. `language` is a code of languages.NAMES, or auto."""
    language = guess_language(text) if language == "auto" else language
    prose = Prose(text)
    counts = Counter(prose.lower)
    style = find_style(prose)
    dialogue = measure_dialogue(prose, style)
    return ChapterAnalysis(
        number=number,
        title=title,
        part=part,
        language=language,
        words=len(prose.words),
        characters=len(text),
        sentences=len(prose.sentences),
        paragraphs=len(prose.paragraphs),
        sentence_lengths=measure_sentences(prose),
        dialogue_share=None if dialogue is None else round(dialogue, 4),
        dialogue_style=style,
        readability=measure_readability(prose, language),
        types=len(counts),
        mtld=measure_mtld(prose.lower),
        counts=dict(counts),
        phrases=find_phrases(([w.lower() for w in s.words] for s in prose.sentences), language),
        names=find_names(prose, Counter(prose.words), language),
        sentiment=measure_sentiment(prose, language),
        pacing=measure_pacing(prose, counts, dialogue, language),
        habits=count_habits(counts) if language == "en" else None,
        opening=quote_opening(prose) if quotes else None,
        closing=quote_closing(prose) if quotes else None,
    )
