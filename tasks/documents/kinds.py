"""The kinds of document we read, and how a file is told to be one of them: by its content first, its name second.

Stdlib only: the front door imports it. Sniffing reads names in a zip's directory, never inflates a document.
"""

from __future__ import annotations

import codecs
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePath

from tasks.documents.archive import check_directory
from tasks.documents.problems import refused
from tasks.errors import Permanent, Refused

# How much of a file `sniff` wants to see: enough for a PDF header behind junk and for a taste of text.
HEAD_BYTES = 8192
_PDF_WITHIN = 1024


@dataclass(frozen=True)
class Kind:
    """A kind of document: `extensions` without dots, the usual one first."""

    name: str
    title: str
    media_type: str
    extensions: tuple[str, ...]


_ALL = (
    Kind("pdf", "PDF", "application/pdf", ("pdf",)),
    Kind(
        "docx",
        "Word document",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        ("docx", "docm", "dotx"),
    ),
    Kind("odt", "OpenDocument text", "application/vnd.oasis.opendocument.text", ("odt", "ott")),
    Kind("epub", "EPUB e-book", "application/epub+zip", ("epub",)),
    Kind("rtf", "RTF document", "application/rtf", ("rtf",)),
    Kind("html", "web page", "text/html", ("html", "htm", "xhtml")),
    Kind("md", "Markdown text", "text/markdown", ("md", "markdown", "mdown", "mkd")),
    Kind("txt", "plain text", "text/plain", ("txt", "text")),
)
KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}
_BY_EXTENSION = {extension: kind for kind in _ALL for extension in kind.extensions}
_TEXTS = ("txt", "md", "html")

# What writers upload by mistake, told by name so that the sentence can help.
_FOREIGN = (
    (b"\x89PNG\r\n", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"II*\x00", "a picture"),
    (b"MM\x00*", "a picture"),
    (b"MZ", "a program"),
    (b"\x7fELF", "a program"),
    (b"\x1f\x8b", "a compressed archive"),
    (b"Rar!", "a compressed archive"),
    (b"7z\xbc\xaf", "a compressed archive"),
    (b"ID3", "a sound recording"),
    (b"OggS", "a sound recording"),
    (b"%!PS", "a PostScript file"),
)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_HTML = re.compile(rb"<(?:!doctype\s+html|html|head|body)\b", re.I)
_BOMS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def sniff(head: bytes, filename: str, *, path: Path | None = None) -> Kind:
    """Tell a file's kind from its first bytes (`HEAD_BYTES` of them) and its name.

    `path`: the whole file, once it is there; zip kinds are then told apart by their directory.
    Raises Refused: `empty_file`, `type_mismatch`, `not_text`, `zip_bomb`, `encrypted_file`, `corrupt_file` (422),
    `unsupported_type` (415).
    """
    if not head.strip(b"\x00") and len(head) < HEAD_BYTES:
        raise refused("empty_file")
    extension = PurePath(filename).suffix.lower().removeprefix(".")
    named = _BY_EXTENSION.get(extension)
    found = _from_content(head, named, path)
    if found is None:
        return _text_kind(head, extension, named)
    if named is not None and named != found:
        raise _mismatch(extension, found.title)
    return found


def _from_content(head: bytes, named: Kind | None, path: Path | None) -> Kind | None:
    """The kind that the bytes themselves declare, None for anything that may be text."""
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if start.startswith(b"%PDF-"):
        return KINDS["pdf"]
    # A text about PDFs may mention the header, so junk before it is forgiven only where a PDF is expected.
    # The norm allows a thousand bytes; mail gateways and web forms have been seen to put more.
    if (named is None and b"%PDF-" in head[:_PDF_WITHIN]) or (named == KINDS["pdf"] and b"%PDF-" in head):
        return KINDS["pdf"]
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_kind(head, named, path)
    if start.startswith(b"{\\rtf"):
        return KINDS["rtf"]
    _refuse_foreign(head)
    return KINDS["html"] if named is None and start.startswith(b"<") and _HTML.search(head) else None


def _refuse_foreign(head: bytes) -> None:
    if head.startswith(_OLE):
        if "EncryptedPackage".encode("utf-16-le") in head:
            raise refused("encrypted_file")
        raise refused(
            "unsupported_type",
            "This is an older Office file (.doc), or one locked with a password. Please open it in your editor and "
            "save it as a Word document (.docx) without a password.",
        )
    for magic, name in _FOREIGN:
        if head.startswith(magic) and not _looks_like_text(head):
            raise refused(
                "unsupported_type", f"This file is {name}, not a manuscript. Please upload a Word, PDF or text file."
            )


def _text_kind(head: bytes, extension: str, named: Kind | None) -> Kind:
    """The kind of something without a mark of its own: its name decides, when it is text at all."""
    is_text = _looks_like_text(head)
    if named is not None and named.name not in _TEXTS:
        raise _mismatch(extension, "plain text" if is_text else "something else")
    if not is_text:
        raise refused("not_text" if named is not None else "unsupported_type")
    if named is None and extension:
        raise refused("unsupported_type")
    return named or KINDS["txt"]


def _looks_like_text(head: bytes) -> bool:
    """Whether bytes could be text in UTF-8, UTF-16 or a one-byte code page."""
    if head.startswith(_BOMS):
        return True
    zeros = head.count(0)
    if zeros:
        # UTF-16 without a mark: nearly every second byte is zero, all on the same side.
        return min(head[::2].count(0), head[1::2].count(0)) * 50 < zeros and zeros * 3 > len(head)
    controls = sum(byte < 32 and byte not in b"\t\n\x0b\x0c\r\x1a\x1b" for byte in head)
    return controls * 50 <= len(head)


def _zip_kind(head: bytes, named: Kind | None, path: Path | None) -> Kind:
    if path is not None:
        return _kind_in_directory(path)
    # Only the beginning is here: the first entry's name often tells, else the file's name does until the rest is there.
    if head[30:38] == b"mimetype":
        return _mimetype_kind(head[38:138])
    if named is not None and named.name in ("docx", "odt", "epub"):
        return named
    raise refused("unsupported_type")


def _kind_in_directory(path: Path) -> Kind:
    try:
        check_directory(path)
        with zipfile.ZipFile(path) as file:
            names = set(file.namelist())
            mimetype = _small_entry(file, "mimetype")
    except Permanent as error:
        raise refused(error.code, detail=error.detail) from error
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise refused("corrupt_file", detail=str(error)) from error
    if mimetype:
        return _mimetype_kind(mimetype)
    if "META-INF/container.xml" in names:
        return KINDS["epub"]
    if any(name.startswith("word/") and name.endswith(".xml") for name in names):
        return KINDS["docx"]
    raise _foreign_zip(names)


def _small_entry(file: zipfile.ZipFile, name: str) -> bytes:
    """The first hundred bytes of an entry, empty when it is missing or unreadable."""
    try:
        with file.open(name) as entry:
            return entry.read(100)
    except (KeyError, RuntimeError):
        return b""


def _mimetype_kind(mimetype: bytes) -> Kind:
    if mimetype.startswith(b"application/epub+zip"):
        return KINDS["epub"]
    if mimetype.startswith(b"application/vnd.oasis.opendocument.text"):
        return KINDS["odt"]
    raise refused("unsupported_type")


def _foreign_zip(names: set[str]) -> Refused:
    """The refusal for a zip that is no document of ours."""
    if any(name.startswith(("xl/", "ppt/")) for name in names):
        return refused("unsupported_type", "This is a spreadsheet or a slide show. Please upload a text document.")
    if any(name.endswith(".iwa") for name in names):
        return refused(
            "unsupported_type", "This is a Pages document. Please export it as a Word document and upload that."
        )
    return refused("unsupported_type", "This is a zip archive. Please upload the document inside it by itself.")


def _mismatch(extension: str, found: str) -> Refused:
    return refused(
        "type_mismatch",
        f"The file's name ends in .{extension}, but what is inside is {found}. Please save it again in the format "
        "you want to send.",
    )
