"""EPUB: the pages of its spine one after the other, without its navigation page."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from lxml import etree

from tasks.documents.archive import Archive, open_archive
from tasks.documents.builder import Block, TextBuilder
from tasks.documents.html import blocks_of, parse_html
from tasks.documents.model import ExtractedText
from tasks.documents.problems import unreadable
from tasks.documents.xml import attribute, child, local

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_PAGES = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml", "text/x-oeb1-document")
_XML_HEAD = re.compile(rb"<!DOCTYPE[^>\[]*(\[[^\]]*\])?[^>]*>", re.I)


def extract_epub(path: Path) -> ExtractedText:
    """Read an e-book. Raises `corrupt_file`, `drm_protected`, `unsafe_xml`, `zip_bomb`, `no_text`."""
    with open_archive(path) as archive:
        book_at = _book_at(archive)
        book = _parse(archive, book_at)
        pages = list(_pages(archive, book, posixpath.dirname(book_at)))
        _refuse_locked(archive, pages)
        builder = TextBuilder()
        warnings: list[str] = []
        for page in pages:
            builder.add(Block(""))
            for block in _blocks(archive, page, warnings):
                builder.add(block)
        metadata = child(book, "metadata")
        return builder.build(
            "epub-html", title=_text(metadata, "title"), author=_text(metadata, "creator"), warnings=warnings
        )


def _book_at(archive: Archive) -> str:
    """Name of the package file, which lists everything."""
    if _CONTAINER in archive:
        for element in _parse(archive, _CONTAINER).iter():
            full_path = attribute(element, "full-path") if local(element) == "rootfile" else None
            if full_path and full_path in archive:
                return full_path
    found = next((name for name in archive.names if name.endswith(".opf")), None)
    if found is None:
        raise unreadable("corrupt_file", "the e-book has no package file")
    return found


def _pages(archive: Archive, book: etree._Element, folder: str) -> Iterator[str]:
    """Names of the text pages in reading order."""
    manifest = {attribute(item, "id"): item for item in _children(book, "manifest")}
    for reference in _children(book, "spine"):
        item = manifest.get(attribute(reference, "idref"))
        if item is None or "nav" in (attribute(item, "properties") or "").split():
            continue
        name = posixpath.normpath(posixpath.join(folder, unquote(attribute(item, "href") or "")))
        if attribute(item, "media-type") in _PAGES and name in archive:
            yield name


def _blocks(archive: Archive, page: str, warnings: list[str]) -> Iterator[Block]:
    data = archive.read(page)
    if not data.strip():
        return
    root, found = parse_html(data)
    warnings += [warning for warning in found if warning not in warnings]
    yield from blocks_of(root)


def _refuse_locked(archive: Archive, pages: list[str]) -> None:
    """Fonts may be scrambled in an open book; pages may not."""
    if _ENCRYPTION not in archive:
        return
    for element in _parse(archive, _ENCRYPTION).iter():
        if local(element) == "CipherReference" and unquote(attribute(element, "URI") or "") in pages:
            raise unreadable("drm_protected", "a page of the spine is encrypted")


def _parse(archive: Archive, name: str) -> etree._Element:
    """A package part. Old books name a DOCTYPE here, which is allowed as long as it declares nothing itself."""
    data = archive.read(name)
    match = _XML_HEAD.search(data)
    if match and match[1]:
        raise unreadable("unsafe_xml", f"{name} has declarations")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False, load_dtd=False, recover=True)
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise unreadable("corrupt_file", f"{name}: {type(error).__name__}") from error
    if root is None:
        raise unreadable("corrupt_file", f"{name} holds no XML")
    return root


def _children(book: etree._Element, name: str) -> list[etree._Element]:
    parent = child(book, name)
    return [each for each in parent if local(each)] if parent is not None else []


def _text(metadata: etree._Element | None, name: str) -> str | None:
    found = child(metadata, name)
    return found.text if found is not None else None
