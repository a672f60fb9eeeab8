"""What a Word file holds beside its body: where the parts are, what the styles mean, notes and properties."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

from lxml import etree

from tasks.documents.archive import Archive
from tasks.documents.problems import unreadable
from tasks.documents.xml import attribute, child, local, parse, parse_optional

_HEADING_NAME = re.compile(r"heading ([1-9])$")
# Word itself stops at ten levels of inheritance.
_MAX_INHERITANCE = 20


@dataclass(frozen=True)
class Style:
    """A paragraph or character style as declared; None means that it inherits."""

    name: str
    based_on: str | None
    outline: int | None
    hidden: bool | None


class Styles:
    """Answers what a style id means, following what it is based on."""

    def __init__(self, styles: dict[str, Style]) -> None:
        self._styles = styles

    def level(self, style_id: str | None) -> int | None:
        """Heading level, None for body text. A style's own outline level 10 says body text."""
        for style in self._chain(style_id):
            if style.outline is not None:
                return style.outline + 1 if style.outline < 9 else None
            if match := _HEADING_NAME.match(style.name):
                return int(match[1])
        return None

    def hidden(self, style_id: str | None) -> bool:
        """Whether text of this style is not shown."""
        return next((style.hidden for style in self._chain(style_id) if style.hidden is not None), False)

    def is_title(self, style_id: str | None) -> bool:
        """Whether this is the style of the book's title."""
        style = self._styles.get(style_id or "")
        return style is not None and style.name == "title"

    def _chain(self, style_id: str | None) -> list[Style]:
        chain: list[Style] = []
        while style_id in self._styles and len(chain) < _MAX_INHERITANCE:
            chain.append(self._styles[style_id])
            style_id = chain[-1].based_on
        return chain


@dataclass(frozen=True)
class Package:
    """The parts of a Word file that its body refers to. `notes` by (kind, id)."""

    main: str
    styles: Styles
    notes: dict[tuple[str, str], etree._Element]
    comments_part: str | None
    title: str | None
    author: str | None

    def comments(self, archive: Archive) -> int:
        """How many comments stand in the margin."""
        root = parse_optional(archive, self.comments_part)
        return 0 if root is None else sum(1 for each in root if local(each) == "comment")


def open_package(archive: Archive) -> Package:
    """Find the parts by their relationships. Raises `corrupt_file` when there is no body."""
    top = _relations(archive, "")
    main = top.get("officeDocument", "word/document.xml")
    if main not in archive:
        raise unreadable("corrupt_file", f"the archive lacks {main}")
    parts = _relations(archive, main)
    properties = parse_optional(archive, top.get("core-properties"))
    return Package(
        main=main,
        styles=Styles(_styles(parse_optional(archive, parts.get("styles")))),
        notes=_notes(archive, parts),
        comments_part=parts.get("comments"),
        title=_text(properties, "title"),
        author=_text(properties, "creator"),
    )


def _relations(archive: Archive, part: str) -> dict[str, str]:
    """Targets of a part's internal relationships by the last word of their type, as names in the archive."""
    folder, name = posixpath.split(part)
    root = parse_optional(archive, posixpath.join(folder, "_rels", f"{name}.rels"))
    result: dict[str, str] = {}
    for relation in root if root is not None else ():
        target = attribute(relation, "Target") or ""
        if local(relation) == "Relationship" and attribute(relation, "TargetMode") != "External" and target:
            kind = (attribute(relation, "Type") or "").rpartition("/")[2]
            result.setdefault(kind, posixpath.normpath(posixpath.join("/", folder, target)).lstrip("/"))
    return result


def _styles(root: etree._Element | None) -> dict[str, Style]:
    result: dict[str, Style] = {}
    for element in root if root is not None else ():
        style_id = attribute(element, "styleId")
        if local(element) == "style" and style_id:
            result[style_id] = Style(
                name=(_setting(element, "name") or "").lower(),
                based_on=_setting(element, "basedOn"),
                outline=_number(_setting(element, "pPr", "outlineLvl")),
                hidden=_flag(child(element, "rPr", "vanish")),
            )
    return result


def _notes(archive: Archive, parts: dict[str, str]) -> dict[tuple[str, str], etree._Element]:
    """Footnotes and endnotes, without the separators that Word keeps among them."""
    result: dict[tuple[str, str], etree._Element] = {}
    for kind in ("footnote", "endnote"):
        part = parts.get(f"{kind}s")
        root = parse(archive, part) if part and part in archive else None
        for note in root if root is not None else ():
            if local(note) == kind and attribute(note, "type") in (None, "normal"):
                result[kind, attribute(note, "id") or ""] = note
    return result


def _setting(element: etree._Element, *path: str) -> str | None:
    found = child(element, *path)
    return attribute(found, "val") if found is not None else None


def _number(value: str | None) -> int | None:
    return int(value) if value is not None and value.isdigit() else None


def _flag(element: etree._Element | None) -> bool | None:
    return None if element is None else attribute(element, "val") not in ("0", "false", "off")


def _text(root: etree._Element | None, name: str) -> str | None:
    found = child(root, name)
    return found.text if found is not None else None
