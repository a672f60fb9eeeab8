"""What a measured document is listed and found by. Everything in it was counted or looked up; nothing is judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks.analysis.categories import Category
from tasks.analysis.languages import NAMES
from tasks.analysis.survey import Survey
from tasks.exports.escape import flatten
from tasks.pipeline import Blob, Description

_MOST_NAMED = 3
_LONGEST = 100  # characters of a word or a name that comes from the document


def describe_survey(
    found: Survey,
    categories: Sequence[Category],
    *,
    author: str | None,
    pages: int | None,
    text: Blob | None = None,
    final: bool = False,
) -> Description:
    """The description of a document that was measured. `text`: UTF-8, None to leave it as it is."""
    return Description(
        summary=_sum_up(found, categories),
        keywords=tuple(keyword.word for keyword in found.keywords if len(keyword.word) <= _LONGEST),
        categories={category.name: category.value for category in categories},
        language=None if found.language == "other" else found.language,
        metadata=_list_numbers(found, author, pages),
        text=text,
        final=final,
    )


def _sum_up(found: Survey, categories: Sequence[Category]) -> str:
    sorts = {category.name: category.value for category in categories}
    kind = ", ".join(sorts[name] for name in ("length", "form") if sorts.get(name, "unclear") != "unclear")
    chapters = f" in {found.chapters:,} chapters" if found.chapters > 1 else ""
    minutes = f"{found.minutes:,} minute{'' if found.minutes == 1 else 's'}"
    size = f"{found.words:,} word{'' if found.words == 1 else 's'}{chapters}, {minutes} to read"
    first = f"{kind or 'text'}, in {NAMES[found.language]}: {size}."
    named = [flatten(person.name)[:_LONGEST] for person in found.people[:_MOST_NAMED]]
    return first[0].upper() + first[1:] + (f" Named most: {', '.join(named)}." if named else "")


def _list_numbers(found: Survey, author: str | None, pages: int | None) -> dict[str, Any]:
    known = {
        "words": found.words,
        "chapters": found.chapters,
        "minutes": found.minutes,
        "pages": pages,
        "dialogue_share": found.dialogue_share,
        "reading_ease": found.ease,
        "author": flatten(author)[:_LONGEST] if author else None,
    }
    return {name: value for name, value in known.items() if value is not None}
