"""The manuscript pipeline, step by step, as the engine calls it but without an engine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydantic import ValidationError

from tasks.documents.model import ExtractedText
from tasks.errors import Permanent
from tasks.pipeline import Blob, Description, Document, Source
from tasks.pipelines import manuscript as declared
from tasks.pipelines.manuscript import ManuscriptParams, Report

ARTIFACTS = ["report.md", "report.json", "chapters.csv", "arc.svg"]


@dataclass
class Desk:
    """A context that keeps everything in a folder."""

    folder: Path
    attempt: int = 1
    previous_error: str | None = None
    artifacts: dict[str, bytes] = field(default_factory=dict)
    said: list[tuple[int, int, str]] = field(default_factory=list)
    described: list[Description] = field(default_factory=list)

    def progress(self, current: int, total: int, message: str = "") -> None:
        assert 0 <= current <= total
        self.said.append((current, total, message))

    def write(self, data: bytes) -> Blob:
        name = hashlib.sha256(data).hexdigest()
        (self.folder / name).write_bytes(data)
        return Blob(sha256=name, bytes=len(data))

    def path(self, blob: Blob) -> Path:
        return self.folder / blob.sha256

    def read(self, blob: Blob) -> bytes:
        return self.path(blob).read_bytes()

    def artifact(self, name: str, media_type: str, data: bytes) -> None:
        assert "/" in media_type
        self.artifacts[name] = data

    def describe(self, description: Description) -> None:
        self.described.append(description)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def take(desk: Desk, data: bytes, kind: str = "txt", title: str = "A Book") -> Document:
    return Document(kind=kind, blob=desk.write(data), title=title, filename=f"book.{kind}")


def run(desk: Desk, document: Document, params: ManuscriptParams | None = None) -> Report:
    """Every step in its order, each output through JSON as between two processes."""
    params = params or ManuscriptParams()
    extract = again(declared.extract(document, desk))
    sections = again(declared.sections(extract, params, desk))
    chapters = [again(chapter) for chapter in declared.chapters(extract, sections, desk)]
    analyses = [again(declared.analyze(chapter, desk)) for chapter in chapters]
    book = again(declared.synthesize(analyses, extract, desk))
    return again(declared.report(document, params, extract, sections, book, desk))


def again(model):  # type: ignore[no-untyped-def]
    return type(model).model_validate_json(model.model_dump_json())


def novel(*bodies: str) -> bytes:
    return "\n\n\n".join(f"Chapter {n}\n\n{body}" for n, body in enumerate(bodies, 1)).encode()


PROSE = "The rain fell on the old house and Anna said that she would wait for him by the river. " * 12


def test_the_graph_is_the_manuscript_pipeline() -> None:
    graph = declared.manuscript.graph()
    steps = {step["name"]: step for step in graph["steps"]}
    assert list(steps) == ["extract", "sections", "chapters", "analyze", "synthesize", "report"]
    assert [steps[name]["stage"] for name in steps] == [
        "parsing", "chunking", "chunking", "analyzing", "analyzing", "exporting"
    ]  # fmt: skip
    assert steps["analyze"]["map"] == "chapters"
    assert {"docx", "pdf", "txt", "md"} <= set(graph["accepts"])


def test_the_sample_story_becomes_a_report_in_four_files(desk: Desk, sample: Path) -> None:
    result = run(desk, take(desk, sample.read_bytes(), "md", "The Lamplighter's Ledger"))
    assert result.artifacts == ARTIFACTS == list(desk.artifacts)
    assert (result.chapters, result.language) == (13, "en")
    assert desk.artifacts["report.md"].startswith(b"# The Lamplighter's Ledger\n")
    report = json.loads(desk.artifacts["report.json"])
    assert [c["name"] for c in report["book"]["cast"]][:3] == ["Maren", "Ines", "Tobias Quill"]
    assert {message.split()[0] for _, _, message in desk.said} >= {"Reading", "Found", "Measured", "Put", "Wrote"}


def test_the_document_is_known_by_what_was_measured(desk: Desk, sample: Path) -> None:
    run(desk, take(desk, sample.read_bytes(), "md", "The Lamplighter's Ledger"))
    (told,) = desk.described
    report = json.loads(desk.artifacts["report.json"])["book"]
    assert told.summary == (
        "Novelette, fiction, in English: 8,182 words in 13 chapters, 34 minutes to read. "
        "Named most: Maren, Ines, Tobias Quill."
    )
    assert (told.language, told.categories["length"], told.final) == ("en", "novelette", False)
    assert told.keywords[0] == "lamp"
    assert (told.metadata["words"], told.metadata["chapters"]) == (report["words"], len(report["chapters"]))
    text = desk.read(told.text).decode().lower()
    assert all(keyword in text for keyword in told.keywords)


def test_a_second_run_writes_the_same_bytes(desk: Desk, sample: Path) -> None:
    document = take(desk, sample.read_bytes(), "md")
    run(desk, document)
    first = dict(desk.artifacts)
    run(desk, document)
    assert desk.artifacts == first


def test_editing_one_chapter_changes_one_item_only(desk: Desk) -> None:
    def items(data: bytes) -> list[str]:
        extract = declared.extract(take(desk, data), desk)
        sections = declared.sections(extract, ManuscriptParams(), desk)
        return [chapter.model_dump_json() for chapter in declared.chapters(extract, sections, desk)]

    before = items(novel(PROSE, PROSE + "Once.", PROSE))
    after = items(novel(PROSE, PROSE + "Twice, and longer than before.", PROSE))
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]


def test_parts_are_given_to_their_chapters(desk: Desk) -> None:
    data = f"PART ONE\n\n\nChapter 1\n\n{PROSE}\n\n\nPART TWO\n\n\nChapter 2\n\n{PROSE}".encode()
    extract = declared.extract(take(desk, data), desk)
    sections = declared.sections(extract, ManuscriptParams(), desk)
    assert [c.part for c in declared.chapters(extract, sections, desk)] == ["Part 1", "Part 2"]
    assert sections.division.parts == ["Part 1", "Part 2"]


@pytest.mark.parametrize(
    ("data", "code", "sentence"),
    [
        (b"Nineteen " * 19, "too_short", "only 19 words"),
        (b"One", "too_short", "only 1 word in"),
        (b"12345 !!", "no_text", "no text"),
    ],
)
def test_too_little_text_is_a_permanent_failure_with_a_sentence(
    desk: Desk, data: bytes, code: str, sentence: str
) -> None:
    with pytest.raises(Permanent) as failure:
        declared.extract(take(desk, data), desk)
    assert failure.value.code == code
    assert sentence in failure.value.message


@pytest.mark.parametrize(
    ("kind", "attempt", "previous", "engine"),
    [
        ("pdf", 1, None, None),
        ("pdf", 2, "parse_crashed", "pypdf"),
        ("pdf", 2, "parse_timeout", "pypdf"),
        ("pdf", 3, "parse_out_of_memory", "pypdf"),
        ("pdf", 2, "worker_lost", None),
        ("docx", 2, "parse_crashed", None),
    ],
)
def test_after_a_killed_parser_a_pdf_is_read_by_the_safer_engine(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, kind: str, attempt: int, previous: str | None, engine: str | None
) -> None:
    asked: list[str | None] = []

    def read(path: Path, kind: str, *, engine: str | None) -> ExtractedText:
        asked.append(engine)
        return ExtractedText(text=PROSE, engine="made up")

    monkeypatch.setattr(declared, "read_document", read)
    desk.attempt, desk.previous_error = attempt, previous
    declared.extract(Source(kind=kind, blob=desk.write(b"x")), desk)
    assert asked == [engine]


def test_short_chapters_are_named_and_not_measured(desk: Desk) -> None:
    run(desk, take(desk, novel(PROSE, "Gone.", PROSE)))
    report = json.loads(desk.artifacts["report.json"])
    assert [row["number"] for row in report["book"]["chapters"]] == [1, 3]
    assert report["division"]["left_out"] == [{"title": "Chapter 2", "kind": "short", "words": 1}]


def test_when_every_chapter_is_short_all_are_measured(desk: Desk) -> None:
    result = run(
        desk, take(desk, novel("He came to her.", "She went from him.", "It rained on them both that day.", PROSE))
    )
    assert result.chapters == 1
    params = ManuscriptParams(min_chapter_words=5_000)
    assert run(desk, take(desk, novel(PROSE, PROSE)), params).chapters == 2


def test_quotes_can_be_left_out(desk: Desk) -> None:
    run(desk, take(desk, novel(PROSE, PROSE)), ManuscriptParams(quotes=False))
    report = json.loads(desk.artifacts["report.json"])
    assert {row["opening"] for row in report["book"]["chapters"]} == {None}
    assert b"Opening and closing lines" not in desk.artifacts["report.md"]


def test_a_language_can_be_given(desk: Desk) -> None:
    assert run(desk, take(desk, novel(PROSE, PROSE)), ManuscriptParams(language="fr")).language == "fr"


def test_a_quotation_that_is_not_in_the_text_stops_the_report(desk: Desk) -> None:
    document = take(desk, novel(PROSE, PROSE))
    params = ManuscriptParams()
    extract = declared.extract(document, desk)
    sections = declared.sections(extract, params, desk)
    analyses = [declared.analyze(chapter, desk) for chapter in declared.chapters(extract, sections, desk)]
    book = declared.synthesize(analyses, extract, desk)
    book.chapters[0].opening.text = "Something nobody wrote."
    with pytest.raises(Permanent) as failure:
        declared.report(document, params, extract, sections, book, desk)
    assert failure.value.code == "quote_not_found"
    assert desk.artifacts == {}


@pytest.mark.parametrize(
    "params",
    [{"language": "xx"}, {"min_chapter_words": -1}, {"min_chapter_words": 5_001}, {"quotes": "perhaps"}, {"more": 1}],
)
def test_params_outside_their_bounds_are_refused(params: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ManuscriptParams.model_validate(params)


def test_the_longest_novel_is_measured(desk: Desk, corpora: Path) -> None:
    path = next((corpora / "novels").glob("war-and-peace*.txt"))
    result = run(desk, take(desk, path.read_bytes(), title="War and Peace"))
    assert result.chapters == 365
    assert 550_000 < result.words < 580_000
    report = json.loads(desk.artifacts["report.json"])
    assert [c["name"] for c in report["book"]["cast"]][:2] == ["Pierre", "Natasha"]
    assert len(report["division"]["parts"]) == 17


@pytest.mark.parametrize("form", ["plain.docx", "typ.pdf"])
def test_a_typeset_novel_gives_the_report_of_its_text(form: str, desk: Desk, corpora: Path) -> None:
    folder = corpora / "rendered"
    plain = run(desk, take(desk, (folder / "love-among-the-chickens.truth.txt").read_bytes(), "txt"))
    kind = form.rsplit(".", 1)[-1]
    typeset = run(desk, take(desk, (folder / f"love-among-the-chickens.{form}").read_bytes(), kind))
    assert typeset.chapters == plain.chapters == 23
    assert typeset.words == pytest.approx(plain.words, rel=0.005)


def check_signature(function: Callable[..., object]) -> list[str]:
    return [name for name in function.__annotations__ if name != "return"]


def test_measuring_a_chapter_takes_nothing_that_another_chapter_can_change() -> None:
    assert check_signature(declared.analyze) == ["item", "context"]
    assert set(declared.Chapter.model_fields) == {"number", "title", "part", "language", "text"}
