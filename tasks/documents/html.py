"""HTML, also as the chapters of an EPUB: blocks become paragraphs, h1 to h6 become headings."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from lxml import etree
from lxml import html as lxml_html

from tasks.documents.builder import Block, TextBuilder
from tasks.documents.clean import clean
from tasks.documents.model import ExtractedText
from tasks.documents.problems import unreadable
from tasks.documents.text import decode, read_bytes

_SKIPPED_TAGS = (
    "head script style template noscript nav svg math object iframe audio video button select textarea rt rp input "
    "meta link title"
)
_SKIPPED = frozenset(_SKIPPED_TAGS.split())
_BLOCK_TAGS = (
    "address article aside blockquote body center dd details div dl dt fieldset figcaption figure footer form h1 h2 "
    "h3 h4 h5 h6 header hgroup hr li main ol p pre section summary table tbody td tfoot th thead tr ul"
)
_BLOCKS = frozenset(_BLOCK_TAGS.split())
_DECLARED = re.compile(
    rb"<(?:meta[^>]{0,200}charset\s*=\s*[\"']?|\?xml[^>]{0,100}encoding\s*=\s*[\"'])([\w.-]{2,30})", re.I
)
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.I)
_BLANKS = re.compile(r"[ \t\n\r]+")
_HEADING = re.compile("h[1-6]")
_LONGEST_CELL = 400


def extract_html(path: Path) -> ExtractedText:
    """Read a web page. Raises `no_text`, `not_text`, `corrupt_file`."""
    root, warnings = parse_html(read_bytes(path))
    builder = TextBuilder()
    for block in blocks_of(root):
        builder.add(block)
    title = root.findtext(".//title")
    author = next((str(meta.get("content", "")) for meta in root.iter("meta") if meta.get("name") == "author"), None)
    return builder.build("lxml-html", title=title, author=author, warnings=warnings)


def parse_html(data: bytes) -> tuple[etree._Element, list[str]]:
    """The tree of a page and warnings. The HTML parser knows no entity declarations, so none can expand."""
    text, warnings = _decode(data)
    # Declarations of an encoding no longer hold for decoded text, and the parser would believe them.
    text = re.sub(r"^\s*<\?xml[^>]*>", "", clean(text))
    parser = lxml_html.HTMLParser(encoding="utf-8", no_network=True, huge_tree=False, remove_comments=True)
    try:
        root = lxml_html.document_fromstring(text.encode("utf-8"), parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError) as error:
        raise unreadable("no_text" if not text.strip() else "corrupt_file", type(error).__name__) from error
    return root, warnings


def blocks_of(root: etree._Element) -> Iterator[Block]:
    """The blocks of a page in reading order."""
    yield from _Walker().walk(root)


def _decode(data: bytes) -> tuple[str, list[str]]:
    declared = _DECLARED.search(data[:2048])
    if declared and not data.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        name = declared[1].decode("ascii").lower()
        # Browsers read a declared Latin-1 as its superset.
        name = "cp1252" if name in ("iso-8859-1", "latin-1", "latin1", "us-ascii", "ascii") else name
        try:
            return data.decode(name), []
        except (LookupError, UnicodeDecodeError):
            pass
    return decode(data)


class _Walker:
    """Gathers inline text until a block begins or ends. Depth is bounded by the parser (256)."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._level: int | None = None
        self._row: etree._Element | None = None

    def walk(self, root: etree._Element) -> Iterator[Block]:
        yield from self._element(root)
        yield from self._flush()

    def _element(self, element: etree._Element) -> Iterator[Block]:
        tag = element.tag.lower() if isinstance(element.tag, str) else ""
        if not tag or tag in _SKIPPED or _is_hidden(element):
            return
        if tag == "br":
            self._pieces.append("\n")
        elif tag == "tr" and (row := _simple_row(element)) is not None:
            yield from self._flush()
            yield Block(row, tight=self._row is not None and element.getprevious() is self._row)
            self._row = element
        elif tag in _BLOCKS:
            yield from self._flush()
            outer, self._level = self._level, int(tag[1]) if _HEADING.fullmatch(tag) else self._level
            yield from self._inside(element, tag == "pre")
            yield from self._flush()
            self._level = outer
        else:
            yield from self._inside(element, False)

    def _inside(self, element: etree._Element, preformatted: bool) -> Iterator[Block]:
        self._text(element.text, preformatted)
        for child in element:
            yield from self._element(child)
            self._text(child.tail, preformatted)

    def _text(self, text: str | None, preformatted: bool) -> None:
        if text:
            self._pieces.append(text if preformatted else _BLANKS.sub(" ", text))

    def _flush(self) -> Iterator[Block]:
        text = "".join(self._pieces)
        self._pieces.clear()
        if text.strip(" \n\t\r"):
            yield Block(text, self._level)


def _is_hidden(element: etree._Element) -> bool:
    return element.get("hidden") is not None or bool(_HIDDEN.search(element.get("style") or ""))


def _simple_row(row: etree._Element) -> str | None:
    """A table row as one line with tabs, None when its cells hold paragraphs or tables (a table used for layout)."""
    cells = [cell for cell in row if cell.tag in ("td", "th")]
    # Nested tables are refused before they are walked: looking into them first at each level would take 2^depth.
    if len(cells) < 2 or next(row.iter("table"), None) is not None:
        return None
    texts = []
    for cell in cells:
        blocks = list(blocks_of(cell))
        if len(blocks) > 1 or (blocks and len(blocks[0].text) > _LONGEST_CELL):
            return None
        texts.append(_BLANKS.sub(" ", blocks[0].text).strip() if blocks else "")
    return "\t".join(texts)
