"""From a file to its text: one function for all kinds.

Meant to run in a confined child process: an engine may still be killed by a hostile file. After that, try again with
`engine="pypdf"`, the safest reader of PDFs. This module is light; each reader is imported when it is needed.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Literal, cast

from tasks.documents.model import ExtractedText, Heading
from tasks.documents.problems import unreadable
from tasks.errors import LedgerlineError

__all__ = ["ExtractedText", "Heading", "choose_engine", "extract"]

PdfEngine = Literal["pdfium", "pypdf"]

KILLED = ("parse_crashed", "parse_timeout", "parse_out_of_memory")

_READERS = {
    "pdf": ("tasks.documents.pdf", "extract_pdf"),
    "docx": ("tasks.documents.docx", "extract_docx"),
    "odt": ("tasks.documents.odt", "extract_odt"),
    "epub": ("tasks.documents.epub", "extract_epub"),
    "rtf": ("tasks.documents.rtf", "extract_rtf"),
    "html": ("tasks.documents.html", "extract_html"),
    "md": ("tasks.documents.markdown", "extract_markdown"),
    "txt": ("tasks.documents.text", "extract_text"),
}


def extract(path: Path, kind: str, *, engine: str | None = None) -> ExtractedText:
    """Read the document at `path`, of a kind named in `kinds.KINDS`.

    `engine`: for PDFs, "pypdf" keeps pdfium (native code) away from the file; other kinds have one reader.
    Raises Permanent with a code of `problems.SENTENCES`. MemoryError passes: the confinement knows what it means.
    """
    if kind not in _READERS:
        raise unreadable("unsupported_type", f"no reader for {kind}")
    if path.stat().st_size == 0:
        raise unreadable("empty_file")
    module, function = _READERS[kind]
    reader = getattr(import_module(module), function)
    try:
        return cast(ExtractedText, reader(path, engine) if kind == "pdf" else reader(path))
    except (LedgerlineError, MemoryError):
        raise
    except Exception as error:
        # Parsers of hostile bytes raise anything. Messages may quote the manuscript, so only the type is told.
        raise unreadable("corrupt_file", f"{module}: {type(error).__name__}") from error


def choose_engine(kind: str, attempt: int, previous_error: str | None) -> PdfEngine | None:
    """The engine for an attempt of a step that fails as "parse": after a parser was killed, the safest one."""
    return "pypdf" if kind == "pdf" and attempt > 1 and previous_error in KILLED else None
