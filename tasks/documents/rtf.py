"""RTF, with its headings, notes, text boxes and tables; deleted and hidden text is left out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from tasks.documents.builder import Block, TextBuilder, tidy
from tasks.documents.model import ExtractedText
from tasks.documents.problems import unreadable
from tasks.documents.rtf_tokens import CHARACTERS, SEEN, UNSEEN, Token, charset_codec, page_codec, tokens

_MAX_DEPTH = 2_000
_HEADING_NAME = re.compile(r"\bheading ([1-9])\b", re.I)
_TABLES = {"fonttbl": "fonts", "stylesheet": "styles", "title": "title", "author": "author"}
_LONGEST_CELL = 400


@dataclass(frozen=True, slots=True)
class _Group:
    """What holds inside a pair of braces. `target`: where its text goes; "" is nowhere."""

    target: str = "text"
    font: int | None = None
    skip: int = 1
    hidden: bool = False
    deleted: bool = False
    aside: bool = False
    fresh: bool = True
    starred: bool = False


@dataclass
class _Flow:
    """A paragraph being written: the body's, or that of a note or text box."""

    pieces: list[str] = field(default_factory=list)
    cells: list[str] = field(default_factory=list)
    level: int | None = None
    in_table: bool = False
    after_row: bool = False
    mark: str = ""
    blocks: list[Block] = field(default_factory=list)
    asides: list[Block] = field(default_factory=list)


def extract_rtf(path: Path) -> ExtractedText:
    """Read an RTF document. Raises `corrupt_file`, `no_text`."""
    data = path.read_bytes()
    start = data.find(b"{\\rtf", 0, 1024)
    if start < 0:
        raise unreadable("corrupt_file", "no RTF header")
    reader = _Reader()
    builder = TextBuilder()
    for block in reader.read(tokens(data[start:])):
        builder.add(block)
    return builder.build("rtf", title=reader.properties.get("title"), author=reader.properties.get("author"))


class _Reader:
    """Walks the tokens once, keeping a stack of groups and of flows."""

    def __init__(self) -> None:
        self.properties: dict[str, str] = {}
        self._groups = [_Group()]
        self._flows = [_Flow()]
        self._bytes = bytearray()
        self._to_skip = 0
        self._codec = "cp1252"
        self._default_font: int | None = None
        self._fonts: dict[int, str] = {}
        self._levels: dict[int, int] = {}
        self._style: int | None = None
        self._entry = ""
        self._notes = 0

    def read(self, stream: Iterator[Token]) -> Iterator[Block]:
        """The document's blocks in reading order."""
        for token in stream:
            if token.raw:
                self._take(token.raw)
            elif token.brace:
                self._brace(token.brace)
            else:
                self._control(token)
            if len(self._flows) == 1 and self._flow.blocks:
                yield from self._flow.blocks
                self._flow.blocks.clear()
        self._flush()
        while len(self._flows) > 1:
            self._close_flow()
        if self._flow.cells:
            self._end_row()
        self._end_paragraph()
        yield from self._flow.blocks

    @property
    def _group(self) -> _Group:
        return self._groups[-1]

    @property
    def _flow(self) -> _Flow:
        return self._flows[-1]

    def _set(self, **changes: object) -> None:
        self._groups[-1] = replace(self._groups[-1], **changes)  # type: ignore[arg-type]

    # Text

    def _take(self, raw: bytes) -> None:
        """Bytes of text, less those that repeat a Unicode character for old readers."""
        skipped = min(self._to_skip, len(raw))
        self._to_skip -= skipped
        self._bytes += raw[skipped:]
        if self._group.fresh:
            self._set(fresh=False)

    def _flush(self) -> None:
        """Decode what has gathered: characters of two bytes may come as two tokens, so not before a control."""
        if self._bytes:
            text = bytes(self._bytes).decode(self._current_codec(), "replace")
            self._bytes.clear()
            self._write(text)

    def _current_codec(self) -> str:
        font = self._group.font if self._group.font is not None else self._default_font
        return self._fonts.get(font, self._codec) if font is not None else self._codec

    def _write(self, text: str) -> None:
        group = self._group
        if group.target == "text" and not (group.hidden or group.deleted):
            self._flow.pieces.append(text)
        elif group.target in ("title", "author"):
            self.properties[group.target] = self.properties.get(group.target, "") + text
        elif group.target in ("fonts", "styles"):
            self._entry += text
            if text.rstrip().endswith(";"):
                self._end_entry()

    def _end_entry(self) -> None:
        """The name of a style is read; its level may be told by name alone."""
        match = _HEADING_NAME.search(self._entry)
        if self._group.target == "styles" and match and self._style is not None:
            self._levels.setdefault(self._style, int(match[1]))
        self._entry = ""
        self._style = None

    # Structure

    def _brace(self, brace: str) -> None:
        self._flush()
        self._to_skip = 0
        if brace == "{":
            if len(self._groups) > _MAX_DEPTH:
                raise unreadable("corrupt_file", "groups nested too deeply")
            self._groups.append(replace(self._group, fresh=True, starred=False, aside=False))
        elif len(self._groups) > 1 and self._groups.pop().aside:
            self._close_flow()

    def _control(self, token: Token) -> None:
        word, number = token.word, token.number
        if word in CHARACTERS and self._to_skip:
            self._to_skip -= 1
            return
        self._flush()
        if word == "*":
            self._set(starred=True)
            return
        if self._group.fresh:
            self._open_destination(word)
        if word in CHARACTERS:
            self._write(CHARACTERS[word])
        elif word == "u" and number is not None:
            self._write(chr(number % 65536))
            self._to_skip = self._group.skip
        elif self._group.target in ("fonts", "styles"):
            self._table_word(word, number)
        elif not self._format(word, number) and self._group.target == "text":
            self._structure(word, number)

    def _open_destination(self, word: str) -> None:
        """The first control word of a group may send its text elsewhere."""
        self._set(fresh=False)
        if word in _TABLES:
            self._set(target=_TABLES[word], font=None)
        elif word == "ud":
            self._set(target="text")
        elif word in UNSEEN or (self._group.starred and word not in SEEN):
            self._set(target="")
        elif word in ("footnote", "shptxt", "dptxbxtext") and self._group.target == "text":
            self._open_flow(word)

    def _table_word(self, word: str, number: int | None) -> None:
        if word == "f" and number is not None:
            self._set(font=number)
        elif word in ("fcharset", "cpg") and self._group.font is not None:
            codec = charset_codec(number) if word == "fcharset" else page_codec(number)
            if codec is not None:
                self._fonts[self._group.font] = codec
        elif word == "s":
            self._style = number
        elif word == "outlinelevel" and number is not None and self._style is not None and number < 9:
            self._levels[self._style] = number + 1

    def _format(self, word: str, number: int | None) -> bool:
        """Words that change how later text is read; True when this was one."""
        on = number != 0
        if word == "f":
            self._set(font=number)
        elif word == "uc":
            self._set(skip=max(0, number or 0))
        elif word == "v":
            self._set(hidden=on)
        elif word == "deleted":
            self._set(deleted=on)
        elif word == "plain":
            self._set(hidden=False, deleted=False, font=None)
        elif word == "ansicpg":
            self._codec = page_codec(number) or self._codec
        elif word in ("mac", "pc", "pca"):
            self._codec = {"mac": "mac_roman", "pc": "cp437", "pca": "cp850"}[word]
        elif word == "deff":
            self._default_font = number
        else:
            return False
        return True

    def _structure(self, word: str, number: int | None) -> None:
        flow = self._flow
        if word in ("par", "sect"):
            self._end_paragraph()
        elif word in ("cell", "nestcell"):
            flow.cells.append("".join(flow.pieces))
            flow.pieces.clear()
        elif word in ("row", "nestrow"):
            self._end_row()
        elif word == "pard":
            flow.level, flow.in_table = None, False
        elif word == "intbl":
            flow.in_table = True
        elif word == "s":
            flow.level = self._levels.get(number or 0, flow.level)
        elif word == "outlinelevel" and number is not None:
            flow.level = number + 1 if number < 9 else None
        elif word == "chftn":
            flow.pieces.append(flow.mark if len(self._flows) > 1 else "")

    def _end_paragraph(self) -> None:
        flow = self._flow
        if flow.in_table or flow.cells:
            flow.pieces.append("\n")
            return
        flow.blocks.append(Block("".join(flow.pieces), flow.level))
        flow.pieces.clear()
        flow.blocks += flow.asides
        flow.asides = []
        flow.after_row = False

    def _end_row(self) -> None:
        flow = self._flow
        cells = [tidy(cell) for cell in flow.cells]
        if any("\n" in cell or len(cell) > _LONGEST_CELL for cell in cells):
            flow.blocks += [Block(line) for cell in cells for line in cell.split("\n") if line]
            flow.after_row = False
        elif any(cells):
            flow.blocks.append(Block("\t".join(cells).rstrip(), tight=flow.after_row))
            flow.after_row = True
        flow.cells.clear()
        flow.blocks += flow.asides
        flow.asides = []

    def _open_flow(self, word: str) -> None:
        mark = ""
        if word == "footnote":
            self._notes += 1
            mark = f"[{self._notes}]"
            self._flow.pieces.append(mark)
        self._flows.append(_Flow(mark=mark))
        self._set(aside=True)

    def _close_flow(self) -> None:
        """A note or text box ends; it comes after the paragraph it hangs on."""
        self._end_paragraph()
        flow = self._flows.pop()
        blocks = [block for block in flow.blocks if tidy(block.text)]
        if blocks and flow.mark:
            text = tidy(blocks[0].text).removeprefix(flow.mark).strip()
            blocks[0] = Block(f"{flow.mark} {text}")
        self._flow.asides += blocks
