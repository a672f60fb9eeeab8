"""Syllables and reading ease."""

from __future__ import annotations

import re
from functools import lru_cache

import pyphen

from tasks.analysis.languages import EASE
from tasks.analysis.model import Readability
from tasks.analysis.words import Prose

FEWEST_WORDS = 100  # fewer say nothing about ease
_VOWELS = re.compile(r"[aeiouyäöüáàâãéèêëíìîïóòôõúùûœæ]+")
_SILENT = re.compile(r"(?:[^laeiouy]es|[^aeiouydt]ed|[^laeiouy]e)$")
_DICTIONARIES = {"de": "de_DE", "fr": "fr_FR", "es": "es_ES", "it": "it_IT", "nl": "nl_NL"}


def measure_readability(prose: Prose, language: str) -> Readability:
    """Reading ease and grade; empty where the language has no formula or the text is too short."""
    formula = EASE.get(language)
    if formula is None or len(prose.words) < FEWEST_WORDS:
        return Readability()
    per_word = sum(count_syllables(word, language) for word in prose.lower) / len(prose.words)
    per_sentence = len(prose.words) / len(prose.sentences)
    ease = formula.base - formula.by_sentence * per_sentence - formula.by_word * per_word
    grade = 0.39 * per_sentence + 11.8 * per_word - 15.59 if language == "en" else None
    return Readability(
        ease=round(ease, 1),
        grade=None if grade is None else round(max(0.0, grade), 1),
        formula=formula.name,
        syllables_per_word=round(per_word, 3),
    )


@lru_cache(maxsize=100_000)
def count_syllables(word: str, language: str) -> int:
    """Syllables of a lower-case word: groups of vowels, or hyphenation points where they find more."""
    groups = len(_VOWELS.findall(word))
    if language == "en":
        return max(1, groups - bool(groups > 1 and _SILENT.search(word)))
    if language in _DICTIONARIES:
        return max(1, groups, len(_hyphenator(language).positions(word)) + 1)
    return max(1, groups)


@lru_cache(maxsize=8)
def _hyphenator(language: str) -> pyphen.Pyphen:
    return pyphen.Pyphen(lang=_DICTIONARIES[language])
