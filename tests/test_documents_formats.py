"""Text, Markdown, HTML, RTF, OpenDocument and EPUB."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_documents import make_epub, make_odt, make_zip

from tasks.documents.clean import clean
from tasks.documents.extract import extract
from tasks.documents.model import ExtractedText
from tasks.errors import Permanent


def read(folder: Path, kind: str, content: str | bytes) -> ExtractedText:
    path = folder / f"made.{kind}"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    found = extract(path, kind)
    for heading in found.headings:
        assert found.text[heading.offset :].startswith(heading.text)
    return found


def code_of(folder: Path, kind: str, content: str | bytes) -> str:
    with pytest.raises(Permanent) as caught:
        read(folder, kind, content)
    return caught.value.code


def headings(found: ExtractedText) -> list[tuple[int, str]]:
    return [(heading.level, heading.text) for heading in found.headings]


# Plain text


def test_plain_text_keeps_its_lines(tmp_path: Path) -> None:
    assert read(tmp_path, "txt", "One\r\ntwo\r\n\r\n  three\rfour").text == "One\ntwo\n\n  three\nfour"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_unicode_is_read_in_all_its_encodings(tmp_path: Path, encoding: str) -> None:
    text = "“Señor Öztürk,” she said — naïvely."
    found = read(tmp_path, "txt", text.encode(encoding))
    assert found.text == text
    assert found.warnings == []


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "“Oui,” said Hélène — “c’est ça.” Größe, señor."),
        ("mac_roman", "“Yes,” he said. It’s a “plain” tale — isn’t it? “No.”"),
        ("cp1250", "Zażółć gęślą jaźń, powiedział żółty ślimak."),
        ("cp1251", "Все счастливые семьи похожи друг на друга."),
        ("koi8_r", "Все счастливые семьи похожи друг на друга."),
        ("gb18030", "我在这里等了很久，他一直没有来。这是不是你的书？"),
        ("euc_kr", "그는 이 마을에서 가장 오래된 집에 살고 있었다."),
        ("cp932", "吾輩は猫である。名前はまだ無い。どこで生れたか見当がつかぬ。"),
    ],
)
def test_old_encodings_are_guessed_and_the_writer_is_told(tmp_path: Path, encoding: str, text: str) -> None:
    found = read(tmp_path, "txt", text.encode(encoding))
    assert found.text == text
    assert encoding in found.warnings[0]


def test_a_few_broken_bytes_do_not_make_a_text_another_encoding(tmp_path: Path) -> None:
    found = read(tmp_path, "txt", ("é" * 200).encode() + b"\xff" + b" end")
    assert found.text == "é" * 200 + "\ufffd end"


def test_nuls_controls_and_lone_surrogates_are_removed() -> None:
    assert clean("a\x00b\x07c\ud800d\ufeffe\u00adf") == "abcdef"
    assert clean("\ud83d\ude00") == "😀"
    assert clean("right\u200fto left, می\u200cخواهم") == "right\u200fto left, می\u200cخواهم"


def test_garbage_is_not_text(tmp_path: Path) -> None:
    assert code_of(tmp_path, "txt", bytes(range(256)) * 20) == "not_text"
    assert code_of(tmp_path, "md", bytes(range(32)) * 20) == "not_text"


def test_nothing_at_all_is_empty_and_blanks_are_no_text(tmp_path: Path) -> None:
    assert code_of(tmp_path, "txt", b"") == "empty_file"
    assert code_of(tmp_path, "txt", b" \n \n") == "no_text"
    assert code_of(tmp_path, "html", b"<p> </p>") == "no_text"


# Markdown


def test_markdown_headings_are_known_and_marks_are_taken_off(tmp_path: Path) -> None:
    source = (
        '---\ntitle: "The Lamp"\nauthor: A. Writer\n---\n# One #\n\n'
        "She was *very* **sure** of `it`, see [here](x.md).\n"
        "<!-- a note\nto self -->\nTwo\n===\n\n> quoted _words_ of snake_case\n\n***\n\n"
        "## A *fine* day\n\n2 * 3 * 4 \\*\n"
    )
    found = read(tmp_path, "md", source)
    assert (found.title, found.author) == ("The Lamp", "A. Writer")
    assert headings(found) == [(1, "One"), (1, "Two"), (2, "A fine day")]
    for words in ("She was very sure of it, see here.", "quoted words of snake_case", "\n* * *\n", "2 * 3 * 4 *"):
        assert words in found.text
    assert "note" not in found.text


def test_a_line_of_dashes_after_a_paragraph_is_a_scene_break(tmp_path: Path) -> None:
    found = read(tmp_path, "md", "A long paragraph\nof two lines.\n---\nNext scene.")
    assert found.headings == []
    assert found.text == "A long paragraph\nof two lines.\n* * *\nNext scene."


def test_fenced_text_is_taken_as_it_is(tmp_path: Path) -> None:
    found = read(tmp_path, "md", "```\n# no heading\n*stars*\n```\n# Heading")
    assert headings(found) == [(1, "Heading")]
    assert "*stars*" in found.text


# HTML


def test_html_blocks_become_paragraphs_and_scripts_are_left_out(tmp_path: Path) -> None:
    source = (
        "<!DOCTYPE html><head><title>The Lamp</title><meta name=author content='A. Writer'><style>p{}</style></head>"
        "<body><nav>Menu</nav><h1>One</h1><p>First\n  line<br>second</p>"
        "<div>Loose <b>words</b><p>Last &amp; least</p></div>"
        "<p hidden>no</p><p style='display: none'>no</p><script>no()</script></body>"
    )
    found = read(tmp_path, "html", source)
    assert found.text == "One\n\nFirst line\nsecond\n\nLoose words\n\nLast & least"
    assert headings(found) == [(1, "One")]
    assert (found.title, found.author) == ("The Lamp", "A. Writer")


def test_html_tables_are_read_by_rows(tmp_path: Path) -> None:
    source = "<table><tr><th>a<th>b<tr><td>c<td>d</table><table><tr><td><p>One<p>Two<td>x</table>"
    assert read(tmp_path, "html", source).text == "a\tb\nc\td\n\nOne\n\nTwo\n\nx"


def test_a_declared_encoding_is_believed(tmp_path: Path) -> None:
    source = "<meta charset='windows-1251'><p>Привет"
    assert read(tmp_path, "html", source.encode("cp1251")).text == "Привет"


def test_entity_bombs_and_bottomless_nesting_in_html_are_harmless(tmp_path: Path) -> None:
    bomb = "<!DOCTYPE html [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;'>]><p>fine &b;</p>"
    assert len(read(tmp_path, "html", bomb).text) < 100
    nested = "<p>shallow</p>" + "<table><tr><td>" * 3000 + "deep"
    assert read(tmp_path, "html", nested).text.startswith("shallow")


# RTF


def test_rtf_reads_unicode_code_pages_and_fallbacks_once(tmp_path: Path) -> None:
    source = (
        rb"{\rtf1\ansi\ansicpg1252\uc1{\fonttbl{\f0 Times;}{\f1\fcharset204 Cyr;}{\f2\fcharset128 Gothic;}}"
        rb"\f0 caf\'e9 \u8212? \uc2\u26085\'93\'fa\uc1 \ldblquote x\rdblquote  {\f1\'cf\'f0} {\f2\'93\'fa} "
        rb"\u-10179?\u-8704?\par}"
    )
    assert read(tmp_path, "rtf", source).text == "café — 日“x” Пр 日 😀"


def test_rtf_double_bytes_may_end_in_a_letter(tmp_path: Path) -> None:
    source = rb"{\rtf1\ansi{\fonttbl{\f0\fcharset128 Gothic;}}\f0 \'83e\'83X\'83g\par}"
    assert read(tmp_path, "rtf", source).text == "テスト"


def test_rtf_knows_headings_notes_and_hidden_text(tmp_path: Path) -> None:
    source = (
        rb"{\rtf1{\stylesheet{\s0 Normal;}{\s1\outlinelevel0 heading 1;}{\s2 heading 2;}}"
        rb"{\info{\title The Lamp}{\author A. W.}}"
        rb"{\header Running head\par}\pard\s1 One\par\pard\s2 Two\par\pard\s0 Text{\super\chftn}"
        rb"{\footnote\pard {\super\chftn} A note.} goes on{\v hidden}{\deleted gone}{\*\annotation no}.\par"
        rb"{\field{\*\fldinst HYPERLINK x}{\fldrslt link}}{\pict\bin4 }}}}\par}"
    )
    found = read(tmp_path, "rtf", source)
    assert found.text == "One\n\nTwo\n\nText[1] goes on.\n\n[1] A note.\n\nlink"
    assert headings(found) == [(1, "One"), (2, "Two")]
    assert (found.title, found.author) == ("The Lamp", "A. W.")


def test_rtf_tables_are_read_by_rows(tmp_path: Path) -> None:
    source = rb"{\rtf1\trowd\intbl a\cell b\cell\row\trowd\intbl c\cell d\cell\row\pard after\par}"
    assert read(tmp_path, "rtf", source).text == "a\tb\nc\td\n\nafter"


def test_rtf_that_stops_in_the_middle_or_nests_without_end(tmp_path: Path) -> None:
    assert read(tmp_path, "rtf", rb"{\rtf1 One\par {\b Two").text == "One\n\nTwo"
    assert code_of(tmp_path, "rtf", rb"{\rtf1 " + b"{" * 5000) == "corrupt_file"
    assert code_of(tmp_path, "rtf", b"plain words") == "corrupt_file"


# OpenDocument


def test_odt_reads_headings_notes_boxes_and_tables(tmp_path: Path) -> None:
    body = (
        "<text:tracked-changes><text:changed-region><text:deletion><text:p>deleted</text:p></text:deletion>"
        '</text:changed-region></text:tracked-changes><text:h text:outline-level="2">Two</text:h>'
        '<text:p>A<text:tab/>b<text:s text:c="900000000"/>c<text:line-break/>d<text:note><text:note-citation>1'
        "</text:note-citation><text:note-body><text:p>A note.</text:p></text:note-body></text:note>"
        "<office:annotation><text:p>comment</text:p></office:annotation> e"
        "<draw:frame><draw:text-box><text:p>In the box</text:p></draw:text-box></draw:frame></text:p>"
        '<table:table><table:table-row><table:table-cell table:number-columns-repeated="99999999"><text:p>x</text:p>'
        "</table:table-cell><table:table-cell><text:p>y</text:p></table:table-cell></table:table-row></table:table>"
    )
    found = extract(make_odt(tmp_path / "a.odt", body), "odt")
    assert found.text == "Two\n\nA\tb c\nd[1] e\n\n[1] A note.\n\nIn the box\n\nx\ty"
    assert headings(found) == [(2, "Two")]


def test_a_locked_odt_says_so(tmp_path: Path) -> None:
    entries: dict[str, str | bytes] = {
        "META-INF/manifest.xml": "<m><manifest:encryption-data/></m>",
        "content.xml": "x",
    }
    with pytest.raises(Permanent) as caught:
        extract(make_zip(tmp_path / "a.odt", entries), "odt")
    assert caught.value.code == "encrypted_file"


# EPUB


def test_an_epub_is_read_in_the_order_of_its_spine_with_a_gap_between_pages(tmp_path: Path) -> None:
    pages = {
        "z.xhtml": '<?xml version="1.0" encoding="utf-8"?><html><h1>Eins</h1><p>Größe&nbsp;zählt.</p></html>',
        "a.xhtml": "<html><body><h2>Zwei</h2><p>Ende.</p></body></html>",
    }
    found = extract(make_epub(tmp_path / "a.epub", pages), "epub")
    assert found.text == "Eins\n\nGröße zählt.\n\n\nZwei\n\nEnde."
    assert headings(found) == [(1, "Eins"), (2, "Zwei")]
    assert (found.title, found.author) == ("A Book", "A. Writer")


def test_a_protected_epub_says_so_and_scrambled_fonts_do_not_matter(tmp_path: Path) -> None:
    pages = {"p.xhtml": "<p>words</p>"}
    font = '<CipherReference URI="OEBPS/font.otf"/>'
    assert extract(make_epub(tmp_path / "a.epub", pages, encryption=font), "epub").text == "words"
    with pytest.raises(Permanent) as caught:
        extract(make_epub(tmp_path / "b.epub", pages, encryption='<CipherReference URI="OEBPS/p.xhtml"/>'), "epub")
    assert caught.value.code == "drm_protected"
