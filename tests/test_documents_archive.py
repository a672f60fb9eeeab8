"""Zips are read within bounds, whatever they declare."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest
from made_documents import make_docx, make_zip, paragraph

from tasks.documents import archive
from tasks.documents.archive import open_archive
from tasks.documents.extract import extract
from tasks.errors import Permanent

MIB = 1024 * 1024


def code_of(path: Path, kind: str = "docx") -> str:
    with pytest.raises(Permanent) as caught:
        extract(path, kind)
    return caught.value.code


def test_an_entry_that_declares_an_absurd_ratio_is_a_bomb(tmp_path: Path) -> None:
    path = make_docx(tmp_path / "a.docx", paragraph(" " * (8 * MIB)))
    assert code_of(path) == "zip_bomb"


def test_too_many_entries_are_a_bomb(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.docx", {f"word/{number}.xml": "" for number in range(5_001)})
    assert code_of(path) == "zip_bomb"


def test_an_entry_that_lies_about_its_size_gives_no_more_than_it_declared(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"big": b" " * (8 * MIB)})
    data = bytearray(path.read_bytes())
    directory = data.rindex(b"PK\x01\x02")
    struct.pack_into("<L", data, directory + 24, 1000)
    path.write_bytes(data)
    with open_archive(path) as opened, pytest.raises(Permanent) as caught:
        opened.read("big")
    assert caught.value.code == "corrupt_file"


def test_bytes_are_counted_over_all_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_zip(tmp_path / "a.zip", {"one": b"x" * 3000}, zipfile.ZIP_STORED)
    with open_archive(path) as opened:
        opened.read("one")
        monkeypatch.setattr(archive, "MAX_TOTAL_BYTES", 5000)
        with pytest.raises(Permanent) as caught:
            opened.read("one")
    assert caught.value.code == "zip_bomb"


def test_one_part_larger_than_any_book_is_too_large(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"one": b"x" * 3000}, zipfile.ZIP_STORED)
    with open_archive(path) as opened, pytest.raises(Permanent) as caught:
        opened.read("one", limit=2999)
    assert caught.value.code == "too_large"


def test_a_sixty_four_bit_directory_is_measured_too(tmp_path: Path) -> None:
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, 5_000_000_000, 0)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, 50, 0, 0)
    path = tmp_path / "a.docx"
    path.write_bytes(record + locator + end)
    assert code_of(path) == "zip_bomb"


def test_a_locked_entry_says_that_it_is_locked(tmp_path: Path) -> None:
    path = make_docx(tmp_path / "a.docx", paragraph("x"))
    data = bytearray(path.read_bytes())
    at = 0
    while (at := data.find(b"PK\x01\x02", at)) >= 0:
        data[at + 8] |= 1
        at += 4
    path.write_bytes(data)
    assert code_of(path) == "encrypted_file"


def test_a_file_that_is_no_zip_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.docx"
    path.write_bytes(b"hello " * 100)
    assert code_of(path) == "corrupt_file"
    assert code_of(path, "epub") == "corrupt_file"
    assert code_of(path, "odt") == "corrupt_file"
