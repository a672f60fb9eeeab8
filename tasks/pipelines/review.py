"""The review workflow: a document is measured, a person looks at what was found, and what was approved goes on record.

    validate → extract → analyse → categorise → approval (a gate) → finalise → export

What the person is to look at is there before the gate opens: `categorise` names the summary's files. What comes after
it holds the decision.
"""

from __future__ import annotations

import hashlib
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.analysis.categories import categorise as sort_by_rules
from tasks.analysis.chapter import analyze_chapter
from tasks.analysis.excerpts import find_invented
from tasks.analysis.languages import guess_language
from tasks.analysis.model import ChapterAnalysis
from tasks.analysis.survey import Survey, survey
from tasks.analysis.words import count_words
from tasks.documents.chapters import Section, find_chapters
from tasks.documents.extract import choose_engine
from tasks.documents.extract import extract as read_document
from tasks.documents.kinds import HEAD_BYTES, KINDS, sniff
from tasks.documents.model import Heading
from tasks.documents.problems import unreadable
from tasks.errors import Permanent, Refused, Transient
from tasks.exports.description import describe_survey
from tasks.exports.summary import Division, Fields, Record, Summary, write_json, write_record, write_summary
from tasks.pipeline import Blob, Context, Decision, Description, Document, Pipeline, Source

DAY_S = 86_400
_PIECE = 1024 * 1024


class ReviewParams(BaseModel):
    """What a caller may choose."""

    model_config = ConfigDict(extra="forbid")

    language: Literal["auto", "en", "de", "fr", "es", "it", "pt", "nl", "other"] = Field(
        default="auto", description="Language of the text; auto finds it out."
    )
    keywords: int = Field(default=15, ge=0, le=100, description="Most words in the list of the most used.")
    quotes: bool = Field(default=True, description="Show the first lines.")


class Validated(BaseModel):
    """A file whose bytes are what was uploaded, and whose content is of the kind it was taken for."""

    kind: str
    bytes: int
    sha256: str


class Extracted(BaseModel):
    """A document that was read. `text` is UTF-8."""

    text: Blob
    words: int
    headings: list[Heading]
    pages: int | None
    engine: str
    author: str | None
    warnings: list[str]


class Analysed(BaseModel):
    """What was measured."""

    division: Division
    survey: Survey


class Exported(BaseModel):
    """What the job gives back: the artifacts' names, and what a list of documents can show."""

    artifacts: list[str]
    title: str
    language: str
    words: int
    decision: str
    categories: dict[str, str]
    keywords: list[str]


review = Pipeline("review", title="Summary with approval", version=2, accepts=tuple(KINDS), params=ReviewParams)


@review.step(stage="parsing", timeout_s=120, memory_mb=256, attempts=2, failure="validate", weight=1)
def validate(source: Source, context: Context) -> Validated:
    """Look at the bytes before anything reads them: whole, and of the kind they were taken for."""
    context.progress(0, 1, "Checking the file")
    path = context.path(source.blob)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        file.seek(0)
        while piece := file.read(_PIECE):
            digest.update(piece)
    found = Validated(kind=source.kind, bytes=path.stat().st_size, sha256=digest.hexdigest())
    if (found.sha256, found.bytes) != (source.blob.sha256, source.blob.bytes):
        # A copy that was cut off on its way here may be whole the next time.
        raise Transient("file_differs", "The stored file is not the one that was uploaded.")
    try:
        sniff(head, f"file.{KINDS[source.kind].extensions[0]}", path=path)
    except Refused as error:
        raise Permanent(error.code, error.message, detail=error.detail) from error
    context.progress(1, 1, f"Checked {found.bytes:,} bytes")
    return found


@review.step(stage="parsing", timeout_s=300, memory_mb=1024, attempts=3, failure="parse", weight=3)
def extract(source: Source, validate: Validated, context: Context) -> Extracted:
    """Read the document. After a parser was killed, the slower and safer engine reads PDFs."""
    context.progress(0, 1, "Reading the document")
    engine = choose_engine(validate.kind, context.attempt, context.previous_error)
    found = read_document(context.path(source.blob), validate.kind, engine=engine)
    words = count_words(found.text)
    if not words:
        raise unreadable("no_text", f"engine {found.engine}")
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


@review.step(stage="analyzing", timeout_s=600, memory_mb=2048, weight=6)
def analyse(extract: Extracted, params: ReviewParams, context: Context) -> Analysed:
    """Divide the text, measure its parts, and put them together. A first line that is not in the text stops it."""
    context.progress(0, 1, "Looking for chapters")
    text = context.read(extract.text).decode()
    sections = [section for section in find_chapters(text, extract.headings) if section.kind == "chapter"]
    bodies = [text[section.body : section.end].strip() for section in sections]
    language = guess_language("\n\n".join(bodies)) if params.language == "auto" else params.language
    parts: list[ChapterAnalysis] = []
    for section, body in zip(sections, bodies, strict=True):
        context.progress(len(parts), len(sections), f"Measuring {section.title or 'the text'}")
        parts.append(analyze_chapter(body, title=section.title, language=language, quotes=params.quotes))
    context.progress(len(sections), len(sections), "Put together")
    found = survey(parts, params.keywords)
    _check_quotes(text, found)
    return Analysed(division=_tell_division(sections, extract.words - found.words), survey=found)


@review.step(stage="analyzing", version=2, weight=1)
def categorise(
    document: Document, validate: Validated, extract: Extracted, analyse: Analysed, context: Context
) -> Summary:
    """Sort by fixed rules, and write what a person is to look at. The document is known by that, as yet unapproved."""
    summary = Summary(
        title=document.title or document.filename,
        filename=document.filename,
        author=extract.author,
        kind=document.kind,
        bytes=validate.bytes,
        sha256=validate.sha256,
        pages=extract.pages,
        division=analyse.division,
        survey=analyse.survey,
        categories=sort_by_rules(analyse.survey),
        warnings=extract.warnings,
    )
    context.artifact("summary.md", "text/markdown; charset=utf-8", write_summary(summary))
    context.artifact("summary.json", "application/json", write_json(summary))
    context.describe(_describe(summary, text=extract.text))
    context.progress(1, 1, "Wrote the summary")
    return summary


review.gate("approval", after=("categorise",), expires_s=90 * DAY_S)


@review.step(stage="exporting", version=2, weight=1)
def finalise(categorise: Summary, approval: Decision, context: Context) -> Record:
    """Join what was found with what was corrected and decided, by whom, and why: that is final.

    A file keeps the title it came with unless the reviewer gave it another.
    """
    told = _describe(categorise, final=True).model_dump() | approval.corrected
    context.describe(Description(**told))
    fields = Fields(**told | {"title": told["title"] or categorise.title})
    return Record(decision=approval, fields=fields, summary=categorise)


@review.step(stage="exporting", weight=1)
def export(finalise: Record, context: Context) -> Exported:
    """Write the record."""
    context.artifact("record.md", "text/markdown; charset=utf-8", write_record(finalise))
    context.artifact("record.json", "application/json", write_json(finalise))
    context.progress(1, 1, "Wrote the record")
    fields, survey = finalise.fields, finalise.summary.survey
    return Exported(
        artifacts=["summary.md", "summary.json", "record.md", "record.json"],
        title=fields.title,
        language=fields.language or survey.language,
        words=survey.words,
        decision=finalise.decision.decision,
        categories=fields.categories,
        keywords=fields.keywords,
    )


def _describe(summary: Summary, *, text: Blob | None = None, final: bool = False) -> Description:
    return describe_survey(
        summary.survey, summary.categories, author=summary.author, pages=summary.pages, text=text, final=final
    )


def _tell_division(sections: list[Section], left_out: int) -> Division:
    first = sections[0]
    return Division(found_by=first.found_by, confidence=first.confidence, left_out_words=max(0, left_out))


def _check_quotes(text: str, found: Survey) -> None:
    invented = find_invented(text, [opening.quote for opening in found.openings])
    if invented:
        raise Permanent(
            "quote_not_found",
            "The summary would have quoted words that are not in the document, so we did not write it.",
            detail=f"{len(invented)} of {len(found.openings)} quotations not found",
        )
