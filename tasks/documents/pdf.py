"""PDF: lines from an engine, running heads off, words joined, paragraphs rebuilt."""

from __future__ import annotations

import re
import tempfile
import unicodedata
from collections.abc import Callable
from pathlib import Path

from tasks.documents.builder import Block, TextBuilder, one_line
from tasks.documents.clean import split_ligatures
from tasks.documents.model import ExtractedText
from tasks.documents.pdf_engines import read_with_pdfium, read_with_pypdf, repair, shows_pictures
from tasks.documents.pdf_forms import bounded
from tasks.documents.pdf_heads import strip_heads
from tasks.documents.pdf_hyphens import Joiner
from tasks.documents.pdf_lines import Scan
from tasks.documents.pdf_paragraphs import Paragraph, rebuild
from tasks.documents.problems import unreadable
from tasks.errors import LedgerlineError

MIN_CHARACTERS_PER_PAGE = 20
_Reader = Callable[[Path], Scan]
_PRINTER = re.compile(r"^Microsoft (?:Office )?Word\s*-\s*|\.(?:docx?|rtf|odt|txt|indd)$", re.I)


def extract_pdf(path: Path, engine: str | None = None) -> ExtractedText:
    """Read a PDF. `engine="pypdf"` keeps native pdfium away from it.

    Raises Permanent `encrypted_pdf`, `needs_ocr`, `no_text`, `too_many_pages`, `zip_bomb`, `corrupt_file`.
    """
    readers: list[_Reader] = [read_with_pypdf] if engine == "pypdf" else [read_with_pdfium, read_with_pypdf]
    with bounded(path) as (file, cut):
        scan = _first_good(file, readers)
        _refuse_pictures(file, scan)
    scan.cut = cut
    return _compose(scan)


def _first_good(path: Path, readers: list[_Reader]) -> Scan:
    """What the first engine finds that can read the file at all, a repaired copy being the last try."""
    failures: list[str] = []
    empty: Scan | None = None
    for reader in readers:
        scan = _attempt(path, reader, failures)
        if scan is not None and scan.characters:
            return scan
        empty = empty or scan
    return empty or _read_repaired(path, readers[0], failures)


def _attempt(path: Path, reader: _Reader, failures: list[str]) -> Scan | None:
    try:
        return reader(path)
    except (LedgerlineError, MemoryError):
        raise
    except Exception as error:
        # Engines raise anything on hostile bytes; the next one may do better.
        failures.append(f"{reader.__name__}: {type(error).__name__}")
        return None


def _read_repaired(path: Path, reader: _Reader, failures: list[str]) -> Scan:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "repaired.pdf"
        try:
            repair(path, copy)
        except (LedgerlineError, MemoryError):
            raise
        except Exception as error:
            failures.append(f"repair: {type(error).__name__}")
            raise unreadable("corrupt_file", "; ".join(failures)) from error
        scan = _attempt(copy, reader, failures)
    if scan is None:
        raise unreadable("corrupt_file", "; ".join(failures))
    scan.engine += "+repair"
    return scan


def _refuse_pictures(path: Path, scan: Scan) -> None:
    """Raise `needs_ocr` or `no_text` where there are far fewer letters than pages."""
    if scan.characters >= MIN_CHARACTERS_PER_PAGE * max(1, len(scan.pages)) and not _is_garbled(scan):
        return
    try:
        pictured, painted = shows_pictures(path)
    except (LedgerlineError, MemoryError):
        raise
    except Exception:
        # Nobody can look inside: what the engine did find decides.
        pictured = painted = False
    detail = f"{scan.characters} characters on {len(scan.pages)} pages"
    if pictured or _is_garbled(scan) or (painted and not scan.characters):
        raise unreadable("needs_ocr", detail)
    if not scan.characters:
        raise unreadable("no_text", detail)


def _is_garbled(scan: Scan) -> bool:
    """Whether fonts without a letter table gave private or replacement characters instead of letters."""
    text = "".join(line.text for page in scan.pages for line in page.lines)
    odd = sum(1 for letter in text if letter == "\ufffd" or unicodedata.category(letter) in ("Co", "Cn", "Cc"))
    return odd * 3 > len(text) > 0


def _compose(scan: Scan) -> ExtractedText:
    pages = strip_heads(scan.pages)
    paragraphs = rebuild(pages)
    joiner = Joiner([line for page in pages for line in page.lines])
    levels = _Bookmarks(scan.bookmarks)
    builder = TextBuilder()
    for paragraph in paragraphs:
        text = split_ligatures(joiner.join(paragraph.lines))
        if paragraph.after_gap:
            builder.add(Block(""))
        builder.add(Block(text, levels.level(paragraph, text)))
    result = builder.build(scan.engine, title=_title(scan.title), author=scan.author, warnings=_warnings(scan))
    return result.model_copy(update={"pages": len(scan.pages)})


def _title(title: str | None) -> str | None:
    """A title somebody gave, not the file name that a printer driver put there."""
    return _PRINTER.sub("", one_line(title) or "") or None


def _warnings(scan: Scan) -> list[str]:
    warnings = []
    if scan.unreadable_pages:
        numbers = ", ".join(str(number) for number in scan.unreadable_pages[:10])
        warnings.append(f"{len(scan.unreadable_pages)} pages could not be read: {numbers}.")
    if scan.cut:
        warnings.append("Drawings that contain themselves were left out.")
    empty = sum(1 for page in scan.pages if not page.lines) - len(scan.unreadable_pages)
    if empty > 3 and empty * 5 > len(scan.pages):
        warnings.append(f"{empty} of {len(scan.pages)} pages have no text. They may be pictures.")
    return warnings


class _Bookmarks:
    """Tells which paragraphs the PDF's own outline names, as far as its titles are the headings on the pages."""

    def __init__(self, bookmarks: list[tuple[int, int, str]]) -> None:
        self._titles: dict[int, list[tuple[str, int]]] = {}
        for page, level, title in bookmarks:
            self._titles.setdefault(page, []).append((_letters(title), level))

    def level(self, paragraph: Paragraph, text: str) -> int | None:
        """The outline's level for a paragraph that is (or begins) a title on its page."""
        titles = self._titles.get(paragraph.page)
        if not titles or len(text) > 200:
            return None
        letters = _letters(text)
        return next((level for title, level in titles if _names(title, letters)), None)


def _names(title: str, letters: str) -> bool:
    # "1 Origins" on the page is often "Origins" in the outline.
    bare = letters.lstrip("0123456789") or letters
    return bool(title) and (title in (letters, bare) or (len(letters) >= 4 and title.startswith(letters)))


def _letters(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalnum())
