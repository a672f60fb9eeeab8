"""Which language a text is in, and what can be measured in it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from tasks.analysis.words import WORD

SAMPLE = 200_000  # characters
_FEWEST = 0.12  # of all words: fewer common words than this, and the language is not one of ours

_COMMON = {
    "en": "the and of to a in that was he his it with had she her for as on at not but you from they were said",
    "de": "und die der das nicht ich er sie es in zu war mit sich auf dem den ein eine als auch hatte so wie von",
    "fr": "de la le et les il que à un une elle des en dans qui ne pas avait était je se lui pour sur vous",
    "es": "de la que y el en los se no un una por con las su lo había era para como del al más pero le",
    "it": "di che e la il un non una per si in era con le del aveva ma lo da gli come più disse io della",
    "pt": "de que e a o não um uma se em para com do da os era por mais como as mas na no ele lhe",
    "nl": "de het een en van ik te dat niet was hij ze zijn in op met haar voor die er had maar aan als je",
}
NAMES = {
    "en": "English",
    "de": "German",
    "fr": "French",
    "es": "Spanish",
    "it": "Italian",
    "pt": "Portuguese",
    "nl": "Dutch",
    "other": "a language without measures of its own",
}
_SETS = {language: frozenset(words.split()) for language, words in _COMMON.items()}


@dataclass(frozen=True)
class Ease:
    """A reading ease formula: base - by_sentence * words per sentence - by_word * syllables per word."""

    name: str
    base: float
    by_sentence: float
    by_word: float


EASE = {
    "en": Ease("Flesch", 206.835, 1.015, 84.6),
    "de": Ease("Flesch, after Amstad", 180.0, 1.0, 58.5),
    "fr": Ease("Flesch, after Kandel and Moles", 207.0, 1.015, 73.6),
    "es": Ease("Flesch, after Fernández Huerta", 206.84, 1.02, 60.0),
    "it": Ease("Flesch, after Franchina and Vacca", 217.0, 1.3, 60.0),
    "nl": Ease("Flesch, after Douma", 206.84, 0.93, 77.0),
}


def guess_language(text: str) -> str:
    """A code of NAMES, by the share of each language's commonest words; "other" when none is common enough."""
    counts = Counter(word.lower() for word in WORD.findall(text[:SAMPLE]))
    total = sum(counts.values())
    shares = {language: sum(counts[word] for word in words) for language, words in _SETS.items()}
    best = max(shares, key=lambda language: shares[language])
    return best if total and shares[best] >= _FEWEST * total else "other"


def is_common(word: str, language: str) -> bool:
    """Whether a lower-case word is among the language's commonest."""
    return word in _SETS.get(language, frozenset())
