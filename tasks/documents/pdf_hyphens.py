"""Words broken at line ends, put together with the document's own vocabulary."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from tasks.documents.pdf_lines import Line

_WORD = re.compile(r"[^\W\d_]+(?:[-\u2010'’][^\W\d_]+)*")
_LAST = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*$")
_FIRST = re.compile(r"^[^\W\d_]+")
_CJK = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uff01-\uff60]")
_TIGHT_DASH = re.compile(r"\w[—–]\w")
# A hyphen that nearly always breaks words is the typesetter's own; compounds then have another one.
_ALWAYS = 0.98
_LOOSE_DASH = re.compile(r"\w [—–] \w")


class Joiner:
    """Joins the lines of a paragraph, having read all lines of the document once."""

    def __init__(self, lines: list[Line]) -> None:
        self._words = _vocabulary(lines)
        text = "\n".join(line.text for line in lines)
        self._tight_dash = len(_TIGHT_DASH.findall(text)) > len(_LOOSE_DASH.findall(text))
        self._breaks_words = self._habits(lines)

    def join(self, lines: Iterable[Line]) -> str:
        """One paragraph's lines as one line."""
        text = ""
        before: Line | None = None
        for line in lines:
            text += line.text if before is None else self._glue(before, line) + line.text
            before = line
        return text + (before.hyphen if before is not None else "")

    def _glue(self, before: Line, line: Line) -> str:
        if before.hyphen:
            return "" if self._is_one_word(before, line) else "-"
        if _CJK.match(before.text[-1:]) and _CJK.match(line.text[:1]):
            return ""
        dash_at_end = before.text.endswith(("—", "--")) or line.text.startswith(("—", "--"))
        return "" if dash_at_end and self._tight_dash else " "

    def _is_one_word(self, before: Line, line: Line) -> bool:
        """Whether a broken word is written without a hyphen: the vocabulary decides, then the typesetter's habit."""
        known = self._known(before, line)
        return known if known is not None else self._by_habit(before, line)

    def _known(self, before: Line, line: Line) -> bool | None:
        """True for one word, False for a compound with a hyphen, None when the document has neither elsewhere."""
        parts = _parts(before, line)
        if parts is None:
            return False
        first, second = parts
        # Of "object-les" only the last part is broken.
        whole = self._words[first + second] or self._words[first.rpartition("-")[2] + second]
        compound = self._words[f"{first}-{second}"]
        return None if whole == compound else whole > compound

    def _by_habit(self, before: Line, line: Line) -> bool:
        breaks = self._breaks_words.get(before.hyphen, 1.0)
        if breaks > _ALWAYS or breaks < 0.5:
            return breaks > _ALWAYS
        if line.text[:1].isupper() and not before.text[-2:].isupper():
            return False
        first, second = _parts(before, line) or ("", "")
        last = first.rpartition("-")[2]
        # Two words of their own make a compound; a syllable seldom is a word.
        return not (min(len(last), len(second)) > 1 and self._words[last] and self._words[second])

    def _habits(self, lines: list[Line]) -> dict[str, float]:
        """For each kind of hyphen, the share of known cases in which it breaks a word rather than ends a compound."""
        votes: dict[str, Counter[bool]] = {}
        for before, line in pairwise(lines):
            known = self._known(before, line) if before.hyphen and _parts(before, line) else None
            if known is not None:
                votes.setdefault(before.hyphen, Counter())[known] += 1
        return {hyphen: count[True] / count.total() for hyphen, count in votes.items()}


def _parts(before: Line, line: Line) -> tuple[str, str] | None:
    """The two halves of a broken word in lower case, None when these are no words (a number, a dash)."""
    first, second = _LAST.search(before.text), _FIRST.search(line.text)
    return (first[0].casefold(), second[0].casefold()) if first and second else None


def _vocabulary(lines: list[Line]) -> Counter[str]:
    """Words as they stand unbroken, compounds also by their parts."""
    words: Counter[str] = Counter()
    broken = False
    for line in lines:
        found = [word.replace("\u2010", "-").casefold() for word in _WORD.findall(line.text)]
        inner = found[1 if broken else 0 : -1 if line.hyphen else None]
        broken = bool(line.hyphen)
        for word in inner:
            words[word] += 1
            if "-" in word:
                words.update(word.split("-"))
    return words
