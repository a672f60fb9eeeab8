"""The engines that read PDFs. Native code may be killed by a hostile file: see `extract` for what happens then."""

from __future__ import annotations

import ctypes
import itertools
import logging
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pikepdf
import pypdfium2
import pypdfium2.raw as pdfium

from tasks.documents.pdf_lines import Line, Page, Scan, join_rows, line_of, unmeasured
from tasks.documents.problems import unreadable

MAX_PAGES = 20_000
MAX_BOOKMARKS = 5_000
_ENDS = re.compile("\r\n|[\r\n]|(?<=[\u0002\ufffe])")
_LATE_HYPHEN = re.compile(r"(?<=[^\W\d_])(\r\n)([-\u2010])(?=[^\W\d_])")
_PAINT = re.compile(rb"(?<![\w/])(?:Do|BI|sh|[fFSsBb]\*?)(?!\w)")
_PICTURED_SAMPLE = 10

# It tells every oddity of a file, thousands of them if need be, and may quote the text.
logging.getLogger("pypdf").setLevel(logging.CRITICAL)


def read_with_pdfium(path: Path) -> Scan:
    """Lines with places. Raises Permanent `encrypted_pdf`, `too_many_pages`; PdfiumError for a broken file."""
    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) == pdfium.FPDF_ERR_PASSWORD:
            raise unreadable("encrypted_pdf", "a user password is set") from error
        raise
    with document:
        _check_pages(len(document))
        scan = Scan("pdfium", [])
        for number in range(len(document)):
            scan.pages.append(_pdfium_page(document, number, scan))
        properties = document.get_metadata_dict()
        scan.title, scan.author = properties.get("Title"), properties.get("Author")
        scan.bookmarks = _bookmarks(document)
        return scan


def read_with_pypdf(path: Path) -> Scan:
    """Lines without places. Raises Permanent `encrypted_pdf`, `too_many_pages`, `zip_bomb`; PyPdfError and others."""
    reader = _open_pypdf(path)
    scan = Scan("pypdf", [])
    for number, page in enumerate(reader.pages):
        scan.pages.append(_pypdf_page(page, number, scan))
    properties = reader.metadata
    if properties is not None:
        scan.title, scan.author = _metadata(properties, "/Title"), _metadata(properties, "/Author")
    return scan


def shows_pictures(path: Path) -> tuple[bool, bool]:
    """Whether the first pages carry pictures, and whether they paint anything at all."""
    pictured = painted = False
    for page in itertools.islice(_open_pypdf(path).pages, _PICTURED_SAMPLE):
        pictured = pictured or _has_picture(page)
        contents = page.get_contents()
        painted = painted or bool(contents is not None and _PAINT.search(contents.get_data()))
    return pictured, painted


def repair(path: Path, target: Path) -> None:
    """Write a repaired copy. Raises PdfError when nothing can be saved, Permanent `encrypted_pdf`."""
    try:
        with pikepdf.open(path) as broken:
            broken.save(target)
    except pikepdf.PasswordError as error:
        raise unreadable("encrypted_pdf", "a user password is set") from error


def _check_pages(count: int) -> None:
    if count > MAX_PAGES:
        raise unreadable("too_many_pages", f"{count} pages, at most {MAX_PAGES}")


def _pdfium_page(document: pypdfium2.PdfDocument, number: int, scan: Scan) -> Page:
    try:
        page = document[number]
    except pypdfium2.PdfiumError:
        scan.unreadable_pages.append(number + 1)
        return Page([], measured=True)
    textpage = page.get_textpage()
    try:
        return _lines_of(textpage, page.get_height())
    finally:
        textpage.close()
        page.close()


def _lines_of(textpage: pypdfium2.PdfTextPage, height: float) -> Page:
    # The engine sometimes puts a line's closing hyphen after the line's end; both places have the same length.
    text = _LATE_HYPHEN.sub(r"\2\1", _page_text(textpage))
    lines: list[Line] = []
    texts: list[str] = []
    start = 0
    for part in _ENDS.split(text):
        at = text.index(part, start) if part else start
        start = at + len(part)
        texts.append(part)
        if part.strip():
            line = _measure(textpage, part, at, height)
            if line is None:
                return unmeasured(_ENDS.split(text))
            lines.append(line)
    if _runs_sideways(lines):
        return unmeasured(texts)
    return Page(join_rows(lines), measured=True)


def _page_text(textpage: pypdfium2.PdfTextPage) -> str:
    """All text of a page; indices into it are pdfium's text indices as long as nothing lies beyond the BMP."""
    count = textpage.count_chars()
    if count <= 0:
        return ""
    buffer = (ctypes.c_ushort * (count + 1))()
    written = pdfium.FPDFText_GetText(textpage, 0, count, buffer)
    return bytes(buffer)[: 2 * max(0, written - 1)].decode("utf-16-le", "surrogatepass")


def _measure(textpage: pypdfium2.PdfTextPage, part: str, at: int, height: float) -> Line | None:
    """The place of a line by its first and last letter; None when indices do not lead to these letters."""
    stripped = part.strip()
    begin = at + len(part) - len(part.lstrip())
    first = pdfium.FPDFText_GetCharIndexFromTextIndex(textpage, begin)
    last = pdfium.FPDFText_GetCharIndexFromTextIndex(textpage, begin + len(stripped) - 1)
    if first < 0 or last < first or pdfium.FPDFText_GetUnicode(textpage, first) != ord(stripped[0]):
        return None
    left, bottom, right, _ = textpage.get_charbox(first, loose=True)
    left_of_last, _, right_of_last, _ = textpage.get_charbox(last, loose=True)
    # Right-to-left lines begin at the right.
    left, right = min(left, left_of_last), max(right, right_of_last)
    # Blanks may be made up by the engine and have no size, so the letter nearest the middle is asked.
    middle = min((i for i, letter in enumerate(stripped) if letter.isalnum()), key=_near(stripped), default=0)
    letter = pdfium.FPDFText_GetCharIndexFromTextIndex(textpage, begin + middle)
    return line_of(part, left, right, height - bottom, _size(textpage, max(letter, first)))


def _near(text: str) -> Callable[[int], float]:
    return lambda index: abs(index - len(text) / 2)


def _size(textpage: pypdfium2.PdfTextPage, index: int) -> float:
    """Height of a letter in points: the font's size times what the page's matrix makes of it."""
    size = float(pdfium.FPDFText_GetFontSize(textpage, index))
    matrix = pdfium.FS_MATRIX()
    if pdfium.FPDFText_GetMatrix(textpage, index, matrix):
        size *= math.hypot(matrix.c, matrix.d) or 1.0
    return round(size, 1) or 1.0


def _runs_sideways(lines: list[Line]) -> bool:
    """Whether most lines of a page are set upright or turned, so that places along the line mean nothing."""
    long = [line for line in lines if len(line.text) >= 10]
    return bool(long) and sum(1 for line in long if line.width < 2 * line.size) * 2 > len(long)


def _bookmarks(document: pypdfium2.PdfDocument) -> list[tuple[int, int, str]]:
    result = []
    for bookmark in itertools.islice(document.get_toc(max_depth=6), MAX_BOOKMARKS):
        destination = bookmark.get_dest()
        index = destination.get_index() if destination is not None else None
        if index is not None and index >= 0:
            result.append((index, bookmark.level + 1, bookmark.get_title()))
    return result


def _open_pypdf(path: Path) -> Any:
    """A reader that is past the password and within the page limit."""
    import pypdf

    reader = pypdf.PdfReader(path)
    if reader.is_encrypted and not reader.decrypt(""):
        raise unreadable("encrypted_pdf", "a user password is set")
    # What the file declares is looked at first, because counting a million pages takes minutes.
    pages: Any = reader.root_object["/Pages"]
    declared = pages.get("/Count", 0)
    _check_pages(declared if isinstance(declared, int) else 0)
    _check_pages(len(reader.pages))
    return reader


def _pypdf_page(page: Any, number: int, scan: Scan) -> Page:
    from pypdf.errors import LimitReachedError

    try:
        return unmeasured(page.extract_text().split("\n"))
    except LimitReachedError as error:
        raise unreadable("zip_bomb", f"page {number + 1}: {type(error).__name__}") from error
    except MemoryError:
        raise
    except Exception:
        # One broken page must not cost the others; the writer is told which one is missing.
        scan.unreadable_pages.append(number + 1)
        return Page([], measured=False)


def _metadata(properties: Any, name: str) -> str | None:
    value = properties.get(name)
    return str(value) if value is not None else None


def _has_picture(page: Any) -> bool:
    resources = page.get("/Resources")
    objects = resources.get_object().get("/XObject") if resources is not None else None
    for each in (objects.get_object() or {}).values() if objects is not None else ():
        if each.get_object().get("/Subtype") == "/Image":
            return True
    contents = page.get_contents()
    return contents is not None and re.search(rb"(?<!\w)BI\s", contents.get_data()) is not None
