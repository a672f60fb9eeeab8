"""The report in its four forms: readable, escaped, and the same bytes for the same report."""

from __future__ import annotations

import csv
import io
import json
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt

from tasks.analysis.book import synthesize_book
from tasks.analysis.chapter import analyze_chapter
from tasks.analysis.notes import write_notes
from tasks.cells import escape_cell
from tasks.exports.charts import draw_bar, draw_line, draw_presence, shrink
from tasks.exports.escape import escape_markdown, escape_svg
from tasks.exports.markdown import write_markdown
from tasks.exports.picture import write_svg
from tasks.exports.report import Division, LeftOut, ManuscriptReport, write_json
from tasks.exports.spreadsheet import COLUMNS, write_csv

SCENE = (
    "The wonderful door opened and Anna looked up at the rain. “Come in,” said Anna. Then Anna smiled at Boris.\n\n"
    "“Where were you?” asked Anna. “In London,” Boris replied with a horrible laugh, and suddenly Boris ran away.\n\n"
)
HOSTILE = [
    "<script>alert(1)</script>",
    "![x](http://example.invalid/a.png)",
    "[click](javascript:alert(1))",
    "=cmd|' /C calc'!A0",
    "a | b\n| c |",
    "# Not a heading",
    "`code` *bold* _it_ ~~gone~~",
    "\u202egnp.exe\u0000\u0007",
    "http://example.invalid www.example.invalid me@example.invalid",
    "&lt;b&gt; &amp; <b>",
    "1. List",
    "- item",
]


def report(title: str = "A Book", chapters: tuple[str, ...] = ("One", "Two", "Three", "Four")) -> ManuscriptReport:
    book = synthesize_book(
        [
            analyze_chapter(SCENE * (20 + n), number=n, title=name, part="Part 1", language="en")
            for n, name in enumerate(chapters, 1)
        ]
    )
    division = Division(
        found_by="numbers",
        confidence=0.95,
        chapters=len(chapters),
        parts=["Part 1"],
        left_out=[LeftOut(title=title, kind="front", words=7), LeftOut(title=title, kind="short", words=2)],
    )
    return ManuscriptReport(
        title=title,
        author=title,
        kind="txt",
        pages=None,
        division=division,
        book=book,
        notes=write_notes(book),
        warnings=[title],
    )


def render(markdown: str) -> str:
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown)


def test_the_markdown_has_every_section_with_how_to_use_it() -> None:
    text = write_markdown(report()).decode()
    heads = [line for line in text.splitlines() if line.startswith("## ")]
    assert heads == [
        "## At a glance", "## Chapters", "## Pace", "## Dialogue", "## Tone from beginning to end", "## Cast",
        "## Language", "## Opening and closing lines", "## What this report leaves out",
    ]  # fmt: skip
    assert text.count("**How to use it.**") == 7
    assert text.count("**How it is measured.**") == 7


def test_the_markdown_tables_are_whole() -> None:
    tables = [block for block in write_markdown(report()).decode().split("\n\n") if block.startswith("| ")]
    assert len(tables) >= 7
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1
    assert render("\n\n".join(tables)).count("<table>") == len(tables)


def test_a_report_of_one_chapter_in_another_language_shows_what_it_has() -> None:
    book = synthesize_book([analyze_chapter("Kissa istui ikkunalla. " * 60, title="Kissa", language="other")])
    shown = report().model_copy(update={"book": book, "notes": write_notes(book)})
    text = write_markdown(shown).decode()
    assert "## Tone" not in text
    assert "Tone was not measured. The lexicon is made for English" in text
    assert b"Tone was not measured" in write_svg(shown)


def test_a_doubtful_division_says_so_at_the_top() -> None:
    found = report()
    found.division.found_by, found.division.confidence = "chunks", 0.2
    assert "nothing marks chapters (confidence 20%). Everything said below" in write_markdown(found).decode()


@pytest.mark.parametrize("text", HOSTILE)
def test_a_title_cannot_become_markup(text: str) -> None:
    html = render(write_markdown(report(text, (text,) * 4)).decode())
    for tag in ("<script", "<b>", "<img", "<a ", "<code>code", "<s>", "<strong>bold", "<em>it"):
        assert tag not in html
    plain = render(write_markdown(report("Plain", ("Plain",) * 4)).decode())
    for tag in ("<h1>", "<h2>", "<table>", "<tr>", "<td", "<li>"):
        assert html.count(tag) == plain.count(tag)


@pytest.mark.parametrize("text", HOSTILE)
def test_escaped_text_reads_as_it_was(text: str) -> None:
    html = render(f"x {escape_markdown(text)}")
    shown = "".join(ElementTree.fromstring(html).itertext()).removeprefix("x ").strip()
    seen = " ".join(text.split()).translate({0x202E: None, 0: None, 7: None})
    assert shown.removeprefix("\\").replace("1\\.", "1.") == seen


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_of_the_table_is_a_formula(sign: str) -> None:
    assert escape_cell(f"{sign}1+1") == f"'{sign}1+1"
    rows = list(csv.reader(io.StringIO(write_csv(report("x", (f"{sign}A1",) * 4)).decode("utf-8-sig"))))
    title = rows[1][COLUMNS.index("title")]
    assert not title.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_numbers_stay_numbers_in_the_table() -> None:
    assert escape_cell(-0.25) == "-0.25"
    assert escape_cell(None) == ""


def test_the_table_has_one_row_for_each_chapter_and_opens_in_spreadsheets() -> None:
    data = write_csv(report())
    assert data.startswith(b"\xef\xbb\xbf")
    assert b"\r\n" in data
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))
    assert [row["title"] for row in rows] == ["One", "Two", "Three", "Four"]
    assert sum(int(row["words"]) for row in rows) == report().book.words
    assert tuple(rows[0]) == COLUMNS


def test_the_json_names_its_schema_and_reads_back_as_the_report() -> None:
    data = write_json(report())
    assert json.loads(data)["schema"] == "ledgerline.manuscript/1"
    assert next(iter(json.loads(data))) == "schema"
    assert ManuscriptReport.model_validate_json(data) == report()


@pytest.mark.parametrize("text", HOSTILE)
def test_the_picture_is_well_formed_and_runs_nothing(text: str) -> None:
    root = ElementTree.fromstring(write_svg(report(text, (text,) * 4)))
    tags = {element.tag.rsplit("}", 1)[-1] for element in root.iter()}
    assert tags <= {"svg", "title", "style", "rect", "text", "line", "polyline", "circle"}
    assert not any(name.startswith("on") or "href" in name for element in root.iter() for name in element.attrib)


def test_a_long_title_is_cut_between_characters_not_inside_an_entity() -> None:
    ElementTree.fromstring(write_svg(report("&" * 500)))


@pytest.mark.parametrize("write", [write_markdown, write_json, write_csv, write_svg])
def test_the_same_report_is_the_same_bytes(write: object) -> None:
    assert callable(write)
    assert write(report()) == write(report())


def test_charts_have_a_block_for_each_value_up_to_their_width() -> None:
    assert draw_line([0, 1, 2]) == "▁▅█"
    assert draw_line([1, 1]) == "▁▁"
    assert draw_line([]) == ""
    assert len(draw_line(list(range(1_000)))) == 60
    assert draw_presence([0, 5, 1]) == "·█▂"
    assert draw_bar(50, 100, 4) == "██"
    assert draw_bar(0, 100) == "▏"
    assert shrink([1, 3, 5, 7], 2) == [2, 6]


def test_svg_text_is_escaped() -> None:
    assert escape_svg("<a b=\"c\" d='e'>&") == "&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;"
