"""Uploads are told apart by their content, then by their name."""

from __future__ import annotations

import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from made_documents import make_docx, make_epub, make_odt, make_zip, paragraph

from tasks.documents.kinds import HEAD_BYTES, KINDS, sniff
from tasks.errors import Refused

DOCX_HEAD = b"PK\x03\x04" + bytes(26) + b"[Content_Types].xml"


def sniff_file(path: Path) -> str:
    return sniff(path.read_bytes()[:HEAD_BYTES], path.name, path=path).name


def refusal(head: bytes, filename: str, path: Path | None = None) -> Refused:
    with pytest.raises(Refused) as caught:
        sniff(head, filename, path=path)
    return caught.value


@pytest.mark.parametrize(
    ("head", "filename", "kind"),
    [
        (b"%PDF-1.7\n", "book.pdf", "pdf"),
        (b"\xef\xbb\xbf%PDF-1.4", "book.PDF", "pdf"),
        (b"%PDF-1.7\n", "no extension", "pdf"),
        (bytes(500) + b"%PDF-1.4", "mailed.pdf", "pdf"),
        (DOCX_HEAD, "book.docx", "docx"),
        (b"{\\rtf1\\ansi", "book.rtf", "rtf"),
        (b"{\\rtf1\\ansi", "book.doc", "rtf"),
        (b"# One\n", "book.md", "md"),
        (b"Call me Ishmael.", "book.txt", "txt"),
        (b"Call me Ishmael.", "book", "txt"),
        (b"The header of a PDF is %PDF-1.4.", "about.txt", "txt"),
        (b"<!DOCTYPE html><p>x", "page", "html"),
        (b"<p>x", "page.htm", "html"),
        ("Große Straße".encode("cp1252"), "deutsch.txt", "txt"),
        ("\ufeffwide".encode("utf-16-le"), "wide.txt", "txt"),
        ("wide without a mark".encode("utf-16-le"), "wide.txt", "txt"),
        (b"\x93Yes\x94, she said.\x1a", "old.txt", "txt"),
    ],
)
def test_a_file_is_told_by_its_content_then_by_its_name(head: bytes, filename: str, kind: str) -> None:
    assert sniff(head, filename) is KINDS[kind]


@pytest.mark.parametrize(
    ("head", "filename", "code", "status"),
    [
        (b"", "book.pdf", "empty_file", 422),
        (bytes(100), "book.txt", "empty_file", 422),
        (b"hello world", "notpdf.pdf", "type_mismatch", 422),
        (b"hello hello", "notzip.docx", "type_mismatch", 422),
        (b"%PDF-1.7", "book.docx", "type_mismatch", 422),
        (b"plain words", "book.rtf", "type_mismatch", 422),
        (b"\x00\x01\x02\x03" * 100, "book.txt", "not_text", 422),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "cover.png", "unsupported_type", 415),
        (b"MZ\x90\x00" + bytes(100), "book.txt", "unsupported_type", 415),
        (b"a,b,c", "table.csv", "unsupported_type", 415),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), "old.doc", "unsupported_type", 415),
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"),
            "locked.docx",
            "encrypted_file",
            422,
        ),
    ],
)
def test_a_refusal_has_a_code_a_status_and_a_sentence(head: bytes, filename: str, code: str, status: int) -> None:
    error = refusal(head, filename)
    assert (error.code, error.status) == (code, status)
    assert error.message[0].isupper()
    assert error.message.endswith(".")


def test_zips_are_told_apart_by_their_directory(tmp_path: Path) -> None:
    assert sniff_file(make_docx(tmp_path / "a.docx", paragraph("x"))) == "docx"
    assert sniff_file(make_odt(tmp_path / "a.odt", "")) == "odt"
    assert sniff_file(make_epub(tmp_path / "a.epub", {"p.xhtml": "<p>x</p>"})) == "epub"
    assert sniff_file(make_docx(tmp_path / "nameless", paragraph("x"))) == "docx"


def test_an_odt_and_an_epub_are_known_before_the_whole_file_is_there(tmp_path: Path) -> None:
    for name in ("odt", "epub"):
        path = tmp_path / f"a.{name}"
        make_zip(path, {"mimetype": KINDS[name].media_type}, zipfile.ZIP_STORED)
        assert sniff(path.read_bytes()[:100], "upload").name == name


@pytest.mark.parametrize(
    ("entries", "name", "words"),
    [
        ({"xl/workbook.xml": "x"}, "book.xlsx", "spreadsheet"),
        ({"Index/Document.iwa": "x"}, "book.pages", "Pages"),
        ({"chapter.txt": "x"}, "book.zip", "archive"),
    ],
)
def test_a_foreign_zip_is_refused_with_help(
    tmp_path: Path, entries: dict[str, str | bytes], name: str, words: str
) -> None:
    path = make_zip(tmp_path / name, entries)
    error = refusal(path.read_bytes(), name, path)
    assert (error.code, error.status) == ("unsupported_type", 415)
    assert words in error.message


def test_a_zip_with_another_documents_name_is_a_mismatch(tmp_path: Path) -> None:
    path = make_odt(tmp_path / "really-odt.docx", "")
    assert refusal(path.read_bytes(), path.name, path).code == "type_mismatch"


def test_a_truncated_zip_is_damaged(tmp_path: Path) -> None:
    whole = make_docx(tmp_path / "whole.docx", paragraph("x")).read_bytes()
    path = tmp_path / "half.docx"
    path.write_bytes(whole[: len(whole) // 2])
    assert refusal(path.read_bytes(), path.name, path).code == "corrupt_file"


def test_a_huge_zip_directory_is_refused_without_loading_it(tmp_path: Path) -> None:
    path = tmp_path / "directory.docx"
    path.write_bytes(b"PK\x03\x04" + bytes(60) + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 9, 9, 900_000_000, 4, 0))
    assert refusal(path.read_bytes(), path.name, path).code == "zip_bomb"


def test_the_front_door_can_sniff_with_the_standard_library_alone() -> None:
    script = (
        "import sys; before = set(sys.modules); import tasks.documents.kinds, tasks.errors;"
        "new = {name.split('.')[0] for name in set(sys.modules) - before} - {'tasks'};"
        "print(sorted(new - set(sys.stdlib_module_names)))"
    )
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
