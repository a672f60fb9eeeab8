"""OpenDocument text. Deleted text, comments and hidden paragraphs are left out, notes follow their paragraph."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lxml import etree

from tasks.documents.archive import Archive, open_archive
from tasks.documents.builder import Block, TextBuilder, tidy
from tasks.documents.model import ExtractedText
from tasks.documents.problems import unreadable
from tasks.documents.xml import attribute, child, local, parse_optional, stream

_LEFT_OUT_TAGS = (
    "tracked-changes annotation annotation-end hidden-text hidden-paragraph forms sequence-decls variable-decls user- "
    "field-decls title desc event-listeners note-citation ruby-text change change-start change-end"
)
_LEFT_OUT = frozenset(_LEFT_OUT_TAGS.split())
_MARKS = {"tab": "\t", "line-break": "\n", "s": " "}
_MANIFEST = "META-INF/manifest.xml"


def extract_odt(path: Path) -> ExtractedText:
    """Read an OpenDocument text. Raises `corrupt_file`, `encrypted_file`, `unsafe_xml`, `zip_bomb`, `no_text`."""
    with open_archive(path) as archive:
        _refuse_encrypted(archive)
        builder = TextBuilder()
        reader = _Reader()
        for block in reader.blocks(stream(archive, "content.xml", ("body", "text"))):
            builder.add(block)
        title, author = _properties(archive)
        return builder.build("odt-xml", title=title, author=author)


def _refuse_encrypted(archive: Archive) -> None:
    # Old manifests name a DOCTYPE, so this one is searched, not parsed.
    if _MANIFEST in archive and b"encryption-data" in archive.read(_MANIFEST):
        raise unreadable("encrypted_file", "the manifest tells of encrypted entries")


def _properties(archive: Archive) -> tuple[str | None, str | None]:
    root = parse_optional(archive, "meta.xml")
    meta = child(root, "meta")
    title, creator = child(meta, "title"), child(meta, "initial-creator")
    creator = creator if creator is not None else child(meta, "creator")
    return (title.text if title is not None else None), (creator.text if creator is not None else None)


class _Reader:
    """Turns elements into blocks. Depth is bounded by the parser (256)."""

    def __init__(self) -> None:
        self._aside: list[tuple[str, etree._Element]] = []
        self._notes = 0

    def blocks(self, elements: Iterator[etree._Element] | etree._Element) -> Iterator[Block]:
        """Blocks of sibling elements: paragraphs, headings, tables, and whatever sections and lists hold."""
        for element in elements:
            name = local(element)
            if name in ("p", "h"):
                yield Block("".join(self._inline(element)), _level(element) if name == "h" else None)
                yield from self._set_aside()
            elif name == "table":
                yield from self._table(element)
            elif name and name not in _LEFT_OUT:
                yield from self.blocks(element)

    def _inline(self, element: etree._Element) -> Iterator[str]:
        yield element.text or ""
        for each in element:
            name = local(each)
            if name in _MARKS:
                # Repeat counts are ignored: they only lay out blanks, and a huge one would be a bomb.
                yield _MARKS[name]
            elif name == "note":
                yield self._refer(each)
            elif name == "text-box":
                self._aside.append(("", each))
            elif name and name not in _LEFT_OUT:
                yield from self._inline(each)
            yield each.tail or ""

    def _refer(self, note: etree._Element) -> str:
        body = child(note, "note-body")
        if body is None:
            return ""
        self._notes += 1
        mark = f"[{self._notes}]"
        self._aside.append((f"{mark} ", body))
        return mark

    def _set_aside(self) -> Iterator[Block]:
        """Notes and text boxes met in the paragraph before."""
        aside, self._aside = self._aside, []
        for mark, element in aside:
            for block in self.blocks(element):
                yield Block(mark + block.text, block.level)
                mark = ""

    def _table(self, table: etree._Element) -> Iterator[Block]:
        tight = False
        for row in _inside(table, "table-row"):
            cells = [
                [block for block in self.blocks(cell) if block.text.strip()] for cell in _inside(row, "table-cell")
            ]
            if len(cells) > 1 and all(len(cell) <= 1 for cell in cells):
                yield Block("\t".join(tidy(cell[0].text) if cell else "" for cell in cells).rstrip(), tight=tight)
                tight = True
            else:
                yield from (block for cell in cells for block in cell)
                tight = False


def _inside(element: etree._Element, wanted: str) -> Iterator[etree._Element]:
    for each in element:
        name = local(each)
        if name == wanted:
            yield each
        elif name in ("table-rows", "table-header-rows", "table-row-group"):
            yield from _inside(each, wanted)


def _level(heading: etree._Element) -> int:
    value = attribute(heading, "outline-level") or "1"
    return int(value) if value.isdigit() and 0 < int(value) < 100 else 1
