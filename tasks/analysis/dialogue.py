"""What is said aloud, by the quotation marks the text itself uses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from tasks.analysis.words import Prose, count_words

Span = tuple[int, int]

_PAIRS = {
    "curly": ("“", "”"),
    "guillemets": ("«", "»"),
    "low": ("„", "“"),
    "reversed": ("»", "«"),
    "corner": ("「", "」"),
    "curly single": ("‘", "’"),
}
_OPEN_SINGLE = re.compile(r"(?:(?<=\s)|(?<=[(—–-])|^)'(?=[^\W\d_]|[\"“(\[—–…])")
_CLOSE_SINGLE = re.compile(r"(?<=[^\s'])'(?![^\W_])")
_DASH = re.compile(r"[—–―]\s?(?=[^\W\d_¿¡])|- (?=[^\W\d_¿¡])")
FEWEST = 2  # paragraphs with a style before it is taken for the text's own


def find_style(prose: Prose) -> str | None:
    """The way this text marks speech; None when it marks none."""
    paragraphs = [prose.text[p.start : p.end] for p in prose.paragraphs]
    counts = {style: sum(1 for p in paragraphs if test(p)) for style, test in _STYLES.items()}
    best = max(counts, key=lambda style: counts[style])
    return best if counts[best] >= min(FEWEST, max(1, len(paragraphs) // 20)) else None


def measure_dialogue(prose: Prose, style: str | None) -> float | None:
    """Share of the words that are said aloud; None when no style of marking was found."""
    if style is None or not prose.words:
        return None
    spoken = 0
    for paragraph in prose.paragraphs:
        text = prose.text[paragraph.start : paragraph.end]
        spoken += sum(count_words(text[a:b]) for a, b in find_speech(text, style))
    return min(1.0, spoken / len(prose.words))


def find_speech(paragraph: str, style: str) -> Iterator[Span]:
    """Where speech stands in one paragraph. A quotation that is not closed runs to the paragraph's end."""
    if style == "dash":
        yield from _find_dash(paragraph)
    elif style == "straight":
        marks = [match.start() for match in re.finditer('"', paragraph)]
        yield from ((a + 1, b) for a, b in zip(marks[::2], [*marks[1::2], len(paragraph)], strict=False))
    elif style == "straight single":
        yield from _find_pairs(paragraph, _OPEN_SINGLE, _CLOSE_SINGLE)
    else:
        opening, closing = _PAIRS[style]
        # A closing single mark inside a word is an apostrophe.
        end = r"’(?![^\W_])" if style == "curly single" else re.escape(closing)
        yield from _find_pairs(paragraph, re.compile(re.escape(opening)), re.compile(end))


def _find_pairs(paragraph: str, opening: re.Pattern[str], closing: re.Pattern[str]) -> Iterator[Span]:
    position = 0
    while start := opening.search(paragraph, position):
        end = closing.search(paragraph, start.end())
        yield start.end(), end.start() if end else len(paragraph)
        if not end:
            return
        position = end.end()


def _find_dash(paragraph: str) -> Iterator[Span]:
    start = _DASH.match(paragraph)
    if start:
        yield start.end(), len(paragraph)


def _opens(mark: str, before: str = r"\S") -> Callable[[str], bool]:
    """A test for a mark where a quotation can begin: after a space, with something right behind it."""
    pattern = re.compile(rf"(?:^|[\s(—–]){re.escape(mark)}(?={before})")
    return lambda paragraph: bool(pattern.search(paragraph))


_STYLES: dict[str, Callable[[str], bool]] = {
    "curly": _opens("“"),
    "straight": lambda p: '"' in p,
    "guillemets": _opens("«", r"\s?\S"),
    "low": lambda p: "„" in p,
    "reversed": _opens("»", r"[^\W\d_]"),
    "corner": lambda p: "「" in p,
    "curly single": _opens("‘"),
    "straight single": lambda p: bool(_OPEN_SINGLE.search(p)) and bool(re.search(r"[.,!?…—-]'(?![^\W_])", p)),
    "dash": lambda p: bool(_DASH.match(p)),
}
