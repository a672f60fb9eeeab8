"""Real and hostile files: each ends with its text or with a stable code and a sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from word_match import match_words

from tasks.documents.extract import extract
from tasks.documents.problems import SENTENCES

ROOT = Path(__file__).resolve().parent.parent
GIB = 1024**3
LAYOUTS = ("lo.pdf", "typ.pdf", "typ2.pdf", "weasy.pdf")
RENDERED = [
    *((name, engine) for name in LAYOUTS for engine in (None, "pypdf")),
    ("plain.docx", None),
    ("styled.docx", None),
]

# What the hostile files must come to; engine-killers by the second engine, as after a crash of the first.
HOSTILE = {
    "billion_laughs.docx": "unsafe_xml",
    "colspan.docx": "completed",
    "empty.pdf": "empty_file",
    "enc_owner_aes128.pdf": "completed",
    "enc_user_rc4.pdf": "encrypted_pdf",
    "flate1g_double.pdf": "zip_bomb",
    "form_cycle.pdf": "needs_ocr",
    "leading_junk.pdf": "completed",
    "million_pages.pdf": "too_many_pages",
    "notpdf.pdf": "type_mismatch",
    "notzip.docx": "type_mismatch",
    "prev_loop.pdf": "completed",
    "scan_image_only.pdf": "needs_ocr",
    "truncated_tail.pdf": "completed",
    "zipbomb_spaces.docx": "zip_bomb",
}

# Words that only careful reading finds.
FOUND_IN = {
    "footnotes.docx": "A tachyon walks into a bar.",
    "endnotes.docx": "A tachyon walks into a bar.",
    "text-box.docx": "Datum plane",
    "ControlTest.docx": "content control",
    "check_drop_my.docx": "User dropdown (Piihan B)",
    "tables.docx": "Top left\tTop right\nBottom left\tBottom right",
    "strict-format.docx": "Test",
    "utf8-bom.docx": "This XML has a byte order mark.",
    "testRTFJapanese.rtf": "ゾルゲと尾崎、淡々と最期",
    "testRTFWindowsCodepage1250.rtf": "zażółć gęślą jaźń",
    "libreoffice-form.odt": "Example for a Form",
    "wasteland.epub": "April is the cruellest month",
    "habibi.pdf": "habibi",
    "multicolumn.pdf": "Abstract",
}


@dataclass(frozen=True)
class Ending:
    """How a child ended: what it reported, or nothing when it was killed."""

    path: Path
    report: dict[str, Any] | None

    @property
    def outcome(self) -> str:
        return str(self.report["outcome"]) if self.report else "killed"


def run_child(path: Path, engine: str = "default") -> Ending:
    command = [sys.executable, str(ROOT / "tests" / "extraction_child.py"), str(path), engine, str(GIB), "30"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, cwd=ROOT)
    except subprocess.TimeoutExpired:
        return Ending(path, None)
    return Ending(path, json.loads(done.stdout) if done.returncode == 0 else None)


def read_like_a_worker(path: Path) -> Ending:
    """One try with the default engine and, when that is killed, one with the safest."""
    first = run_child(path)
    return first if first.report else run_child(path, "pypdf")


@pytest.fixture(scope="module")
def endings(corpora: Path) -> Iterator[dict[str, Ending]]:
    files = [path for folder in ("documents", "hostile") for path in sorted((corpora / folder).iterdir())]
    with ThreadPoolExecutor(max_workers=2) as pool:
        yield {ending.path.name: ending for ending in pool.map(read_like_a_worker, files)}


def test_every_file_ends_with_text_or_with_a_stable_code_and_a_sentence(endings: dict[str, Ending]) -> None:
    assert len(endings) >= 90
    for name, ending in endings.items():
        assert ending.report is not None, f"{name} killed both engines"
        if ending.outcome != "completed":
            assert ending.outcome in SENTENCES, name
            assert ending.report["message"].endswith("."), name
            continue
        text = ending.report["text"]
        assert text.strip(), name
        assert "\x00" not in text, name
        text.encode("utf-8")
        for heading in ending.report["headings"]:
            assert text[heading["offset"] :].startswith(heading["text"]), name


def test_hostile_files_come_to_the_end_they_deserve(endings: dict[str, Ending]) -> None:
    assert {name: endings[name].outcome for name in HOSTILE if name in endings} == HOSTILE


@pytest.mark.parametrize(("name", "words"), FOUND_IN.items(), ids=FOUND_IN)
def test_odd_documents_keep_their_words(endings: dict[str, Ending], name: str, words: str) -> None:
    report = endings[name].report
    assert report is not None
    assert words in report["text"]


def test_a_password_is_named_as_the_cause(endings: dict[str, Ending]) -> None:
    assert endings["libreoffice-writer-password.pdf"].outcome == "encrypted_pdf"


@pytest.mark.parametrize(("name", "engine"), RENDERED)
def test_a_rendered_novel_matches_its_truth(corpora: Path, name: str, engine: str | None) -> None:
    folder = corpora / "rendered"
    truth = (folder / "love-among-the-chickens.truth.txt").read_text(encoding="utf-8")
    path = folder / f"love-among-the-chickens.{name}"
    match = match_words(truth, extract(path, path.suffix.removeprefix("."), engine=engine).text)
    print(f"{name} {engine or 'default'}: {match}")
    assert match.worst >= 0.995


@pytest.mark.parametrize("name", LAYOUTS)
def test_chapter_headings_keep_a_line_of_their_own(corpora: Path, name: str) -> None:
    path = corpora / "rendered" / f"love-among-the-chickens.{name}"
    for engine in (None, "pypdf"):
        lines = extract(path, "pdf", engine=engine).text.splitlines()
        assert sum(line.startswith("Chapter ") and len(line) < 15 for line in lines) == 23


def test_paragraphs_of_a_rendered_novel_are_the_writers_own(corpora: Path) -> None:
    folder = corpora / "rendered"
    truth = {line.strip() for line in (folder / "love-among-the-chickens.truth.txt").read_text("utf-8").splitlines()}
    for name in LAYOUTS:
        paragraphs = extract(folder / f"love-among-the-chickens.{name}", "pdf").text.split("\n\n")
        whole = sum(paragraph.strip() in truth for paragraph in paragraphs)
        assert whole >= 0.94 * len(paragraphs), name


def test_a_plain_text_novel_keeps_every_character(corpora: Path) -> None:
    for path in sorted((corpora / "novels").glob("*.txt")):
        source = path.read_text(encoding="utf-8-sig")
        assert extract(path, "txt").text == source.replace("\x0c", "\n"), path.name
