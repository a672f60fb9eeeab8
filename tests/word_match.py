"""How well an extracted text matches the truth: as a bag of words, and in order."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from difflib import SequenceMatcher


@dataclass(frozen=True)
class Match:
    """Shares from 0 to 1: of the extracted words that are true, of the true words that were extracted."""

    precision: float
    recall: float
    ordered_precision: float
    ordered_recall: float

    @property
    def worst(self) -> float:
        return min(self.precision, self.recall, self.ordered_precision, self.ordered_recall)


def match_words(truth: str, text: str) -> Match:
    """Compare words in lower case without the punctuation around them (hyphens inside a word count)."""
    expected, found = split_words(truth), split_words(text)
    common = (Counter(expected) & Counter(found)).total()
    # The commonest words do not begin a match (they only extend one), else this takes ten seconds a novel.
    blocks = SequenceMatcher(None, expected, found, autojunk=True).get_matching_blocks()
    ordered = sum(block.size for block in blocks)
    return Match(common / len(found), common / len(expected), ordered / len(found), ordered / len(expected))


def split_words(text: str) -> list[str]:
    """Words between blanks, bare of punctuation."""
    words = (re.sub(r"^\W+|\W+$", "", word) for word in text.casefold().split())
    return [word for word in words if word]
