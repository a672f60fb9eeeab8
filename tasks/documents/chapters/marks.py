"""Lines that may be headings, read by their form alone. Which of them are is decided later, by all of them together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tasks.documents.chapters.lines import Lines
from tasks.documents.chapters.model import Line, Mark
from tasks.documents.chapters.names import find_roles, is_known, rank_noun
from tasks.documents.chapters.numerals import NUMERAL, name_style, read_number
from tasks.documents.model import Heading

LONGEST_LINE = 160
LONGEST_TITLE = 30  # words; old books have titles that tell the whole chapter
LONGEST_PARAGRAPH = 5  # lines

LAST = -1  # "Chapter the Last": its number follows from its neighbours

_ORNAMENT = " \t*_#=~•·–—―-[]()<>|«»❧☙§"
_SEPARATOR = r"\s*(?:[.:,;)/|\]]|[-–—―]{1,3})+\s*"
_NOUN = r"[^\W\d_][\w'’]+\.?"
_KEYWORD = re.compile(
    rf"(?:the\s+)?(?P<noun>{_NOUN})(?:\s+|(?<=\.)|(?=[\d#]))(?:no\.\s*|nr\.\s*|#\s*)?(?:the\s+)?(?P<num>{NUMERAL}|last(?!\w))(?P<rest>.*)",
    re.IGNORECASE,
)
_ORDINAL = re.compile(rf"(?:the\s+)?(?P<num>{NUMERAL})\.?\s+(?P<noun>{_NOUN})(?P<rest>.*)", re.IGNORECASE)
_BARE = re.compile(rf"(?P<num>{NUMERAL})(?P<rest>.*)", re.IGNORECASE)
_REST = re.compile(rf"(?P<sep>{_SEPARATOR})?\s*(?P<title>.*)")
_SMALL_WORDS = "a an the of in on at to and or for with from by as is de la le les der die das und von el los y di e"
_SMALL = frozenset(_SMALL_WORDS.split())


def find_marks(lines: Lines, headings: Iterable[Heading] = ()) -> list[Mark]:
    """Every line that has the form of a heading, in order; a line may be read in several ways."""
    structure = {lines.at(heading.offset): heading for heading in headings if heading.text.strip()}
    marks: list[Mark] = []
    for line in lines.all:
        heading = structure.get(line.index)
        if heading or (len(line.text) <= LONGEST_LINE and _may_head(line)):
            marks += _read(lines, line, heading)
    return marks


def _may_head(line: Line) -> bool:
    """A cheap test that spares most lines of prose the expressions below."""
    first = line.text.lstrip(_ORNAMENT)[:1]
    return line.opens or first.isdigit() or first.isupper()


def _read(lines: Lines, line: Line, heading: Heading | None) -> Iterator[Mark]:
    text = _clean(heading.text if heading else line.text)[: 2 * LONGEST_LINE]
    level = heading.level if heading else 0
    paragraph = lines.paragraph(line.index) if line.opens else []
    for family, number, label, title, rank in _forms(text):
        alone = bool(heading) or _stands_alone(line, paragraph, title, family)
        yield Mark(line.index, line.start, line.end, family, number, label, title, rank, alone, level)
    if heading or (line.opens and line.closes):
        for role in find_roles(text.strip(" .:")):
            yield Mark(line.index, line.start, line.end, "name", None, "", text, 3, True, level, role)
    if heading:
        yield Mark(line.index, line.start, line.end, "structure", None, "", text, 3, True, level)


def _clean(text: str) -> str:
    return " ".join(text.strip(_ORNAMENT).split())


def _forms(text: str) -> Iterator[tuple[str, int | None, str, str, int]]:
    """(family, number, label, title, rank) for each way to read a line."""
    keyword = _read_keyword(text)
    if keyword:
        yield keyword
    bare = _BARE.fullmatch(text)
    if bare and not keyword:
        yield from _read_bare(bare)


def _read_keyword(text: str) -> tuple[str, int | None, str, str, int] | None:
    for pattern in (_KEYWORD, _ORDINAL):
        match = pattern.fullmatch(text)
        number = _value(match["num"]) if match else None
        if not match or number is None:
            continue
        title = _read_title(match["rest"], match["noun"])
        if title is not None:
            noun = match["noun"].rstrip(".")
            return f"noun:{noun.lower()}", number, _say(match, noun, number), title, rank_noun(noun)
    return None


def _say(match: re.Match[str], noun: str, number: int) -> str:
    """The division as a reader would say it: "Chapter 3", "Chapter the Last", "First Narrative"."""
    if number == LAST:
        return f"{noun.capitalize()} the Last"
    if match.start("num") > match.start("noun"):
        return f"{noun.capitalize()} {number}"
    numeral = match["num"].capitalize()
    return f"{numeral}{'.' if numeral.isdigit() else ''} {noun.capitalize()}"


def _value(numeral: str) -> int | None:
    if numeral.lower() == "last":
        return LAST
    return read_number(numeral)


def _read_title(rest: str, noun: str) -> str | None:
    """The title after the number; None when the line is prose. Unknown nouns must be set like headings."""
    match = _REST.fullmatch(rest)
    title = match["title"].strip() if match else ""
    separated = bool(match and match["sep"])
    if not is_known(noun) and (not noun[0].isupper() or (title and not separated)):
        return None
    if title and (len(title.split()) > LONGEST_TITLE or not (separated or looks_titled(title))):
        return None
    return title


def _read_bare(match: re.Match[str]) -> Iterator[tuple[str, int | None, str, str, int]]:
    numeral, rest = match["num"], match["rest"]
    split = _REST.fullmatch(rest)
    title = split["title"].strip() if split else ""
    if title and not (split and split["sep"]) and not looks_titled(title):
        return
    shape = "titled" if title else "bare"
    if len(title.split()) > LONGEST_TITLE:
        return
    if (number := read_number(numeral)) is not None:
        yield f"{shape}:{name_style(numeral)}", number, "", title, 2
    if len(numeral) == 1 and numeral.isalpha() and numeral.isupper():
        yield f"{shape}:letter", ord(numeral) - ord("A") + 1, "", title, 2


def _stands_alone(line: Line, paragraph: list[Line], title: str, family: str) -> bool:
    if not line.opens:
        return False
    noun = family.removeprefix("noun:") if family.startswith("noun:") else ""
    if noun and is_known(noun) and not title:
        return True
    if line.closes:
        return True
    # A heading may share its paragraph with its title, but not with prose that runs to the full width.
    short = bool(noun) and len(paragraph) <= LONGEST_PARAGRAPH
    return short and all(looks_titled(after.text) for after in paragraph[1:])


def looks_titled(text: str) -> bool:
    """Whether a line is set like a title: capitals, or a capital on each word that matters, and no end of sentence."""
    words = [word.strip("\"'“”‘’«»()[]_*.,:;!?…—–-") for word in text.split()]
    words = [word for word in words if word and word[0].isalpha()]
    if not words or len(words) > LONGEST_TITLE:
        return False
    if text.rstrip("_*\"'”’) ").endswith((",", ";")) or not (words[0][0].isupper() or not words[0][0].islower()):
        return False
    heavy = [word for word in words if word.lower() not in _SMALL and len(word) > 3] or words
    return sum(1 for word in heavy if not word[0].islower()) >= 0.75 * len(heavy)
