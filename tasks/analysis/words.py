"""A text as paragraphs, sentences and words. Offsets are characters of the text given."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

# Letters of scripts without spaces count one by one: a run of them is a phrase, not a word.
WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\d_]+(?:['’][^\W\d_]+)*(?:-[^\W\d_]+(?:['’][^\W\d_]+)*)*"
)
_PARAGRAPH = re.compile(r"\S(?:[^\n]*\S)?(?:\n[^\S\n]*\S(?:[^\n]*\S)?)*")
_LINE = re.compile(r"\S(?:[^\n]*\S)?")
_END = re.compile(r"[.!?…]+[\"'”’»)\]_*]*(?=\s|$)|[。！？]+[」』”’]*")
_OPENERS = " \t\r\n\"'“‘„«([—–_*-¿¡"


def word_set(text: str) -> frozenset[str]:
    """The words of a list written as one text."""
    return frozenset(text.split())


_ABBREVIATIONS = word_set(
    "mr mrs ms dr st messrs mme mlle prof rev hon capt col gen lt sgt maj sir jr sr esq vs etc viz no vol ch fig "
    "inst ult bros m hr fr frl dra sra srta"
)
_LAST_WORD = re.compile(r"([^\W\d_]+)\.[\"'”’»)\]_*]*$")
LONGEST_SENTENCE = 400  # words; longer ones are cut, so that a text without full stops stays measurable


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence with its words."""

    start: int
    end: int
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph with its sentences."""

    start: int
    end: int
    sentences: tuple[Sentence, ...]

    @property
    def words(self) -> int:
        """How many words it has."""
        return sum(len(sentence.words) for sentence in self.sentences)


class Prose:
    """A text taken apart once, for all measures."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.paragraphs = [p for p in (_read_paragraph(text, *span) for span in _paragraph_spans(text)) if p.sentences]

    @cached_property
    def sentences(self) -> list[Sentence]:
        """All sentences in order."""
        return [sentence for paragraph in self.paragraphs for sentence in paragraph.sentences]

    @cached_property
    def words(self) -> list[str]:
        """All words in order, as written."""
        return [word for sentence in self.sentences for word in sentence.words]

    @cached_property
    def lower(self) -> list[str]:
        """All words in order, in lower case and with straight apostrophes."""
        return [word.lower().replace("’", "'") for word in self.words]


def count_words(text: str) -> int:
    """Words of a text, by the same rule as everywhere here."""
    return sum(1 for _ in WORD.finditer(text))


def _paragraph_spans(text: str) -> list[tuple[int, int]]:
    blank = text.count("\n\n") or len(re.findall(r"\n[^\S\n]+\n", text))
    # Without blank lines each line is a paragraph.
    pattern = _PARAGRAPH if blank or "\n" not in text else _LINE
    return [match.span() for match in pattern.finditer(text)]


def _read_paragraph(text: str, start: int, end: int) -> Paragraph:
    sentences: list[Sentence] = []
    for a, b in _sentence_spans(text, start, end):
        words = tuple(WORD.findall(text, a, b))
        if len(words) > LONGEST_SENTENCE:
            sentences += _cut_sentence(text, a, b)
        elif words:
            sentences.append(Sentence(a, b, words))
    return Paragraph(start, end, tuple(sentences))


def _cut_sentence(text: str, start: int, end: int) -> Iterator[Sentence]:
    found = list(WORD.finditer(text, start, end))
    for first in range(0, len(found), LONGEST_SENTENCE):
        piece = found[first : first + LONGEST_SENTENCE]
        yield Sentence(piece[0].start(), piece[-1].end(), tuple(match.group() for match in piece))


def _sentence_spans(text: str, start: int, end: int) -> list[tuple[int, int]]:
    spans, position = [], start
    for match in _END.finditer(text, start, end):
        stop = match.end()
        if stop <= position or _goes_on(text, stop, end) or _is_abbreviation(text, max(position, stop - 16), stop):
            continue
        spans.append((position, stop))
        position = stop
        while position < end and text[position].isspace():
            position += 1
    if position < end:
        spans.append((position, end))
    return spans


def _goes_on(text: str, position: int, end: int) -> bool:
    """Whether what follows the stop begins in lower case: \"Yes!\" he said."""
    ahead = text[position : min(end, position + 40)].lstrip(_OPENERS)
    return ahead[:1].islower()


def _is_abbreviation(text: str, start: int, end: int) -> bool:
    last = _LAST_WORD.search(text[start:end])
    if not last:
        return False
    word = last.group(1)
    return word.lower() in _ABBREVIATIONS or (len(word) == 1 and word.isupper() and word != "I")
