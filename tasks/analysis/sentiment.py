"""The tone of English words, by a fixed lexicon (VADER): what the words say, not what the scene means."""

from __future__ import annotations

from functools import cache

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from tasks.analysis.words import Prose, Sentence

WINDOWS = 10
FEWEST_WORDS = 150  # of a chapter; fewer than that and ten windows are noise
LONGEST_PIECE = 80  # words; the lexicon's rules look at neighbours and slow down on endless sentences


@cache
def _analyzer() -> SentimentIntensityAnalyzer:
    """One per process: it reads its lexicon when it is made."""
    return SentimentIntensityAnalyzer()


def measure_sentiment(prose: Prose, language: str) -> list[float] | None:
    """Mean tone (-1 to 1) of ten equal stretches; None where the lexicon does not apply."""
    if language != "en" or len(prose.words) < FEWEST_WORDS:
        return None
    sums, weights = [0.0] * WINDOWS, [0] * WINDOWS
    passed = 0
    for sentence in prose.sentences:
        middle = passed + len(sentence.words) / 2
        window = min(WINDOWS - 1, int(WINDOWS * middle / len(prose.words)))
        sums[window] += score(prose, sentence) * len(sentence.words)
        weights[window] += len(sentence.words)
        passed += len(sentence.words)
    return _fill_gaps([s / w if w else None for s, w in zip(sums, weights, strict=True)])


def score(prose: Prose, sentence: Sentence) -> float:
    """The tone of one sentence, -1 to 1."""
    if len(sentence.words) <= LONGEST_PIECE:
        return _score_text(" ".join(prose.text[sentence.start : sentence.end].split()))
    pieces = [sentence.words[i : i + LONGEST_PIECE] for i in range(0, len(sentence.words), LONGEST_PIECE)]
    return sum(_score_text(" ".join(piece)) for piece in pieces) / len(pieces)


def _score_text(text: str) -> float:
    return float(_analyzer().polarity_scores(text)["compound"])


def _fill_gaps(values: list[float | None]) -> list[float]:
    """A window inside one long sentence takes the tone of the window before it."""
    filled: list[float] = []
    first = next((value for value in values if value is not None), 0.0)
    for value in values:
        filled.append(round(value if value is not None else (filled[-1] if filled else first), 4))
    return filled
