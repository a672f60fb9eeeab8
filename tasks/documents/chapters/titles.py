"""What a heading says, and where the text after it begins."""

from __future__ import annotations

from tasks.documents.chapters.lines import Lines
from tasks.documents.chapters.marks import looks_titled
from tasks.documents.chapters.model import Line, Mark

LONGEST_NAME = 12  # words of a title that stands on its own line
MOST_LINES = 3
LONG_LINE = 45  # characters; a shorter title does not run on into the next line
_QUOTES = '"“”«»„'


def find_title(lines: Lines, mark: Mark, limit: int) -> tuple[str, int]:
    """(title, where the body begins). Lines below the heading that are set like titles belong to it."""
    own = mark.title if mark.rank < 3 else ""  # a name is its own label
    parts, index = [own] if own else [], mark.line + 1
    while index < len(lines.all) and len(parts) < MOST_LINES and lines.all[index].start < limit:
        line = lines.all[index]
        if parts and _is_wrapped(parts[-1], line):
            parts[-1] = clean_title(f"{parts[-1]} {line.text}")
        elif _continues(lines, line, bool(parts)):
            parts.append(clean_title(line.text))
        else:
            break
        index += 1
    body = lines.all[index].start if index < len(lines.all) else len(lines.text)
    return clean_title(parts[0]) if parts else "", min(body, limit) if limit > mark.end else limit


def clean_title(text: str) -> str:
    """A title without the marks that plain text uses for emphasis, as one line."""
    return " ".join(text.strip(" \t*_#=~").replace("_", "").split()).rstrip(":;,–—- ")


def _is_wrapped(title: str, line: Line) -> bool:
    """Whether a line is the end of a title that was too long for the one above."""
    return (
        len(title) >= LONG_LINE
        and len(line.text.split()) <= 6
        and line.closes
        and not line.text.endswith(".")
        and line.gap < 3
        and looks_titled(line.text.split(maxsplit=1)[-1])
    )


def _continues(lines: Lines, line: Line, titled: bool) -> bool:
    paragraph = lines.paragraph(line.index)
    bare = line.text.strip("*_ ")
    if len(paragraph) > 2 or len(bare.split()) > LONGEST_NAME or line.gap > 3:
        return False
    if bare.startswith("(") and bare.endswith(")"):
        return True
    if titled or len(paragraph) > 1 or bare.endswith((",", ";", ":", "—", "--")):
        return False
    if bare[:1] in _QUOTES or bare.endswith((".", "?", "!", '"', "”", "…")):
        return bare.isupper() and len(bare.split()) > 1
    return looks_titled(bare)
