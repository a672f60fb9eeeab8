"""What may stay in a text: everything a database and a reader accept, nothing else."""

from __future__ import annotations

import re

# Controls except tab, newline and page break; NUL above all. Noncharacters, byte order marks, zero-width joints
# that only steer line breaks. Joiners (U+200C, U+200D) and direction marks carry meaning in some scripts and stay.
_UNWANTED = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u2060\ufeff\ufffe\uffff]")
_NEWLINES = re.compile("\r\n|\r|\u2028|\u2029|\x85")
_SURROGATES = re.compile("[\ud800-\udfff]")
_LIGATURES = str.maketrans({"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"})


def clean(text: str) -> str:
    """Text without NULs, controls, soft hyphens and lone surrogates; newlines as `\\n`, surrogate pairs joined."""
    if _SURROGATES.search(text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")
    return _UNWANTED.sub("", _NEWLINES.sub("\n", text))


def split_ligatures(text: str) -> str:
    """Letters instead of typeset ligatures, so that words are found."""
    return text.translate(_LIGATURES)
