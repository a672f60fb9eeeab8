"""The cast, as Markdown tables."""

from __future__ import annotations

from tasks.analysis.book import Synthesis
from tasks.analysis.cast import Character
from tasks.exports.charts import draw_presence
from tasks.exports.escape import escape_markdown
from tasks.exports.tables import write_table

MOST = 25
MOST_ALIASES = 4
FEWEST_TOGETHER = 2


def write_people(book: Synthesis) -> list[str]:
    """The table of people and the table of pairs; empty when nobody is named."""
    if not book.cast:
        return []
    head = ("Name", "Also", "Named:", "Speaks:", "Chapters:", "First:", "Last:", "From beginning to end")
    rows = [_write_person(person) for person in book.cast[:MOST]]
    return [write_table(head, rows), *_write_pairs(book)]


def _write_person(person: Character) -> tuple[str, ...]:
    return (
        escape_markdown(person.name),
        escape_markdown(", ".join(person.aliases[:MOST_ALIASES])) or " ",
        f"{person.mentions:,}",
        f"{person.speaks:,}",
        str(person.chapters),
        str(person.first),
        str(person.last),
        f"`{draw_presence(person.by_chapter)}`",
    )


def _write_pairs(book: Synthesis) -> list[str]:
    pairs = [pair for pair in book.pairs if pair.together >= FEWEST_TOGETHER]
    if not pairs:
        return []
    rows = [
        (escape_markdown(pair.a), escape_markdown(pair.b), str(pair.together), f"{pair.together / pair.either:.0%}")
        for pair in pairs
    ]
    head = ("", "", "Chapters together:", "Of the chapters with either:")
    return ["Who shares chapters (each named at least twice in them):", write_table(head, rows)]
