"""The words a text uses most, besides those that every text uses.

There is no corpus to compare with, so this is a frequency and says so: it tells what is talked about much, and not what
sets the text apart from others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pydantic import BaseModel, Field

from tasks.analysis.fillers import FILLERS

SHORTEST = 4  # letters: shorter words are mostly grammar, in every language measured here
FEWEST_TIMES = 3


class Keyword(BaseModel):
    """A word and how often it stands in the text."""

    word: str
    times: int
    per_10_000: float = Field(description="Times in 10,000 words.")


def find_keywords(counts: Mapping[str, int], language: str, names: Collection[str], most: int) -> list[Keyword]:
    """The words used most, most first. `counts`: lower-case words. `names`: of people, whose words are left out."""
    total = max(1, sum(counts.values()))
    left_out = FILLERS.get(language, frozenset()) | _words_of(names)
    kept = {word: n for word, n in _fold(counts, language).items() if len(word) >= SHORTEST and word not in left_out}
    ranked = sorted(kept.items(), key=lambda pair: (-pair[1], pair[0]))
    return [
        Keyword(word=word, times=n, per_10_000=round(10_000 * n / total, 1))
        for word, n in ranked[:most]
        if n >= FEWEST_TIMES
    ]


def _words_of(names: Collection[str]) -> frozenset[str]:
    words = {word for name in names for word in name.lower().replace("’", "'").split()}
    return frozenset(words | {f"{word}'s" for word in words})


def _fold(counts: Mapping[str, int], language: str) -> dict[str, int]:
    """English plurals and possessives counted with the word they belong to, where that occurs too."""
    if language != "en":
        return dict(counts)
    folded: dict[str, int] = {}
    for word, n in counts.items():
        stem = _stem(word, counts)
        folded[stem] = folded.get(stem, 0) + n
    return folded


def _stem(word: str, counts: Mapping[str, int]) -> str:
    for ending in ("'s", "es", "s"):
        stem = word.removesuffix(ending)
        if stem != word and not stem.endswith("s") and len(stem) >= SHORTEST and stem in counts:
            return stem
    return word
