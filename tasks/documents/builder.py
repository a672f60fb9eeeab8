"""Paragraphs and headings of a structured format, put together into one text with offsets."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tasks.documents.clean import clean
from tasks.documents.model import ExtractedText, Heading
from tasks.documents.problems import unreadable

PAGE_BREAK = "\f"
# Beyond any book: the works of Shakespeare are 5.5 million characters.
MAX_CHARACTERS = 40_000_000
_SPACES = re.compile(r"[ \u00a0\u2000-\u200a\u202f\u205f\u3000]+")
_BLANKS_AT_BREAK = re.compile(r" *\n *")
_MANY_BREAKS = re.compile(r"\n{3,}")


@dataclass(frozen=True)
class Block:
    """A paragraph, heading or table row as a format gives it.

    `level`: 1 and up for a heading. `tight`: follows the block before it on the next line, like a table's rows.
    """

    text: str
    level: int | None = None
    tight: bool = False


@dataclass
class TextBuilder:
    """Collects blocks in reading order. An empty paragraph between others counts as a deliberate gap."""

    _blocks: list[Block] = field(default_factory=list)
    _characters: int = 0

    def add(self, block: Block) -> None:
        """Take the next block; a page break inside it makes two paragraphs."""
        for part in block.text.split(PAGE_BREAK):
            text = tidy(part)
            self._characters += len(text)
            self._blocks.append(Block(text, block.level if text else None, block.tight))
        if self._characters > MAX_CHARACTERS:
            raise unreadable("too_large", f"more than {MAX_CHARACTERS} characters")

    def build(
        self,
        engine: str,
        *,
        title: str | None = None,
        author: str | None = None,
        warnings: list[str] | None = None,
    ) -> ExtractedText:
        """The text, its headings and what is known about it. Raises `no_text` when there are no words."""
        pieces: list[str] = []
        headings: list[Heading] = []
        offset = 0
        for separator, block in self._separated():
            offset += len(separator)
            if block.level is not None:
                headings.append(Heading(offset=offset, level=max(1, block.level), text=block.text))
            pieces += [separator, block.text]
            offset += len(block.text)
        text = "".join(pieces)
        if not text.strip():
            raise unreadable("no_text")
        return ExtractedText(
            text=text,
            headings=headings,
            engine=engine,
            title=one_line(title),
            author=one_line(author),
            warnings=warnings or [],
        )

    def _separated(self) -> list[tuple[str, Block]]:
        """Each block with what stands before it."""
        keep_gaps = self._gaps_mean_something()
        result: list[tuple[str, Block]] = []
        gap = False
        for block in self._blocks:
            if not block.text:
                gap = True
                continue
            separator = "\n" if block.tight else "\n\n\n" if gap and keep_gaps else "\n\n"
            result.append((separator if result else "", block))
            gap = False
        return result

    def _gaps_mean_something(self) -> bool:
        """False for writers who press Enter twice after each paragraph."""
        gaps = sum(
            1 for before, block in zip(self._blocks, self._blocks[1:], strict=False) if before.text and not block.text
        )
        paragraphs = sum(1 for block in self._blocks if block.text)
        return gaps * 3 < paragraphs


def tidy(text: str) -> str:
    """One paragraph without layout: single spaces, no blanks at its ends or around its line breaks."""
    text = _BLANKS_AT_BREAK.sub("\n", _SPACES.sub(" ", clean(text)))
    return _MANY_BREAKS.sub("\n\n", text).strip()


def one_line(text: str | None) -> str | None:
    """A metadata value on one line, None when it says nothing."""
    return " ".join(clean(text or "").split())[:300] or None
