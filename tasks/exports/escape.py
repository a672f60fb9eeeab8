"""A writer's words made safe to stand in Markdown and SVG. Cells of tables: tasks/cells."""

from __future__ import annotations

import re
from xml.sax.saxutils import escape as escape_xml

# Control characters, and those that turn the direction of text around what follows them.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
_SIGNS = re.compile(r"([\\`*_\[\]~|])")
_LINE_START = re.compile(r"^([-+=#]|\d+(?=[.)](?:\s|$)))")


def flatten(text: str) -> str:
    """One line, without characters that cannot be seen."""
    return _UNSEEN.sub("", " ".join(text.split()))


def escape_markdown(text: str) -> str:
    """Text that shows as it is in Markdown, in a table cell too: no markup, HTML, link or mention comes of it."""
    text = flatten(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = _SIGNS.sub(r"\\\1", text)
    text = _LINE_START.sub(_defuse, text)
    return text.replace("://", "&#58;//").replace("www.", "www&#46;").replace("@", "&#64;")


def _defuse(match: re.Match[str]) -> str:
    """A list item's number keeps its digits and loses its meaning: 1. becomes 1\\."""
    sign = match.group()
    return f"{sign}\\" if sign[0].isdigit() else f"\\{sign}"


def escape_svg(text: str) -> str:
    """Text for an SVG element or attribute."""
    return escape_xml(flatten(text), {'"': "&quot;", "'": "&#39;"})
