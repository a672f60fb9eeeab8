"""A text as lines that know where their paragraphs begin and end."""

from __future__ import annotations

import re
from bisect import bisect_left

from tasks.documents.chapters.model import Line

_LINE = re.compile(r"[^\n\f]+")


class Lines:
    """The lines of a text that are not blank, in order, with word counts between any two offsets."""

    def __init__(self, text: str) -> None:
        self.text = text
        raw = [(m.start(), m.group()) for m in _LINE.finditer(text) if not m.group().isspace()]
        gaps = _count_gaps(text, raw)
        self.spaced = _is_spaced(gaps)
        self.all = list(self._build(raw, gaps))
        self._starts = [line.start for line in self.all]
        self.total_words = self.all[-1].words + len(self.all[-1].text.split()) if self.all else 0

    def _build(self, raw: list[tuple[int, str]], gaps: list[int]) -> list[Line]:
        lines, words = [], 0
        for index, (start, content) in enumerate(raw):
            text = content.strip()
            begin = start + len(content) - len(content.lstrip())
            opens = not self.spaced or gaps[index] > 0
            closes = not self.spaced or gaps[index + 1] > 0
            lines.append(Line(index, begin, begin + len(text), text, gaps[index], opens, closes, words))
            words += len(text.split())
        return lines

    def at(self, offset: int) -> int:
        """Index of the first line that begins at or after an offset."""
        return bisect_left(self._starts, offset)

    def words_before(self, offset: int) -> int:
        """Words of all lines that begin before an offset."""
        index = self.at(offset)
        return self.all[index].words if index < len(self.all) else self.total_words

    def words_between(self, start: int, end: int) -> int:
        """Words of the lines that begin in [start, end)."""
        return self.words_before(end) - self.words_before(start)

    def paragraph(self, index: int) -> list[Line]:
        """The lines of the paragraph from the line at `index` to its end."""
        end = index
        while not self.all[end].closes and end + 1 < len(self.all):
            end += 1
        return self.all[index : end + 1]

    def next_start(self, offset: int) -> int:
        """Where the first line at or after an offset begins; the length of the text when there is none."""
        index = self.at(offset)
        return self._starts[index] if index < len(self._starts) else len(self.text)


def _count_gaps(text: str, raw: list[tuple[int, str]]) -> list[int]:
    """Blank lines before each line, and after the last. A form feed is a wide gap."""
    gaps, position = [], 0
    for start, content in raw:
        between = text[position:start]
        newlines = between.count("\n") + 3 * between.count("\f")
        gaps.append(max(0, newlines - 1) if position else 3)
        position = start + len(content)
    return [*gaps, 3]


def _is_spaced(gaps: list[int]) -> bool:
    """Whether blank lines part the paragraphs. Otherwise each line is a paragraph."""
    blank = sum(1 for gap in gaps[1:-1] if gap)
    return blank > 0.02 * len(gaps)
