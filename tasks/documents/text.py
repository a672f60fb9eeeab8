"""Plain text: finding out how its letters are stored."""

from __future__ import annotations

import codecs
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

from tasks.documents.builder import MAX_CHARACTERS
from tasks.documents.clean import clean
from tasks.documents.model import ExtractedText
from tasks.documents.problems import unreadable

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
MAX_TEXT_BYTES = 80 * 1024 * 1024
_WORD = re.compile(r"\w")
# Code pages tried for bytes that are no UTF-8, with the letters their languages use most.
_CODE_PAGES = {
    "cp1252": "éèêëàâäáãåæçíìîïñóòôöõøœúùûüýÿßÉÈÀÂÄÅÆÇÖØÜŒ",
    "mac_roman": "éèêëàâäáãåæçíìîïñóòôöõøœúùûüÿßÉÀÄÅÆÇÖØÜŒ",
    "cp1250": "áäčďéěíĺľňóôöőřŕšťúůüűýžąćęłńśźżÁČĎÉŁÓŠŚŽŻ",
    "cp1251": "абвгдежзийклмнопрстуфхцчшщъыьэюяАБВГДЕЖЗИКЛМНОПРСТУФХЦЧШЭЮЯіїє",
    "koi8_r": "абвгдежзийклмнопрстуфхцчшщъыьэюяАБВГДЕЖЗИКЛМНОПРСТУФХЦЧШЭЮЯ",
    "cp1253": "αβγδεζηθικλμνξοπρστυφχψωάέήίόύώςΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩ",
    "cp1255": "אבגדהוזחטיכלמנסעפצקרשתםןףץך",
}
_COMMON_MARKS = "‘’“”–—…£€«»„‚§°\u00a0"
_MULTIBYTE = {
    "cp932": "のにはをたがでとしる",
    "euc_jp": "のにはをたがでとしる",
    "gb18030": "的了是不我在有他一这",
    "big5": "的了是不我在有他一這",
    "euc_kr": "이다는의가을에고지하",
}
_PLAUSIBLE = 0.85
_COMMON = 0.04
_GUESSED = "The file does not say how its letters are stored. We read it as {name}; please check accents and quotes."


def extract_text(path: Path) -> ExtractedText:
    """Read a plain text file; its lines stay as they are. Raises `not_text`, `no_text`."""
    text, warnings = decode(read_bytes(path))
    return ExtractedText(text=checked(text), engine="text", warnings=warnings)


def read_bytes(path: Path) -> bytes:
    """A text file's bytes. Raises `too_large` before it would fill the memory."""
    size = path.stat().st_size
    if size > MAX_TEXT_BYTES:
        raise unreadable("too_large", f"{size} bytes of text")
    return path.read_bytes()


def checked(text: str) -> str:
    """Cleaned text that has words in it. Raises `no_text`, `too_large`."""
    text = clean(text.replace("\f", "\n"))
    if len(text) > MAX_CHARACTERS:
        raise unreadable("too_large", f"{len(text)} characters")
    if not _WORD.search(text):
        raise unreadable("no_text")
    return text


def decode(data: bytes) -> tuple[str, list[str]]:
    """Text and warnings from bytes of unknown encoding. Raises `not_text` for what is no text at all."""
    for bom, marked in _BOMS:
        if data.startswith(bom):
            return data.decode(marked, "replace"), []
    name = _wide(data)
    if name is None:
        # Old editors end a file with Ctrl-Z.
        data = data.rstrip(b"\x1a\x00")
        name = "utf-8" if is_utf8(data) else None
    if name is not None:
        text = data.decode(name, "replace")
        _refuse_binary(text)
        return text, []
    return _guess(data)


def is_utf8(data: bytes) -> bool:
    """Whether bytes are UTF-8, a few damaged places in a long text forgiven."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("utf-8", "replace")
        broken = text.count("\ufffd")
        good = sum(1 for letter in text if letter > "\x7f") - broken
        return broken * 20 < good
    return True


def _wide(data: bytes) -> str | None:
    """UTF-16 without a mark shows as zeros in nearly every second byte."""
    head = data[:65536]
    even, odd = head[::2].count(0), head[1::2].count(0)
    if (even + odd) * 3 < len(head) or not head:
        return None
    return "utf-16-le" if odd > even * 20 else "utf-16-be" if even > odd * 20 else None


def _refuse_binary(text: str) -> None:
    head = text[:200_000]
    odd = sum(1 for letter in head if letter < " " and letter not in "\t\n\r\f\x0b\x1b") + head.count("\ufffd")
    if odd * 50 > len(head):
        raise unreadable("not_text", f"{odd} of {len(head)} characters are controls")


def _guess(data: bytes) -> tuple[str, list[str]]:
    """The best-fitting code page for bytes that are not Unicode."""
    sample = data[:200_000]
    name = max(_CODE_PAGES, key=lambda page: _plausibility(sample, page))
    if _plausibility(sample, name) < _PLAUSIBLE:
        best = max(_MULTIBYTE, key=lambda page: _commonness(sample, page))
        name = best if _commonness(sample, best) > _COMMON else name
    text = data.decode(name, "replace")
    _refuse_binary(text)
    return text, [_GUESSED.format(name=name)]


def _commonness(sample: bytes, page: str) -> float:
    """Share of the letters that are among the commonest of this multi-byte code page's language."""
    text = sample.decode(page, "replace")
    return sum(text.count(letter) for letter in _MULTIBYTE[page]) / max(1, len(text))


def _plausibility(sample: bytes, page: str) -> float:
    """Share of the high characters that this code page's languages really use; ties favour the earlier page."""
    text = sample.decode(page, "replace")
    high = Counter(letter for letter in text if letter > "\x7f")
    expected = sum(count for letter, count in high.items() if letter in _CODE_PAGES[page] or letter in _COMMON_MARKS)
    # A capital inside a word betrays Mac quotes read as letters ("saidÓ") and KOI8 read as CP1251.
    inside = sum(1 for a, b in pairwise(text) if b > "\x7f" and a.islower() and b.isupper())
    return (expected - inside) / max(1, sum(high.values()))
