"""Short quotations, taken as exact substrings so that they can be checked."""

from __future__ import annotations

from collections.abc import Iterable

from tasks.analysis.model import Excerpt
from tasks.analysis.words import WORD, Prose, Sentence

LONGEST = 220  # characters


def quote_opening(prose: Prose) -> Excerpt | None:
    """The first sentence, cut after LONGEST characters between two words."""
    return _quote(prose, prose.sentences[0]) if prose.sentences else None


def quote_closing(prose: Prose) -> Excerpt | None:
    """The last sentence that has two words or more."""
    whole = [sentence for sentence in prose.sentences[-5:] if len(sentence.words) > 1]
    return _quote(prose, (whole or prose.sentences)[-1]) if prose.sentences else None


def find_invented(text: str, excerpts: Iterable[Excerpt]) -> list[str]:
    """The quotations that are not in the text, word for word and sign for sign. Empty is how it must be."""
    return [excerpt.text for excerpt in excerpts if excerpt.text not in text]


def _quote(prose: Prose, sentence: Sentence) -> Excerpt:
    text = _balance(prose.text[sentence.start : sentence.end])
    if len(text) <= LONGEST:
        return Excerpt(text=text)
    ends = [match.end() for match in WORD.finditer(text, 0, LONGEST) if match.end() < LONGEST]
    return Excerpt(text=text[: ends[-1] if ends else LONGEST], cut=True)


def _balance(text: str) -> str:
    """Without a quotation mark at either end whose partner is in another sentence."""
    for opening, closing in ('""', "“”", "«»"):
        alone = text.count(opening) % 2 if opening == closing else text.count(opening) != text.count(closing)
        if alone and text.endswith(closing):
            text = text.removesuffix(closing)
        elif alone and text.startswith(opening):
            text = text.removeprefix(opening)
    return text
