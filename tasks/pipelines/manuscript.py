"""The manuscript report: a document is read, divided into chapters, measured chapter by chapter, and put together.

    extract → sections → chapters → analyze (each chapter) → synthesize → report

A chapter item carries its own text and nothing about its neighbours, so that a revised manuscript pays only for the
chapters that changed.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.analysis.book import Synthesis, synthesize_book
from tasks.analysis.categories import categorise
from tasks.analysis.chapter import analyze_chapter
from tasks.analysis.excerpts import find_invented
from tasks.analysis.languages import guess_language
from tasks.analysis.model import ChapterAnalysis
from tasks.analysis.notes import write_notes
from tasks.analysis.survey import survey
from tasks.analysis.words import count_words
from tasks.documents.chapters import Section, find_chapters
from tasks.documents.extract import choose_engine
from tasks.documents.extract import extract as read_document
from tasks.documents.kinds import KINDS
from tasks.documents.model import Heading
from tasks.errors import Permanent
from tasks.exports.description import describe_survey
from tasks.exports.markdown import write_markdown
from tasks.exports.picture import write_svg
from tasks.exports.report import Division, LeftOut, ManuscriptReport, write_json
from tasks.exports.spreadsheet import write_csv
from tasks.pipeline import Blob, Context, Document, Pipeline, Source

FEWEST_WORDS = 20
MOST_KEYWORDS = 15


class ManuscriptParams(BaseModel):
    """What a caller may choose."""

    model_config = ConfigDict(extra="forbid")

    language: Literal["auto", "en", "de", "fr", "es", "it", "pt", "nl", "other"] = Field(
        default="auto", description="Language of the text; auto finds it out."
    )
    min_chapter_words: int = Field(
        default=20, ge=0, le=5_000, description="Chapters with fewer words are named in the report but not measured."
    )
    quotes: bool = Field(default=True, description="Show the first and last sentence of each chapter.")


class Extracted(BaseModel):
    """A document that was read. `text` is UTF-8."""

    text: Blob
    words: int
    headings: list[Heading]
    pages: int | None
    engine: str
    author: str | None
    warnings: list[str]


class Sections(BaseModel):
    """The document divided. `measured` are indexes of the sections that become chapters."""

    language: str
    division: Division
    sections: list[Section]
    measured: list[int]


class Chapter(BaseModel):
    """One chapter to measure. `text` is UTF-8."""

    number: int | None
    title: str
    part: str
    language: str
    text: Blob


class Report(BaseModel):
    """What the job gives back: the artifacts' names, and the numbers a list of jobs can show."""

    artifacts: list[str]
    title: str
    language: str
    words: int
    chapters: int
    notes: int


manuscript = Pipeline("manuscript", title="Manuscript report", version=2, accepts=tuple(KINDS), params=ManuscriptParams)


@manuscript.step(stage="parsing", timeout_s=300, memory_mb=1024, attempts=3, failure="parse", weight=3)
def extract(source: Source, context: Context) -> Extracted:
    """Read the document. After a parser was killed, the slower and safer engine reads PDFs."""
    context.progress(0, 1, "Reading the document")
    engine = choose_engine(source.kind, context.attempt, context.previous_error)
    found = read_document(context.path(source.blob), source.kind, engine=engine)
    words = count_words(found.text)
    if words < FEWEST_WORDS:
        raise Permanent(
            "too_short" if words else "no_text", _say_too_short(words), detail=f"{words} words, engine {found.engine}"
        )
    context.progress(1, 1, f"Read {words:,} words")
    return Extracted(
        text=context.write(found.text.encode()),
        words=words,
        headings=found.headings,
        pages=found.pages,
        engine=found.engine,
        author=found.author,
        warnings=found.warnings,
    )


@manuscript.step(stage="chunking", weight=1)
def sections(extract: Extracted, params: ManuscriptParams, context: Context) -> Sections:
    """Find chapters, parts, and what stands before and after the story."""
    context.progress(0, 1, "Looking for chapters")
    text = context.read(extract.text).decode()
    found = find_chapters(text, extract.headings)
    lengths = [count_words(text[section.body : section.end]) for section in found]
    measured = _choose_measured(found, lengths, params.min_chapter_words)
    story = "\n\n".join(text[found[i].body : found[i].end] for i in measured)
    language = guess_language(story) if params.language == "auto" else params.language
    context.progress(1, 1, f"Found {len(measured)} chapter{'' if len(measured) == 1 else 's'}")
    return Sections(language=language, division=_describe(found, lengths, measured), sections=found, measured=measured)


@manuscript.step(stage="chunking", weight=1)
def chapters(extract: Extracted, sections: Sections, context: Context) -> list[Chapter]:
    """Cut the text into chapters."""
    text = context.read(extract.text).decode()
    parts = [section for section in sections.sections if section.kind == "part"]
    cut = []
    for done, i in enumerate(sections.measured, 1):
        section = sections.sections[i]
        part = next((p.title for p in reversed(parts) if p.start <= section.start < p.end), "")
        body = text[section.body : section.end].strip()
        cut.append(
            Chapter(
                number=section.number,
                title=section.title,
                part=part,
                language=sections.language,
                text=context.write(body.encode()),
            )
        )
        context.progress(done, len(sections.measured), "Cutting the text into chapters")
    return cut


@manuscript.step(stage="analyzing", map="chapters", weight=6)
def analyze(item: Chapter, context: Context) -> ChapterAnalysis:
    """Measure one chapter."""
    context.progress(0, 1, f"Measuring {item.title}")
    text = context.read(item.text).decode()
    found = analyze_chapter(text, number=item.number, title=item.title, part=item.part, language=item.language)
    context.progress(1, 1, f"Measured {item.title}")
    return found


@manuscript.step(stage="analyzing", version=2, weight=1)
def synthesize(analyze: list[ChapterAnalysis], extract: Extracted, context: Context) -> Synthesis:
    """Put the chapters together: lengths, pace, tone, cast, language. The document is known by that from now on."""
    context.progress(0, 1, "Putting the chapters together")
    book = synthesize_book(analyze)
    found = survey(analyze, MOST_KEYWORDS)
    context.describe(
        describe_survey(found, categorise(found), author=extract.author, pages=extract.pages, text=extract.text)
    )
    context.progress(1, 1, f"Put {len(analyze)} chapter{'' if len(analyze) == 1 else 's'} together")
    return book


@manuscript.step(stage="exporting", weight=1)
def report(
    document: Document,
    params: ManuscriptParams,
    extract: Extracted,
    sections: Sections,
    synthesize: Synthesis,
    context: Context,
) -> Report:
    """Write the report in four forms. A quotation that is not in the text, word for word, stops it."""
    _check_quotes(context.read(extract.text).decode(), synthesize)
    found = _compose(document, params, extract, sections, synthesize)
    files = (
        ("report.md", "text/markdown; charset=utf-8", write_markdown),
        ("report.json", "application/json", write_json),
        ("chapters.csv", "text/csv; charset=utf-8", write_csv),
        ("arc.svg", "image/svg+xml", write_svg),
    )
    for done, (name, media_type, write) in enumerate(files, 1):
        context.artifact(name, media_type, write(found))
        context.progress(done, len(files), f"Wrote {name}")
    return Report(
        artifacts=[name for name, _, _ in files],
        title=found.title,
        language=found.book.language,
        words=found.book.words,
        chapters=len(found.book.chapters),
        notes=len(found.notes),
    )


def _say_too_short(words: int) -> str:
    if not words:
        return "We found no text in this file."
    return f"We found only {words} word{'' if words == 1 else 's'} in this file, too few to report on."


def _choose_measured(found: list[Section], lengths: list[int], least: int) -> list[int]:
    """The chapters that are long enough; all chapters when none is."""
    indexes = [i for i, section in enumerate(found) if section.kind == "chapter"]
    return [i for i in indexes if lengths[i] >= max(1, least)] or indexes


def _describe(found: list[Section], lengths: list[int], measured: list[int]) -> Division:
    first = found[measured[0]]
    left_out = [
        LeftOut(title=section.title, kind="short" if section.kind == "chapter" else section.kind, words=lengths[i])
        for i, section in enumerate(found)
        if section.kind != "part" and i not in set(measured)
    ]
    return Division(
        found_by=first.found_by,
        confidence=first.confidence,
        chapters=len(measured),
        parts=[section.title for section in found if section.kind == "part"],
        left_out=left_out,
    )


def _compose(
    document: Document, params: ManuscriptParams, extract: Extracted, sections: Sections, book: Synthesis
) -> ManuscriptReport:
    if not params.quotes:
        rows = [row.model_copy(update={"opening": None, "closing": None}) for row in book.chapters]
        book = book.model_copy(update={"chapters": rows})
    return ManuscriptReport(
        title=document.title or document.filename,
        author=extract.author,
        kind=document.kind,
        pages=extract.pages,
        division=sections.division,
        book=book,
        notes=write_notes(book),
        warnings=extract.warnings,
    )


def _check_quotes(text: str, book: Synthesis) -> None:
    quotes = [quote for row in book.chapters for quote in (row.opening, row.closing) if quote]
    invented = find_invented(text, quotes)
    if invented:
        raise Permanent(
            "quote_not_found",
            "The report would have quoted words that are not in the manuscript, so we did not write it.",
            detail=f"{len(invented)} of {len(quotes)} quotations not found",
        )
