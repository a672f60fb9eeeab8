"""XML from strangers: no declarations, no entities, no network, bounded size and depth."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lxml import etree

from tasks.documents.archive import Archive, GuardedPart
from tasks.documents.problems import unreadable

# Declarations also hide in UTF-16, where a zero stands between the letters.
_DOCTYPE = re.compile(rb"<\x00?!\x00?D\x00?O\x00?C\x00?T\x00?Y\x00?P\x00?E", re.I)


def local(element: etree._Element) -> str:
    """An element's name without its namespace; empty for comments and instructions."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def attribute(element: etree._Element, name: str) -> str | None:
    """An attribute by its local name, whatever namespace it has (transitional, strict, none)."""
    for key, value in element.attrib.items():
        if str(key).rpartition("}")[2] == name:
            return str(value)
    return None


def child(element: etree._Element | None, *path: str) -> etree._Element | None:
    """The first descendant along a path of local names."""
    for name in path:
        if element is None:
            return None
        element = next((each for each in element if local(each) == name), None)
    return element


def parse(archive: Archive, name: str) -> etree._Element:
    """The tree of one part. Raises `unsafe_xml`, `corrupt_file`, and what the archive raises."""
    data = archive.read(name)
    if _DOCTYPE.search(data):
        raise unreadable("unsafe_xml", f"{name} has a DOCTYPE")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False, load_dtd=False)
    try:
        return etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise unreadable("corrupt_file", f"{name}: {type(error).__name__}") from error


def parse_optional(archive: Archive, name: str | None) -> etree._Element | None:
    """The same for a part that may be missing."""
    return parse(archive, name) if name and name in archive else None


def stream(archive: Archive, name: str, container: tuple[str, str]) -> Iterator[etree._Element]:
    """The children of one element of a part, each freed after use: memory stays small.

    `container`: the local names of that element's parent and of the element.
    """
    with archive.open(name) as part:
        try:
            yield from _children(part, name, container)
        except etree.XMLSyntaxError as error:
            raise unreadable("corrupt_file", f"{name}: {type(error).__name__}") from error


def _children(part: GuardedPart, name: str, container: tuple[str, str]) -> Iterator[etree._Element]:
    events = etree.iterparse(
        part,
        events=("start", "end"),
        resolve_entities=False,
        no_network=True,
        huge_tree=False,
        load_dtd=False,
    )
    parent: etree._Element | None = None
    for number, (event, element) in enumerate(events):
        if number == 0 and element.getroottree().docinfo.doctype:
            raise unreadable("unsafe_xml", f"{name} has a DOCTYPE")
        if event == "start" and parent is None:
            above = element.getparent()
            if above is not None and (local(above), local(element)) == container:
                parent = element
        elif event == "end" and parent is not None and element.getparent() is parent:
            yield element
            # The children before are dropped; the last one must stay, because the parser still hangs on to it.
            element.clear(keep_tail=False)
            while element.getprevious() is not None:
                del parent[0]
