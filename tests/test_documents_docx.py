"""Nothing a writer sees in Word is lost, nothing a writer does not see is read."""

from __future__ import annotations

import zipfile
from pathlib import Path

import docx
import pytest
from made_documents import W, make_docx, make_zip, paragraph, run

from tasks.documents.extract import extract
from tasks.documents.model import ExtractedText
from tasks.errors import Permanent

HEADINGS = (
    '<w:style w:styleId="berschrift1"><w:name w:val="heading 1"/></w:style>'
    '<w:style w:styleId="Chapter"><w:name w:val="My Chapter"/><w:basedOn w:val="berschrift1"/></w:style>'
    '<w:style w:styleId="Scene"><w:name w:val="Scene"/><w:pPr><w:outlineLvl w:val="1"/></w:pPr></w:style>'
    '<w:style w:styleId="Plain"><w:name w:val="Plain"/><w:basedOn w:val="Chapter"/>'
    '<w:pPr><w:outlineLvl w:val="9"/></w:pPr></w:style>'
    '<w:style w:styleId="Title"><w:name w:val="Title"/></w:style>'
    '<w:style w:styleId="Loop"><w:name w:val="Loop"/><w:basedOn w:val="Loop"/></w:style>'
    '<w:style w:styleId="Secret"><w:name w:val="Secret"/><w:rPr><w:vanish/></w:rPr></w:style>'
)


def read(folder: Path, body: str, **parts: str) -> ExtractedText:
    return extract(make_docx(folder / "made.docx", body, **parts), "docx")


def styled(style: str, text: str) -> str:
    return paragraph(text, properties=f'<w:pStyle w:val="{style}"/>')


def test_paragraphs_stand_apart_by_a_blank_line(tmp_path: Path) -> None:
    assert read(tmp_path, paragraph("One.") + paragraph("Two.")).text == "One.\n\nTwo."


def test_tracked_insertions_and_moves_are_read_and_deletions_are_not(tmp_path: Path) -> None:
    body = paragraph(
        "Kept ",
        f"<w:ins>{run('inserted ')}</w:ins>",
        "<w:del><w:r><w:delText>deleted </w:delText></w:r></w:del>",
        f"<w:moveFrom>{run('moved away ')}</w:moveFrom>",
        f"<w:moveTo>{run('moved here')}</w:moveTo>",
    )
    assert read(tmp_path, body).text == "Kept inserted moved here"


def test_a_paragraph_whose_end_was_deleted_runs_on(tmp_path: Path) -> None:
    body = paragraph("One ", properties="<w:rPr><w:del/></w:rPr>") + paragraph("sentence.")
    assert read(tmp_path, body).text == "One sentence."


def test_notes_follow_their_paragraph_and_are_numbered(tmp_path: Path) -> None:
    body = paragraph("Truth", '<w:r><w:footnoteReference w:id="2"/></w:r>', ".") + paragraph(
        "End", '<w:r><w:endnoteReference w:id="2"/></w:r>'
    )
    footnotes = (
        f'<w:footnote w:type="separator" w:id="0">{paragraph("---")}</w:footnote>'
        f'<w:footnote w:id="2">{paragraph("A foot.")}</w:footnote>'
    )
    endnotes = f'<w:endnote w:id="2">{paragraph("An end.")}</w:endnote>'
    found = read(tmp_path, body, footnotes=footnotes, endnotes=endnotes)
    assert found.text == "Truth[1].\n\n[1] A foot.\n\nEnd[2]\n\n[2] An end."


def test_a_text_box_is_read_once(tmp_path: Path) -> None:
    box = f"<w:txbxContent>{paragraph('In the box')}</w:txbxContent>"
    body = paragraph(
        "Around",
        "<w:r><mc:AlternateContent>"
        f"<mc:Choice Requires='wps'><w:drawing><wps:txbx>{box}</wps:txbx></w:drawing></mc:Choice>"
        f"<mc:Fallback><w:pict><v:textbox>{box}</v:textbox></w:pict></mc:Fallback>"
        "</mc:AlternateContent></w:r>",
    )
    assert read(tmp_path, body).text == "Around\n\nIn the box"


def test_content_controls_are_read_and_their_placeholders_are_not(tmp_path: Path) -> None:
    def control(inside: str, properties: str = "") -> str:
        return f"<w:sdt><w:sdtPr>{properties}</w:sdtPr><w:sdtContent>{inside}</w:sdtContent></w:sdt>"

    body = (
        control(paragraph("A block."))
        + paragraph("In ", control(run("line")))
        + paragraph("Name: ", control(run("Click here"), "<w:showingPlcHdr/>"))
    )
    assert read(tmp_path, body).text == "A block.\n\nIn line\n\nName:"


def test_hidden_text_is_left_out_whether_by_run_or_by_style(tmp_path: Path) -> None:
    body = paragraph(
        "Seen",
        run(" hidden", "<w:vanish/>"),
        run(" shown", '<w:vanish w:val="0"/>'),
        run(" x", '<w:rStyle w:val="Secret"/>'),
    ) + styled("Secret", "Not this.")
    assert read(tmp_path, body, styles=HEADINGS).text == "Seen shown"


def test_headings_are_known_by_style_inheritance_and_outline_level(tmp_path: Path) -> None:
    body = (
        styled("berschrift1", "One")
        + styled("Chapter", "Two")
        + styled("Scene", "Three")
        + styled("Plain", "Four")
        + styled("Loop", "Five")
        + paragraph("Six", properties='<w:outlineLvl w:val="2"/>')
        + paragraph("Seven", properties='<w:pStyle w:val="Chapter"/><w:outlineLvl w:val="9"/>')
    )
    found = read(tmp_path, body, styles=HEADINGS)
    assert [(heading.text, heading.level) for heading in found.headings] == [
        ("One", 1),
        ("Two", 1),
        ("Three", 2),
        ("Six", 3),
    ]
    for heading in found.headings:
        assert found.text[heading.offset :].startswith(heading.text)


def test_the_title_comes_from_the_title_paragraph_when_properties_say_nothing(tmp_path: Path) -> None:
    found = read(tmp_path, styled("Title", "The Lamp") + paragraph("Once."), styles=HEADINGS)
    assert found.title == "The Lamp"
    assert found.headings == []


def test_breaks_tabs_and_special_hyphens_become_text(tmp_path: Path) -> None:
    body = paragraph(
        "<w:r><w:t>a</w:t><w:tab/><w:t>b</w:t><w:br/><w:t>c</w:t><w:noBreakHyphen/><w:t>d</w:t><w:softHyphen/><w:t>e</w:t></w:r>",
        '<w:r><w:br w:type="page"/><w:t>next page</w:t></w:r>',
    )
    assert read(tmp_path, body).text == "a\tb\nc-de\n\nnext page"


def test_a_table_is_read_by_rows_and_a_monstrous_span_costs_nothing(tmp_path: Path) -> None:
    def cell(text: str, properties: str = "") -> str:
        return f"<w:tc><w:tcPr>{properties}</w:tcPr>{paragraph(text)}</w:tc>"

    monstrous = '<w:gridSpan w:val="20000000"/>'
    body = (
        f"<w:tbl><w:tr>{cell('a', monstrous)}{cell('b')}</w:tr>"
        f"<w:tr>{cell('c')}{cell('d')}</w:tr><w:tr><w:trPr><w:del/></w:trPr>{cell('x')}{cell('y')}</w:tr></w:tbl>"
        f"{paragraph('after')}"
    )
    assert read(tmp_path, body).text == "a\tb\nc\td\n\nafter"


def test_a_table_used_for_layout_keeps_its_paragraphs(tmp_path: Path) -> None:
    first, second = paragraph("One.") + paragraph("Two."), paragraph("Three.")
    body = f"<w:tbl><w:tr><w:tc>{first}</w:tc><w:tc>{second}</w:tc></w:tr></w:tbl>"
    assert read(tmp_path, body).text == "One.\n\nTwo.\n\nThree."


def test_a_deliberate_gap_is_kept_and_habitual_gaps_are_not(tmp_path: Path) -> None:
    scene = "".join(paragraph(f"{number}.") for number in range(4)) + paragraph("") + paragraph("Later.")
    assert read(tmp_path, scene).text.endswith("3.\n\n\nLater.")
    habit = "".join(paragraph(f"{number}.") + paragraph("") for number in range(4))
    assert read(tmp_path, habit).text == "0.\n\n1.\n\n2.\n\n3."


def test_the_strict_variant_is_read_too(tmp_path: Path) -> None:
    path = make_docx(tmp_path / "strict.docx", paragraph("Strict."))
    with zipfile.ZipFile(path) as file:
        entries: dict[str, str | bytes] = {
            name: file.read(name).replace(W.encode(), b"http://purl.oclc.org/ooxml/wordprocessingml/main")
            for name in file.namelist()
        }
    assert extract(make_zip(path, entries), "docx").text == "Strict."


def test_comments_are_left_out_and_the_writer_is_told(tmp_path: Path) -> None:
    comments = f'<w:comment w:id="1">{paragraph("Too long!")}</w:comment>'
    found = read(tmp_path, paragraph("Words"), comments=comments)
    assert found.text == "Words"
    assert found.warnings == ["1 comments in the margin were left out."]


def test_a_doctype_is_unsafe_whatever_its_encoding(tmp_path: Path) -> None:
    evil = '<!DOCTYPE d [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
    body = f'<w:document xmlns:w="{W}"><w:body><w:p><w:r><w:t>x</w:t></w:r></w:p></w:body></w:document>'
    for xml in (evil + body, ("\ufeff" + evil + body).encode("utf-16-le")):
        path = make_zip(tmp_path / "evil.docx", {"word/document.xml": xml})
        with pytest.raises(Permanent) as caught:
            extract(path, "docx")
        assert caught.value.code == "unsafe_xml"


@pytest.mark.parametrize("xml", ["<w:document", "", f'<w:document xmlns:w="{W}">' + "<w:p>" * 5000])
def test_broken_or_bottomless_xml_is_a_damaged_file(tmp_path: Path, xml: str) -> None:
    path = make_zip(tmp_path / "broken.docx", {"word/document.xml": xml})
    with pytest.raises(Permanent) as caught:
        extract(path, "docx")
    assert caught.value.code == "corrupt_file"


def test_no_words_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(Permanent) as caught:
        read(tmp_path, paragraph(" "))
    assert caught.value.code == "no_text"


def test_what_word_processors_write_is_read(tmp_path: Path) -> None:
    document = docx.Document()
    document.core_properties.title = "Written"
    document.core_properties.author = "A. Writer"
    document.add_heading("Chapter One", 1)
    document.add_paragraph("It was a bright cold day.")
    path = tmp_path / "written.docx"
    document.save(str(path))
    found = extract(path, "docx")
    assert found.text == "Chapter One\n\nIt was a bright cold day."
    assert [(heading.level, heading.text) for heading in found.headings] == [(1, "Chapter One")]
    assert (found.title, found.author, found.engine) == ("Written", "A. Writer", "docx-xml")
