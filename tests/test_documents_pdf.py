"""PDFs: lines become paragraphs again, what the printer added goes, what the writer wrote stays."""

from __future__ import annotations

from pathlib import Path

import pikepdf
import pytest
from made_documents import TextAt, make_endless_pdf, make_pdf, make_scan, set_lines

from tasks.documents import pdf_engines
from tasks.documents.extract import extract
from tasks.documents.model import ExtractedText
from tasks.documents.pdf_forms import MAX_DRAWINGS, bounded, count_drawings
from tasks.errors import Permanent

PROSE = [
    "  The lamplighter came down the hill at dusk with his",
    "ladder on his shoulder and the small brass flame in",
    "his hand, and nobody in the street looked up at him.",
    "  “You are late,” said the baker.",
    "  He did not answer, because it was true, and because",
    "the wick had to be trimmed before it could be lit in",
    "such a wind.",
]


def code_of(path: Path, engine: str | None = None) -> str:
    with pytest.raises(Permanent) as caught:
        extract(path, "pdf", engine=engine)
    return caught.value.code


def read(folder: Path, *pages: list[TextAt], engine: str | None = None) -> ExtractedText:
    return extract(make_pdf(folder / "made.pdf", pages), "pdf", engine=engine)


def prose_page(*more: TextAt) -> list[TextAt]:
    return [*more, *set_lines(PROSE)]


def test_lines_become_paragraphs_by_indent_and_by_ending_early(tmp_path: Path) -> None:
    paragraphs = read(tmp_path, set_lines(PROSE)).text.split("\n\n")
    assert [text[:15] for text in paragraphs] == ["The lamplighter", "“You are late,”", "He did not answ"]
    assert "with his ladder" in paragraphs[0]


def test_a_paragraph_goes_on_over_the_page_and_a_gap_is_kept(tmp_path: Path) -> None:
    found = read(
        tmp_path, set_lines(PROSE[:2]), set_lines([*PROSE[2:], "", "", "Later that night the wind went down."])
    )
    assert "flame in his hand" in found.text
    assert found.text.endswith("such a wind.\n\n\nLater that night the wind went down.")
    assert found.pages == 2


def test_both_engines_read_the_same_words(tmp_path: Path) -> None:
    first = read(tmp_path, prose_page(), prose_page())
    second = read(tmp_path, prose_page(), prose_page(), engine="pypdf")
    assert (first.engine, second.engine) == ("pdfium", "pypdf")
    assert first.text.split() == second.text.split()


@pytest.mark.parametrize("engine", [None, "pypdf"])
def test_words_broken_at_line_ends_are_joined_by_the_documents_own_vocabulary(
    tmp_path: Path, engine: str | None
) -> None:
    lines = [
        "The well-known lamplighter went home through the im-",
        "portant streets of the town, and everybody knew the lamp-",
        "lighter by his step, for he was as important and well-",
        "known as the mayor, who was a fellow-",
        "traveller of his, a broad man in the habit of stand-",
        "ing about.",
    ]
    found = read(tmp_path, set_lines([*lines, "A fellow is a traveller, a traveller is a fellow."]), engine=engine)
    for words in (
        "the important streets",
        "the lamplighter by",
        "well-known as",
        "fellow-traveller of",
        "standing about",
    ):
        assert words in found.text


@pytest.mark.parametrize("engine", [None, "pypdf"])
def test_running_heads_and_page_numbers_go(tmp_path: Path, engine: str | None) -> None:
    pages = [
        prose_page((60, 560, 10, "The Lamplighter" if number % 2 else "A. Writer"), (200, 30, 10, f"- {number + 7} -"))
        for number in range(8)
    ]
    found = read(tmp_path, *pages, engine=engine)
    assert "Writer" not in found.text
    assert "The Lamplighter" not in found.text
    assert "- 9 -" not in found.text
    assert found.text.count("You are late") == 8


@pytest.mark.parametrize("engine", [None, "pypdf"])
def test_chapter_headings_at_page_tops_stay_and_their_repetitions_go(tmp_path: Path, engine: str | None) -> None:
    # Each chapter's heading is also the running head of its later pages, at the same place and in the same size.
    pages = [
        prose_page((60, 560, 12, f"CHAPTER {number // 3 + 1}"), (200, 30, 10, str(number + 1))) for number in range(9)
    ]
    text = read(tmp_path, *pages, engine=engine).text
    assert [text.count(f"CHAPTER {number}") for number in (1, 2, 3)] == [1, 1, 1]
    assert text.index("CHAPTER 2") > text.index("CHAPTER 1")


@pytest.mark.parametrize("engine", [None, "pypdf"])
def test_one_page_chapters_keep_their_headings_though_they_count_like_pages(tmp_path: Path, engine: str | None) -> None:
    for words in ("Chapter {}", "{}."):
        size = 12 if "C" in words else 20
        pages = [
            prose_page((60, 560, size, words.format(["I", "II", "III", "IV", "V"][number]))) for number in range(5)
        ]
        text = read(tmp_path, *pages, engine=engine).text
        assert [line for line in text.splitlines() if line in (words.format("III"), words.format("V"))] != []
    pages = [prose_page((60, 560, 12, f"Chapter {number + 1}")) for number in range(5)]
    assert read(tmp_path, *pages, engine=engine).text.count("Chapter ") == 5


def test_two_columns_are_read_one_after_the_other(tmp_path: Path) -> None:
    left = set_lines(
        ["  The first column speaks of", "the lamp and of the ladder", "and of the brass flame in"], left=30
    )
    right = set_lines(["the hand of the man who", "walks down the hill."], left=220)
    assert "flame in the hand" in read(tmp_path, [*left, *right]).text


def test_a_dropped_heading_size_begins_a_paragraph(tmp_path: Path) -> None:
    found = read(tmp_path, [(60, 560, 20, "Dusk"), *set_lines(PROSE, top=530)])
    assert found.text.startswith("Dusk\n\nThe lamplighter came")


def test_bookmarks_tell_headings(tmp_path: Path) -> None:
    path = make_pdf(tmp_path / "a.pdf", [[(60, 560, 20, "1 Dusk"), *set_lines(PROSE, top=530)]])
    with pikepdf.open(path, allow_overwriting_input=True) as pdf:
        with pdf.open_outline() as outline:
            outline.root.append(pikepdf.OutlineItem("Dusk", 0))
        pdf.save(path)
    found = extract(path, "pdf")
    assert [(heading.level, heading.text, heading.offset) for heading in found.headings] == [(1, "1 Dusk", 0)]


def test_title_and_author_come_from_the_properties(tmp_path: Path) -> None:
    path = make_pdf(tmp_path / "a.pdf", [set_lines(PROSE)])
    with pikepdf.open(path, allow_overwriting_input=True) as pdf:
        pdf.docinfo["/Title"] = "Microsoft Word - The Lamp.docx"
        pdf.docinfo["/Author"] = "A. Writer"
        pdf.save(path)
    for engine in (None, "pypdf"):
        found = extract(path, "pdf", engine=engine)
        assert (found.title, found.author) == ("The Lamp", "A. Writer")


@pytest.mark.parametrize("engine", [None, "pypdf"])
def test_a_pdf_locked_for_reading_says_so_and_one_locked_for_printing_is_read(
    tmp_path: Path, engine: str | None
) -> None:
    lines = set_lines(PROSE)
    locked = make_pdf(tmp_path / "a.pdf", [lines], pikepdf.Encryption(owner="o", user="u", R=4))
    assert code_of(locked, engine) == "encrypted_pdf"
    printable = make_pdf(tmp_path / "b.pdf", [lines], pikepdf.Encryption(owner="o", user="", R=6))
    assert "lamplighter" in extract(printable, "pdf", engine=engine).text


@pytest.mark.parametrize("engine", [None, "pypdf"])
def test_pictures_of_pages_need_text_recognition(tmp_path: Path, engine: str | None) -> None:
    assert code_of(make_scan(tmp_path / "a.pdf"), engine) == "needs_ocr"


def test_blank_pages_are_no_text_and_a_short_note_is_a_text(tmp_path: Path) -> None:
    assert code_of(make_pdf(tmp_path / "a.pdf", [[], []])) == "no_text"
    assert read(tmp_path, [(60, 500, 12, "Gone home.")]).text == "Gone home."


def test_the_writer_is_told_of_pages_without_text(tmp_path: Path) -> None:
    found = read(tmp_path, *[prose_page()] * 6, *[[]] * 4)
    assert found.warnings == ["4 of 10 pages have no text. They may be pictures."]


@pytest.mark.parametrize("engine", [None, "pypdf"])
def test_more_pages_than_any_book_are_refused(
    tmp_path: Path, engine: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pdf_engines, "MAX_PAGES", 3)
    assert code_of(make_pdf(tmp_path / "a.pdf", [set_lines(PROSE)] * 4), engine) == "too_many_pages"


def test_a_damaged_pdf_is_repaired_when_it_can_be(tmp_path: Path) -> None:
    path = make_pdf(tmp_path / "a.pdf", [set_lines(PROSE)] * 3)
    path.write_bytes(path.read_bytes()[:-120])
    assert extract(path, "pdf").text.count("You are late") == 3


def test_junk_before_the_header_does_no_harm(tmp_path: Path) -> None:
    path = make_pdf(tmp_path / "a.pdf", [set_lines(PROSE)])
    path.write_bytes(bytes(2000) + path.read_bytes())
    assert "lamplighter" in extract(path, "pdf").text


@pytest.mark.parametrize("engine", [None, "pypdf"])
def test_what_only_calls_itself_a_pdf_is_damaged(tmp_path: Path, engine: str | None) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(b"%PDF-1.7\n" + b"nothing else " * 50)
    assert code_of(path, engine) == "corrupt_file"


# Forms ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", [None, "pypdf"])
def test_a_drawing_that_contains_itself_kills_no_engine(tmp_path: Path, engine: str | None) -> None:
    path = make_endless_pdf(tmp_path / "endless.pdf", [prose_page()])
    found = extract(path, "pdf", engine=engine)
    assert found.text == read(tmp_path, prose_page(), engine=engine).text
    assert found.warnings == ["Drawings that contain themselves were left out."]


def test_with_nothing_else_in_it_such_a_file_has_no_text(tmp_path: Path) -> None:
    path = make_endless_pdf(tmp_path / "endless.pdf")
    assert path.stat().st_size < 1000
    assert code_of(path) == "needs_ocr"


def test_drawings_are_counted_with_all_they_contain() -> None:
    assert count_drawings({}) == 0
    assert count_drawings({(1, 0): [(2, 0), (3, 0)], (2, 0): [(3, 0)]}) == 4
    assert count_drawings({(1, 0): [(2, 0)], (2, 0): [(1, 0)]}) > MAX_DRAWINGS
    doubling = {(nr, 0): [(nr + 1, 0)] * 2 for nr in range(40)}
    assert count_drawings(doubling) == 2**41 - 1


def test_ordinary_forms_stay_as_they_are(tmp_path: Path) -> None:
    path = make_pdf(tmp_path / "made.pdf", [prose_page()])
    with pikepdf.open(path, allow_overwriting_input=True) as pdf:
        inner = pdf.make_stream(b"", Type=pikepdf.Name.XObject, Subtype=pikepdf.Name.Form, BBox=[0, 0, 9, 9])
        outer = pdf.make_stream(b"/I Do", Type=pikepdf.Name.XObject, Subtype=pikepdf.Name.Form, BBox=[0, 0, 9, 9])
        outer.Resources = pikepdf.Dictionary(XObject=pikepdf.Dictionary(I=inner))
        pdf.pages[0].Resources.XObject = pikepdf.Dictionary(O=outer)
        pdf.save(path)
    with bounded(path) as (file, cut):
        assert (file, cut) == (path, False)
    assert extract(path, "pdf").warnings == []


def test_what_cannot_be_opened_is_left_to_the_engines(tmp_path: Path) -> None:
    path = tmp_path / "broken.pdf"
    path.write_bytes(b"%PDF-1.4 /Form and nothing else")
    with bounded(path) as (file, cut):
        assert (file, cut) == (path, False)
    assert code_of(path) == "corrupt_file"
