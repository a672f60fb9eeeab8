"""RTF as a stream of tokens, and what its control words mean to a reader of text."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    rb"\\(?P<word>[a-zA-Z]{1,32})(?P<number>-?\d{1,10})? ?"
    rb"|\\'(?P<hex>[0-9a-fA-F]{2})"
    rb"|\\(?P<symbol>\r\n|[^a-zA-Z])"
    rb"|(?P<brace>[{}])"
    rb"|[\r\n]+"
    rb"|(?P<text>[^\\{}\r\n]+)"
    rb"|(?P<stray>\\)",
    re.S,
)

# What a control word or symbol stands for in the text.
CHARACTERS = {
    "tab": "\t",
    "line": "\n",
    "lbr": "\n",
    "page": "\f",
    "emdash": "—",
    "endash": "–",
    "lquote": "‘",
    "rquote": "’",
    "ldblquote": "“",
    "rdblquote": "”",
    "bullet": "•",
    "emspace": " ",
    "enspace": " ",
    "qmspace": " ",
    "~": "\u00a0",
    "_": "-",
    "-": "",
    "{": "{",
    "}": "}",
    "\\": "\\",
}

# Groups whose contents a reader of the page does not see at this place. Any unknown `\*` group is one too.
_UNSEEN_WORDS = (
    "aftncn aftnsep aftnsepc annotation atnauthor atndate atnicn atnid atnparent atnref atntime atrfend atrfstart "
    "author background bkmkend bkmkstart buptim category colortbl comment company creatim datafield doccomm falt "
    "fldinst filetbl fname footer footerf footerl footerr ftncn ftnsep ftnsepc g generator gridtbl header headerf "
    "headerl headerr hlinkbase info keywords leveltext levelnumbers linkval list listlevel listname listoverride "
    "listoverridetable listtable manager nextfile nonshppict objclass objdata objname operator panose pgp pict "
    "picprop printim private propname revtbl revtim rsidtbl rxe shprslt shppict sn sp staticval subject sv tc "
    "template txe upr userprops ud vern wgrffmtfilter xe themedata colorschememapping latentstyles datastore xmlnstbl "
    "mmathPr pnseclvl fchars lchars nesttableprops blipuid"
)
UNSEEN = frozenset(_UNSEEN_WORDS.split())
# Groups marked `\*` that hold text all the same.
_SEEN_WORDS = "shpinst shptxt fldrslt ud listtext pntext footnote dptxbxtext do shp"
SEEN = frozenset(_SEEN_WORDS.split())

_CHARSETS = {
    77: "mac_roman",
    78: "cp932",
    128: "cp932",
    129: "cp949",
    130: "johab",
    134: "gbk",
    136: "big5",
    161: "cp1253",
    162: "cp1254",
    163: "cp1258",
    177: "cp1255",
    178: "cp1256",
    186: "cp1257",
    204: "cp1251",
    222: "cp874",
    238: "cp1250",
    254: "cp437",
    255: "cp850",
}


@dataclass(frozen=True, slots=True)
class Token:
    """One of: a control `word` (symbols too) with its number, `raw` bytes of text, or a `brace`."""

    word: str = ""
    number: int | None = None
    raw: bytes = b""
    brace: str = ""


def tokens(data: bytes) -> Iterator[Token]:
    """The tokens of a file; binary pictures are jumped over."""
    at = 0
    while match := _TOKEN.match(data, at):
        at = match.end()
        kind = match.lastgroup
        if match["word"] is not None:
            word, number = match["word"].decode("ascii"), int(match["number"]) if match["number"] else None
            if word == "bin":
                at += max(0, number or 0)
            else:
                yield Token(word=word, number=number)
        elif kind == "hex":
            yield Token(raw=bytes.fromhex(match["hex"].decode("ascii")))
        elif kind == "symbol":
            symbol = match["symbol"].decode("latin-1")
            yield Token(word="par" if symbol in ("\n", "\r", "\r\n") else symbol)
        elif kind == "brace":
            yield Token(brace=match["brace"].decode("ascii"))
        elif kind == "text":
            yield Token(raw=match["text"])


def charset_codec(charset: int | None) -> str | None:
    """The codec for a font's character set number, None for the document's own."""
    return _CHARSETS.get(charset) if charset is not None else None


def page_codec(page: int | None) -> str | None:
    """The codec for a code page number; None when Python has none."""
    name = {65001: "utf-8", 10000: "mac_roman", 932: "cp932", 936: "gbk", 950: "big5", 1361: "johab"}.get(page or 0)
    try:
        return codecs.lookup(name or f"cp{page}").name
    except LookupError:
        return None
