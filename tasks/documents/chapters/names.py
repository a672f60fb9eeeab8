"""The words that head parts, chapters, and what stands before and after a story, in several languages."""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PARTS = _words(
    "part book volume vol act teil buch band akt partie livre tome acte parte libro tomo volumen acto "
    "atto deel boek livro ato часть книга том"
)
CHAPTERS = _words(
    "chapter chap ch kapitel chapitre capítulo capitulo capitolo hoofdstuk kapittel kapitola rozdział fejezet luku "
    "глава letter canto stave episode"
)
# Divisions that are chapters in some books and scenes of a chapter in others.
OTHERS = _words("section scene szene scène escena scena sektion night day brief lettre carta")

_STORY = (
    "prologue epilogue interlude intermezzo coda entr'acte prolog epilog prólogo epílogo prologo epilogo épilogue "
    "proloog epiloog zwischenspiel"
)
_FRONT = (
    "preface|foreword|introduction|dedication|contents|table of contents|list of illustrations|illustrations|epigraph|"
    "copyright|about this book|also by the author|acknowledg(?:e)?ments?|author['’]s note|note to the reader|"
    "to the reader|translator['’]s (?:note|preface)|etymology|extracts|dramatis personae|cast of characters|"
    "vorwort|inhalt|inhaltsverzeichnis|einleitung|widmung|préface|avant-propos|table des matières|sommaire|dédicace|"
    "prefacio|índice|dedicatoria|introducción|prefazione|indice|introduzione|voorwoord|inhoud"
)
_BACK = (
    "afterword|appendix(?: [a-z\\d]+)?|appendices|acknowledg(?:e)?ments?|about the authors?|author['’]s note|notes?|"
    "endnotes|footnotes|glossary|bibliography|works cited|index|colophon|transcriber['’]s notes?|also by the author|"
    "historical note|discussion questions|reading group guide|"
    "nachwort|anhang|danksagung|anmerkungen|über den autor|über die autorin|postface|remerciements|annexe|notes|"
    "agradecimientos|apéndice|notas|ringraziamenti|appendice|note|nawoord|dankwoord"
)
_THE_END = "the end|end|fin|finis|ende|fine|einde|конец"

_ROLES = (
    ("chapter", re.compile("|".join(map(re.escape, _STORY.split())), re.IGNORECASE)),
    ("front", re.compile(_FRONT, re.IGNORECASE)),
    ("back", re.compile(_BACK, re.IGNORECASE)),
    ("end", re.compile(_THE_END, re.IGNORECASE)),
)
_CONTENTS = re.compile(
    r"(table of )?contents|inhalt(sverzeichnis)?|table des matières|sommaire|índice|indice|inhoud", re.IGNORECASE
)


def find_roles(text: str) -> tuple[str, ...]:
    """The roles a heading without a number can have: chapter, front, back or end."""
    return tuple(role for role, pattern in _ROLES if pattern.fullmatch(text))


def is_contents(text: str) -> bool:
    """Whether a heading announces a table of contents."""
    return bool(_CONTENTS.fullmatch(text.strip(" .:_*#=-")))


def rank_noun(noun: str) -> int:
    """0 for parts, 1 for chapters, 2 for anything else."""
    word = noun.lower().rstrip(".")
    return 0 if word in PARTS else 1 if word in CHAPTERS else 2


def is_known(noun: str) -> bool:
    """Whether a noun is known to head divisions of a book."""
    word = noun.lower().rstrip(".")
    return word in PARTS or word in CHAPTERS or word in OTHERS
