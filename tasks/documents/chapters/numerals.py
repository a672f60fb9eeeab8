"""Numbers as headings write them: XIV, 14, fourteen, fourteenth, 14th, zwölf, doce, n."""

from __future__ import annotations

import re
from functools import lru_cache

_UNITS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"

_OTHER_CARDINALS = (
    "eins zwei drei vier fünf sechs sieben acht neun zehn elf "
    "zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn achtzehn neunzehn zwanzig",
    "un deux trois quatre cinq six sept huit neuf dix onze "
    "douze treize quatorze quinze seize dix-sept dix-huit dix-neuf vingt",
    "uno dos tres cuatro cinco seis siete ocho nueve diez once "
    "doce trece catorce quince dieciséis diecisiete dieciocho diecinueve veinte",
    "uno due tre quattro cinque sei sette otto nove dieci undici "
    "dodici tredici quattordici quindici sedici diciassette diciotto diciannove venti",
    "een twee drie vier vijf zes zeven acht negen tien elf "
    "twaalf dertien veertien vijftien zestien zeventien achttien negentien twintig",
    "um dois três quatro cinco seis sete oito nove dez onze "
    "doze treze catorze quinze dezesseis dezessete dezoito dezenove vinte",
)
_OTHER_ORDINALS = (
    "erste zweite dritte vierte fünfte sechste siebte achte neunte zehnte elfte zwölfte",
    "premier deuxième troisième quatrième cinquième sixième septième huitième neuvième dixième onzième douzième",
    "primero segundo tercero cuarto quinto sexto séptimo octavo noveno décimo undécimo duodécimo",
    "primo secondo terzo quarto quinto sesto settimo ottavo nono decimo undicesimo dodicesimo",
    "eerste tweede derde vierde vijfde zesde zevende achtste negende tiende elfde twaalfde",
    "primeiro segundo terceiro quarto quinto sexto sétimo oitavo nono décimo",
)
_FEMININE = {
    "première": 1,
    "seconde": 2,
    "primera": 1,
    "segunda": 2,
    "tercera": 3,
    "prima": 1,
    "seconda": 2,
    "terza": 3,
    "quarta": 4,
    "quinta": 5,
    "cuarta": 4,
    "primeira": 1,
    "terceira": 3,
}

_ROMAN = re.compile(r"(?=[ivxlc])(c{0,3})(xc|xl|l?x{0,3})(ix|iv|v?i{0,3})", re.IGNORECASE)
_ROMAN_VALUES = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}


def _number_words() -> dict[str, int]:
    words = dict(_FEMININE)
    for row in (*_OTHER_CARDINALS, *_OTHER_ORDINALS):
        words |= {word: n for n, word in enumerate(row.split(), 1)}
    for word, n in list(words.items()):
        # German and Dutch decline their ordinals: erstes, ersten, erster.
        if word.endswith("te") or word == "dritte":
            words |= {word + ending: n for ending in "srn"}
    words |= _english_words()
    return words


def _english_words() -> dict[str, int]:
    units = {word: n for n, word in enumerate(_UNITS.split(), 1)}
    ordinals = {word: n for n, word in enumerate(_ORDINALS.split(), 1)}
    ordinals |= {word + "th": n for word, n in units.items() if n > 12}
    words = units | ordinals | {"hundred": 100, "one hundred": 100}
    for tens, name in enumerate(_TENS.split(), 2):
        words |= {name: tens * 10, name[:-1] + "ieth": tens * 10}
        below_ten = {word: n for word, n in (units | ordinals).items() if n < 10}
        words |= {name + joint + word: tens * 10 + n for word, n in below_ten.items() for joint in ("-", " ", "")}
    return words


WORDS = _number_words()

# Longest first, so that "twenty-one" is not read as "twenty".
_WORD = "|".join(sorted(map(re.escape, WORDS), key=len, reverse=True))
ARABIC = r"\d{1,3}(?:st|nd|rd|th)?"
ROMAN = r"[ivxlcIVXLC]{1,8}"
NUMERAL = rf"(?:{ARABIC}|{ROMAN}|{_WORD}|[A-Za-z])(?![\w'’])"


@lru_cache(maxsize=4096)
def read_number(text: str) -> int | None:
    """The value of one numeral, roman before word; None when it is none. Single letters are not read here."""
    word = text.strip().lower()
    if digits := re.fullmatch(r"(\d{1,3})(?:st|nd|rd|th)?", word):
        return int(digits.group(1))
    return read_roman(text.strip()) or WORDS.get(" ".join(word.split()))


def read_roman(text: str) -> int | None:
    """The value of a well-formed roman numeral up to 399, in one case only; None otherwise."""
    if not _ROMAN.fullmatch(text) or (text.lower() != text and text.upper() != text):
        return None
    values = [_ROMAN_VALUES[letter] for letter in text.lower()]
    signed = [-a if a < b else a for a, b in zip(values, [*values[1:], 0], strict=True)]
    return sum(signed)


def name_style(text: str) -> str:
    """How a numeral is written: arabic, roman or word."""
    word = text.strip()
    if word[:1].isdigit():
        return "arabic"
    return "roman" if read_roman(word) else "word"
