"""Word documents, read from their XML so that nothing a writer sees is lost without a word.

Taken: tracked insertions, moved text at its new place, footnotes and endnotes (after the paragraph that refers to
them), content controls, text boxes. Left out: deletions, hidden text, comments, headers and footers. Both the
transitional and the strict namespaces are read, because only local names are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lxml import etree

from tasks.documents.archive import Archive, open_archive
from tasks.documents.builder import PAGE_BREAK, Block, TextBuilder, tidy
from tasks.documents.docx_package import Package, Styles, open_package
from tasks.documents.model import ExtractedText
from tasks.documents.xml import attribute, child, local, stream

_DROPPED = frozenset({"del", "moveFrom", "pPr", "rPr", "sdtPr", "tblPr", "trPr", "tcPr", "rt", "instrText", "delText"})
_WRAPPERS = frozenset({"ins", "moveTo", "customXml", "smartTag", "sdtContent", "txbxContent"})
_MARKS = {"tab": "\t", "ptab": "\t", "cr": "\n", "noBreakHyphen": "-", "softHyphen": ""}
_LONGEST_CELL = 400


def extract_docx(path: Path) -> ExtractedText:
    """Read a Word document. Raises `corrupt_file`, `unsafe_xml`, `zip_bomb`, `encrypted_file`, `no_text`."""
    with open_archive(path) as archive:
        package = open_package(archive)
        builder = TextBuilder()
        reader = _Reader(package)
        for block in reader.blocks(stream(archive, package.main, ("document", "body"))):
            builder.add(block)
        return builder.build(
            "docx-xml",
            title=package.title or reader.title,
            author=package.author,
            warnings=_warnings(archive, package),
        )


def _warnings(archive: Archive, package: Package) -> list[str]:
    comments = package.comments(archive)
    return [f"{comments} comments in the margin were left out."] if comments else []


class _Reader:
    """Turns elements into blocks. Depth is bounded by the parser (256)."""

    def __init__(self, package: Package) -> None:
        self._styles: Styles = package.styles
        self._notes = package.notes
        self._note_numbers: dict[tuple[str, str], int] = {}
        self._boxes: list[etree._Element] = []
        self._referred: list[tuple[str, str]] = []
        self.title: str | None = None

    def blocks(self, elements: Iterator[etree._Element] | etree._Element) -> Iterator[Block]:
        """Blocks of sibling elements. A paragraph whose end mark was deleted runs on into the next."""
        carry = ""
        for element in elements:
            name = local(element)
            if name == "p":
                block = self._paragraph(element, carry)
                carry = ""
                if _mark_deleted(element):
                    carry = block.text
                else:
                    yield block
                yield from self._aside()
            else:
                yield from self._other(element, name)
        if carry:
            yield Block(carry)

    def _other(self, element: etree._Element, name: str) -> Iterator[Block]:
        if name == "tbl":
            yield from self._table(element)
        elif name == "sdt":
            content = None if _is_placeholder(element) else child(element, "sdtContent")
            yield from self.blocks(content if content is not None else iter(()))
        elif name == "AlternateContent":
            yield from self.blocks(_choice(element))
        elif name in _WRAPPERS:
            yield from self.blocks(element)

    def _paragraph(self, element: etree._Element, carry: str) -> Block:
        properties = child(element, "pPr")
        style = _value(properties, "pStyle")
        if self._styles.hidden(style):
            return Block(carry)
        text = carry + "".join(self._inline(element))
        if self._styles.is_title(style) and self.title is None:
            self.title = tidy(text) or None
        return Block(text, self._level(properties, style))

    def _level(self, properties: etree._Element | None, style: str | None) -> int | None:
        own = _value(properties, "outlineLvl")
        if own is not None:
            return int(own) + 1 if own.isdigit() and int(own) < 9 else None
        return self._styles.level(style)

    def _aside(self) -> Iterator[Block]:
        """Text boxes and notes met in the paragraph before."""
        boxes, self._boxes = self._boxes, []
        for box in boxes:
            yield from self.blocks(box)
        referred, self._referred = self._referred, []
        for key in referred:
            # Taken out, so that a note which refers to itself comes once.
            note = self._notes.pop(key, None)
            if note is not None:
                yield from _numbered(self._note_numbers[key], self.blocks(note))

    def _inline(self, element: etree._Element) -> Iterator[str]:
        for each in element:
            name = local(each)
            if name == "t":
                yield each.text or ""
            elif name in _MARKS:
                yield _MARKS[name]
            elif name == "br":
                yield PAGE_BREAK if attribute(each, "type") == "page" else "\n"
            elif name == "sym":
                yield _symbol(each)
            elif name == "ddList":
                yield _selected(each)
            elif name in ("footnoteReference", "endnoteReference"):
                yield self._refer(each, name.removesuffix("Reference"))
            elif name == "txbxContent":
                self._boxes.append(each)
            elif name == "AlternateContent":
                yield from self._inline(_choice(each))
            elif not (name in _DROPPED or not name or self._skipped(each, name)):
                yield from self._inline(each)

    def _skipped(self, element: etree._Element, name: str) -> bool:
        if name == "r":
            properties = child(element, "rPr")
            own = child(properties, "vanish")
            return _is_on(own) if own is not None else self._styles.hidden(_value(properties, "rStyle"))
        return name == "sdt" and _is_placeholder(element)

    def _refer(self, reference: etree._Element, kind: str) -> str:
        key = (kind, attribute(reference, "id") or "")
        if key not in self._notes:
            return ""
        number = self._note_numbers.setdefault(key, len(self._note_numbers) + 1)
        self._referred.append(key)
        return f"[{number}]"

    def _table(self, table: etree._Element) -> Iterator[Block]:
        tight = False
        for row in _inside(table, "tr"):
            cells = [list(self.blocks(cell)) for cell in _inside(row, "tc")]
            line = _line(cells)
            if line is not None:
                yield Block(line, tight=tight)
            else:
                yield from (block for cell in cells for block in cell)
            tight = line is not None


def _line(cells: list[list[Block]]) -> str | None:
    """A row as one line with tabs, None when a cell holds paragraphs (a table used for layout)."""
    filled = [[block for block in cell if block.text.strip()] for cell in cells]
    plain = all(
        len(cell) <= 1 and all(block.level is None and len(block.text) <= _LONGEST_CELL for block in cell)
        for cell in filled
    )
    if len(cells) < 2 or not plain:
        return None
    return "\t".join(tidy(cell[0].text).replace("\n", " ") if cell else "" for cell in filled).rstrip()


def _inside(element: etree._Element, wanted: str) -> Iterator[etree._Element]:
    """Rows of a table or cells of a row, also within content controls; deleted rows are left out."""
    for each in element:
        name = local(each)
        if name == wanted:
            if child(each, "trPr", "del") is None:
                yield each
        elif name in ("sdt", "sdtContent", "customXml", "ins"):
            yield from _inside(each, wanted)


def _numbered(number: int, blocks: Iterator[Block]) -> Iterator[Block]:
    first = True
    for block in blocks:
        if block.text.strip():
            yield Block(f"[{number}] {block.text.strip()}" if first else block.text)
            first = False


def _choice(element: etree._Element) -> etree._Element:
    """The newer of two renderings of the same thing; both together would double the text."""
    choice = child(element, "Choice")
    fallback = child(element, "Fallback")
    return choice if choice is not None else fallback if fallback is not None else etree.Element("none")


def _is_placeholder(control: etree._Element) -> bool:
    return _is_on(child(control, "sdtPr", "showingPlcHdr"))


def _mark_deleted(paragraph: etree._Element) -> bool:
    return child(paragraph, "pPr", "rPr", "del") is not None


def _is_on(flag: etree._Element | None) -> bool:
    return flag is not None and attribute(flag, "val") not in ("0", "false", "off")


def _value(properties: etree._Element | None, name: str) -> str | None:
    found = child(properties, name)
    return attribute(found, "val") if found is not None else None


def _selected(dropdown: etree._Element) -> str:
    """What an old form's list shows: the entry chosen, else its default, else the first."""
    entries = [attribute(each, "val") or "" for each in dropdown if local(each) == "listEntry"]
    chosen = _value(dropdown, "result") or _value(dropdown, "default") or "0"
    return entries[int(chosen)] if chosen.isdigit() and int(chosen) < len(entries) else ""


def _symbol(element: etree._Element) -> str:
    """A character of a symbol font: Word keeps it in the private area, where its low byte tells the key pressed."""
    try:
        code = int(attribute(element, "char") or "", 16)
    except ValueError:
        return ""
    return _WINGDINGS.get(code & 0xFF, "•") if 0xF000 <= code <= 0xF0FF else chr(code) if code < 0x110000 else ""


_WINGDINGS = {0x4A: "☺", 0x6F: "☐", 0xA8: "☐", 0xFE: "☑", 0xFD: "☒", 0xE0: "→", 0xDF: "←", 0xFC: "✓", 0xFB: "✗"}
