"""The summary of a document that a person decides about, and the record of what was decided. As JSON and Markdown."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, JsonValue

from tasks.analysis.categories import Category
from tasks.analysis.keywords import FEWEST_TIMES, SHORTEST
from tasks.analysis.languages import NAMES
from tasks.analysis.survey import MOST_OPENINGS, Survey
from tasks.exports.escape import escape_markdown
from tasks.exports.markdown import WAYS, number, share
from tasks.exports.tables import write_table
from tasks.pipeline import Decision

HOW = {
    "language": "The one of seven whose commonest words stand in the text most often; other, when none is common.",
    "words": "Runs of letters; a hyphenated word is one. Headings, and what stands before and after, are left out.",
    "dialogue": "Words between the quotation marks this text uses, of all words. Titles in marks count too.",
    "ease": "From the length of sentences and the syllables of words, by the formula of the language.",
    "keywords": f"Words of {SHORTEST} letters or more that stand in the text {FEWEST_TIMES} times or more, without "
    "those that every text uses and the names of people. English plurals count with their singular. Nothing is "
    "compared with other texts.",
    "people": "Names, found by their capitals and the verbs beside them; not in German, where all nouns have capitals.",
    "openings": f"The first sentence of each of the first {MOST_OPENINGS} chapters, word for word.",
    "categories": "Fixed rules over these numbers. Each says which.",
}


class Division(BaseModel):
    """How the text was divided."""

    found_by: str
    confidence: float
    left_out_words: int = Field(description="Words of headings, and of what stands before and after the text proper.")


class Summary(BaseModel):
    """What was measured about one document. `schema` names the shape; a change that breaks readers changes it."""

    schema_: Literal["ledgerline.summary/1"] = Field(
        default="ledgerline.summary/1", alias="schema", serialization_alias="schema"
    )
    title: str
    filename: str
    author: str | None
    kind: str
    bytes: int
    sha256: str
    pages: int | None = Field(description="Pages of the document, where it has pages.")
    division: Division
    survey: Survey
    categories: list[Category]
    how: dict[str, str] = Field(default=HOW, description="How each number was measured.")
    warnings: list[str]


class Fields(BaseModel):
    """What a document is known by: as it was measured, where the reviewer corrected nothing."""

    title: str
    summary: str
    keywords: list[str]
    categories: dict[str, str]
    language: str | None


class Record(BaseModel):
    """A summary, what a person corrected and decided about it, and what the document is known by in the end."""

    schema_: Literal["ledgerline.record/1"] = Field(
        default="ledgerline.record/1", alias="schema", serialization_alias="schema"
    )
    decision: Decision
    fields: Fields
    summary: Summary


def write_json(what: Summary | Record) -> bytes:
    """UTF-8 JSON, the same bytes for the same content."""
    return what.model_dump_json(indent=2, by_alias=True).encode()


def write_summary(summary: Summary) -> bytes:
    """The summary as Markdown, UTF-8. Everything that comes from the document is escaped."""
    return _join(_head(summary.title), _body(summary))


def write_record(record: Record) -> bytes:
    """The record as Markdown, UTF-8. Everything that comes from the document or a person is escaped."""
    decision = record.decision
    rows = [("Decision", decision.decision), ("By", str(decision.by or "–"))]
    rows += [("Comment", escape_markdown(decision.comment) or "–")]
    decided = ["## Decision", write_table(("", ""), rows)]
    return _join(_head(record.fields.title), decided, _corrections(decision), _body(record.summary))


def _join(*parts: list[str]) -> bytes:
    return ("\n\n".join(block for part in parts for block in part) + "\n").encode()


def _head(title: str) -> list[str]:
    return [
        f"# {escape_markdown(title) or 'Untitled'}",
        "*Everything here was counted or computed from the document; nothing was judged or made up.*",
    ]


def _body(summary: Summary) -> list[str]:
    return [
        *_glance(summary),
        *_categories(summary),
        *_keywords(summary),
        *_people(summary),
        *_openings(summary),
        *_warnings(summary),
        *_how(),
    ]


def _corrections(decision: Decision) -> list[str]:
    rows = [(name.capitalize(), _show(edit["from"]), _show(edit["to"])) for name, edit in decision.edits.items()]
    return ["## Corrected by the reviewer", write_table(("", "From", "To"), rows)] if rows else []


def _show(value: JsonValue) -> str:
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    elif isinstance(value, dict):
        value = ", ".join(f"{name}: {part}" for name, part in value.items())
    return escape_markdown(str(value or "")) or "–"


def _glance(summary: Summary) -> list[str]:
    found, division = summary.survey, summary.division
    pages = f", {summary.pages:,} pages" if summary.pages else ""
    ease = f"{number(found.ease)} ({found.ease_formula}; higher is easier)" if found.ease is not None else "–"
    divided = f"{found.chapters:,}, divided {WAYS.get(division.found_by, 'by its headings')}"
    rows = [
        ("File", f"{escape_markdown(summary.filename)} ({summary.kind}, {summary.bytes:,} bytes{pages})"),
        ("Author, as the file says", escape_markdown(summary.author or "") or "–"),
        ("Language", NAMES[found.language]),
        ("Length", f"{found.words:,} words, {found.minutes:,} min at 240 words a minute"),
        ("Left out", f"{division.left_out_words:,} words, of headings and before and after the text"),
        ("Chapters", f"{divided} (confidence {division.confidence:.0%})"),
        ("Sentences", f"{found.sentences:,}, of {found.sentence_mean:.1f} words on average"),
        ("In quotation marks", share(found.dialogue_share)),
        ("Reading ease", ease),
    ]
    return ["## At a glance", write_table(("", ""), rows)]


def _categories(summary: Summary) -> list[str]:
    rows = [(c.name.capitalize(), c.value, escape_markdown(c.because), c.rule) for c in summary.categories]
    return ["## Categories", write_table(("", "Value", "Because", "Rule"), rows)]


def _keywords(summary: Summary) -> list[str]:
    rows = [(escape_markdown(k.word), f"{k.times:,}", f"{k.per_10_000:,.1f}") for k in summary.survey.keywords]
    if not rows:
        return []
    return ["## Most used words", write_table(("Word", "Times:", "In 10,000 words:"), rows)]


def _people(summary: Summary) -> list[str]:
    rows = [(escape_markdown(p.name), f"{p.mentions:,}", f"{p.speaks:,}") for p in summary.survey.people]
    return ["## People", write_table(("Name", "Named:", "Speaks:"), rows)] if rows else []


def _openings(summary: Summary) -> list[str]:
    rows = [
        (escape_markdown(o.title) or "–", escape_markdown(o.quote.text) + (" …" if o.quote.cut else ""))
        for o in summary.survey.openings
    ]
    return ["## First lines", write_table(("Under", "Begins"), rows)] if rows else []


def _warnings(summary: Summary) -> list[str]:
    lines = [f"- {escape_markdown(warning)}" for warning in summary.warnings]
    return ["## Mind", "\n".join(lines)] if lines else []


def _how() -> list[str]:
    return ["## How it was measured", "\n".join(f"- **{name.capitalize()}.** {text}" for name, text in HOW.items())]
