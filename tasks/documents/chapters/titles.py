"""What a heading says, and where the text after it begins."""

from __future__ import annotations

from tasks.documents.chapters.lines import Lines
from tasks.documents.chapters.marks import looks_titled
from tasks.documents.chapters.model import Line, Mark

LONGEST_NAME = 12  # words of a title that stands on its own line
MOST_LINES = 3
_QUOTES = "\"“”«»„"


def find_title(lines: Lines, mark: Mark, limit: int) -> tuple[str, int]:
    """(title, where the body begins). Lines below the heading that are set like titles belong to it."""
    parts, index = [mark.title] if mark.title else [], mark.line + 1
    while index < len(lines.all) and len(parts) < MOST_LINES and lines.all[index].start < limit:
        line = lines.all[index]
        if not _continues(lines, line, bool(parts)):
            break
        parts.append(clean_title(line.text))
        index += 1
    body = lines.all[index].start if index < len(lines.all) else len(lines.text)
    return clean_title(parts[0]) if parts else "", min(body, limit) if limit > mark.end else limit


def clean_title(text: str) -> str:
    """A title without the marks that plain text uses for emphasis, as one line."""
    return " ".join(text.strip(" \t*_#=~").replace("_", "").split()).rstrip(":;,–—- ")


def _continues(lines: Lines, line: Line, titled: bool) -> bool:
    paragraph = lines.paragraph(line.index)
    bare = line.text.strip("*_ ")
    if len(paragraph) > 2 or len(bare.split()) > LONGEST_NAME or line.gap > 3:
        return False
    if bare.startswith("(") and bare.endswith(")"):
        return True
    if titled or len(paragraph) > 1 or bare.endswith((",", ";", ":", "—", "--")):
        return False
    if bare[:1] in _QUOTES or bare.endswith((".", "?", "!", "\"", "”", "…")):
        return bare.isupper() and len(bare.split()) > 1
    return looks_titled(bare)
