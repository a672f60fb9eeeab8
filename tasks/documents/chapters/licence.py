"""The licence that distributors of free texts put around a book: kept apart, never analysed."""

from __future__ import annotations

import re

_START = re.compile(r"^[ \t]*\*{3,}[ \t]*START OF\b[^\n]*(?:\n(?![ \t]*\n)[^\n]*)*", re.MULTILINE | re.IGNORECASE)
_SMALL_PRINT = re.compile(r"^[ \t]*\*END[ *]+THE SMALL PRINT[^\n]*", re.MULTILINE | re.IGNORECASE)
_END = re.compile(
    r"^[ \t]*(?:\*{3,}[ \t]*END OF (?:THE|THIS)\b|End of (?:the )?Project Gutenberg|"
    r"\*{3,}[ \t]*START:? FULL LICEN[CS]E)[^\n]*",
    re.MULTILINE | re.IGNORECASE,
)
_CREDIT = re.compile(
    r"\s*(?:Produced by|E-?text prepared by|Transcribed (?:from|by))\b[^\n]*(?:\n[^\n]+)*", re.IGNORECASE
)
FURTHEST = 0.2  # of the text: a licence header lies before this


def find_licence(text: str) -> tuple[int, int]:
    """(start, end) of the book inside its distributor's licence; (0, len(text)) when there is none."""
    start = 0
    for pattern in (_SMALL_PRINT, _START):
        match = pattern.search(text, 0, max(20_000, int(len(text) * FURTHEST)))
        start = max(start, match.end() if match else 0)
    if start and (credit := _CREDIT.match(text, start)):
        start = credit.end()
    found = _END.search(text, start)
    return start, found.start() if found else len(text)
