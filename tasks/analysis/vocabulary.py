"""How varied the words are, and which ones are used most for what they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice

from tasks.analysis.languages import is_common

FACTOR = 0.72  # the type-token ratio at which a stretch counts as used up
FEWEST_WORDS = 100
PHRASE = 4  # words
MOST_PHRASES = 40


def measure_mtld(words: Sequence[str]) -> float | None:
    """Lexical diversity that does not shrink with length: words until they repeat. None for a short text."""
    if len(words) < FEWEST_WORDS:
        return None
    return round((_one_way(words) + _one_way(words[::-1])) / 2, 1)


def _one_way(words: Sequence[str]) -> float:
    factors, count = 0.0, 0
    seen: set[str] = set()
    for word in words:
        count += 1
        seen.add(word)
        if len(seen) <= FACTOR * count:
            factors, count = factors + 1, 0
            seen.clear()
    if count:
        factors += (1 - len(seen) / count) / (1 - FACTOR)
    return len(words) / factors if factors else float(len(words))


def find_phrases(sentences: Iterable[Sequence[str]], language: str) -> dict[str, int]:
    """Runs of words that occur at least twice within a text, most frequent first, at most MOST_PHRASES.

    Runs of common words only say nothing and are left out.
    """
    counts: Counter[tuple[str, ...]] = Counter()
    for words in sentences:
        counts.update(zip(*(islice(words, n, None) for n in range(PHRASE)), strict=False))
    telling = [
        (run, n)
        for run, n in counts.most_common(20 * MOST_PHRASES)
        if n >= 2 and sum(not is_common(word, language) for word in run) >= 2
    ]
    return {" ".join(run): n for run, n in telling[:MOST_PHRASES]}
