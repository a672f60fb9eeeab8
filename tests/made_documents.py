"""Documents made for tests: small files with exactly the trouble that a test is about."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import pikepdf

W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_NAMESPACES = (
    f'xmlns:w="{W}" xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006" '
    'xmlns:wps="http://schemas.microsoft.com/office/word/2010/wordprocessingShape" '
    'xmlns:v="urn:schemas-microsoft-com:vml"'
)
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_WINANSI = {"’": "\x92", "‘": "\x91", "“": "\x93", "”": "\x94", "—": "\x97"}

TextAt = tuple[float, float, float, str]
"""x and y in points from the lower left, size, text."""


def make_zip(path: Path, entries: dict[str, str | bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip with these entries in this order."""
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return path


def make_docx(path: Path, body: str, **parts: str) -> Path:
    """A Word file with this body. `styles`, `footnotes`, `endnotes`, `comments`: the insides of those parts."""
    relations = "".join(
        f'<Relationship Id="{name}" Type="{_OFFICE}/{name}" Target="{name}.xml"/>' for name in sorted(parts)
    )
    entries: dict[str, str | bytes] = {
        "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types"/>',
        "_rels/.rels": _relationships(
            f'<Relationship Id="d" Type="{_OFFICE}/officeDocument" Target="word/document.xml"/>'
        ),
        "word/_rels/document.xml.rels": _relationships(relations),
        "word/document.xml": f"<w:document {_NAMESPACES}><w:body>{body}</w:body></w:document>",
    }
    for name, inside in parts.items():
        entries[f"word/{name}.xml"] = f"<w:{name} {_NAMESPACES}>{inside}</w:{name}>"
    return make_zip(path, entries)


def _relationships(inside: str) -> str:
    return f'<Relationships xmlns="{_PACKAGE}/relationships">{inside}</Relationships>'


def paragraph(*inside: str, properties: str = "") -> str:
    """A Word paragraph of runs given as XML or as plain words."""
    runs = "".join(each if each.startswith("<") else run(each) for each in inside)
    return f"<w:p>{f'<w:pPr>{properties}</w:pPr>' if properties else ''}{runs}</w:p>"


def run(text: str, properties: str = "") -> str:
    """A Word run."""
    shown = f"<w:rPr>{properties}</w:rPr>" if properties else ""
    return f'<w:r>{shown}<w:t xml:space="preserve">{escape(text)}</w:t></w:r>'


def make_odt(path: Path, body: str) -> Path:
    """An OpenDocument text with this body."""
    names = " ".join(
        f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
        for name in ("office", "text", "table", "draw")
    )
    content = (
        f"<office:document-content {names}><office:body><office:text>{body}</office:text></office:body>"
        "</office:document-content>"
    )
    return make_zip(path, {"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": content})


def make_epub(path: Path, pages: dict[str, str], **more: str) -> Path:
    """An e-book of these XHTML pages in this order; `encryption`: the insides of META-INF/encryption.xml."""
    items = "".join(
        f'<item id="i{number}" href="{name}" media-type="application/xhtml+xml"/>' for number, name in enumerate(pages)
    )
    spine = "".join(f'<itemref idref="i{number}"/>' for number in range(len(pages)))
    entries: dict[str, str | bytes] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": '<container><rootfile full-path="OEBPS/book.opf"/></container>',
        "OEBPS/book.opf": (
            '<package xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata><dc:title>A Book</dc:title>'
            f"<dc:creator>A. Writer</dc:creator></metadata><manifest>{items}</manifest><spine>{spine}</spine></package>"
        ),
    }
    if "encryption" in more:
        entries["META-INF/encryption.xml"] = f"<encryption>{more['encryption']}</encryption>"
    return make_zip(path, entries | {f"OEBPS/{name}": data for name, data in pages.items()})


def make_pdf(path: Path, pages: Sequence[Sequence[TextAt]], encryption: pikepdf.Encryption | None = None) -> Path:
    """A PDF with text at places, in Times."""
    with pikepdf.new() as pdf:
        for texts in pages:
            page = pdf.add_blank_page(page_size=(420, 595))
            font = pikepdf.Dictionary(
                Type=pikepdf.Name.Font,
                Subtype=pikepdf.Name.Type1,
                BaseFont=pikepdf.Name("/Times-Roman"),
                Encoding=pikepdf.Name.WinAnsiEncoding,
            )
            page.Resources = pikepdf.Dictionary(Font=pikepdf.Dictionary(F1=pdf.make_indirect(font)))
            page.Contents = pdf.make_stream(b"\n".join(_show(*text) for text in texts))
        pdf.save(path, encryption=encryption or False)
    return path


def make_endless_pdf(path: Path, pages: Sequence[Sequence[TextAt]] = ()) -> Path:
    """A PDF whose last page draws a form that contains itself, twice. Without other pages, a few hundred bytes."""
    make_pdf(path, pages)
    with pikepdf.open(path, allow_overwriting_input=True) as pdf:
        form = pdf.make_stream(b"/X Do /Y Do", Type=pikepdf.Name.XObject, Subtype=pikepdf.Name.Form, BBox=[0, 0, 9, 9])
        form.Resources = pikepdf.Dictionary(XObject=pikepdf.Dictionary(X=form, Y=form))
        page = pdf.add_blank_page()
        page.Resources = pikepdf.Dictionary(XObject=pikepdf.Dictionary(X=form))
        page.Contents = pdf.make_stream(b"/X Do")
        pdf.save(path)
    return path


def make_scan(path: Path, pages: int = 2) -> Path:
    """A PDF whose pages are pictures."""
    with pikepdf.new() as pdf:
        image = pdf.make_stream(b"\x80" * 64 * 64)
        image.stream_dict.update(
            pikepdf.Dictionary(
                Type=pikepdf.Name.XObject,
                Subtype=pikepdf.Name.Image,
                Width=64,
                Height=64,
                ColorSpace=pikepdf.Name.DeviceGray,
                BitsPerComponent=8,
            )
        )
        for _ in range(pages):
            page = pdf.add_blank_page(page_size=(420, 595))
            page.Resources = pikepdf.Dictionary(XObject=pikepdf.Dictionary(Im0=image))
            page.Contents = pdf.make_stream(b"q 420 0 0 595 0 0 cm /Im0 Do Q")
        pdf.save(path)
    return path


def set_lines(lines: Sequence[str], top: float = 520, left: float = 60, size: float = 12) -> list[TextAt]:
    """Lines one under the other; a line that begins with two blanks is set in, an empty one leaves a gap."""
    places: list[TextAt] = []
    for number, line in enumerate(lines):
        if line:
            indent = 18 if line.startswith("  ") else 0
            places.append((left + indent, top - number * size * 1.2, size, line.strip()))
    return places


def _show(x: float, y: float, size: float, text: str) -> bytes:
    ansi = "".join(_WINANSI.get(letter, letter) for letter in text).encode("latin-1")
    escaped = ansi.replace(b"\\", rb"\\").replace(b"(", rb"\(").replace(b")", rb"\)")
    return b"BT /F1 %f Tf %f %f Td (%s) Tj ET" % (size, x, y, escaped)
