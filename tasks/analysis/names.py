"""Names in one chapter: capitalised words where a capital means something, and how they are used.

Whether a name is a person is decided for the whole book (see cast.py): one chapter has too little evidence.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from tasks.analysis.model import NameEvidence
from tasks.analysis.words import WORD, Prose, Sentence, word_set

MALE = word_set("mr sir lord herr monsieur don señor signor mister master m baron prince king duke brother uncle")
MARRIED = word_set("mrs frau señora signora mme mevrouw")
LADIES = word_set("lady madam madame countess princess queen duchess baroness marquise dame")
UNMARRIED = word_set("miss mlle mademoiselle fräulein señorita signorina ms aunt sister")
RANKS = word_set(
    "dr doctor professor prof captain cap'n capt colonel col general gen major lieutenant lt sergeant sgt inspector "
    "detective father reverend rev count judge officer constable corporal commander admiral squire alderman mayor "
    "minister president senator bishop abbot emperor"
)
TITLES = MALE | MARRIED | LADIES | UNMARRIED | RANKS
PARTICLES = word_set("de van von der den di da du la le del della dos des ibn bin al el ten ter")

SPEECH = {
    "en": "said says asked replied answered cried exclaimed whispered murmured muttered shouted "
    "remarked observed returned "
    "added continued declared demanded inquired enquired began sighed laughed snapped told thought",
    "fr": "dit répondit demanda cria murmura s'écria reprit ajouta répliqua fit pensa",
    "es": "dijo respondió preguntó gritó exclamó murmuró contestó añadió replicó pensó",
    "it": "disse rispose chiese gridò esclamò mormorò domandò aggiunse pensò",
    "pt": "disse respondeu perguntou gritou exclamou murmurou acrescentou pensou",
    "nl": "zei vroeg antwoordde riep fluisterde mompelde dacht",
}
PLACES = {
    "en": "in at into near across through throughout around outside inside via",
    "fr": "à en dans vers depuis",
    "es": "en hacia desde",
    "it": "in a verso da",
    "pt": "em no na para desde",
    "nl": "in te naar uit",
}
_ARTICLES = word_set(
    "the a an le la les el los las il lo gli o os as de het een un une una um uma this that these those"
)
_VERBS = word_set(
    "was is had has did does would could should will can must might looked turned went came stood sat took felt knew "
    "saw made gave shook nodded smiled seemed kept held rose ran put let left found heard spoke drew never"
)
# Words that so often begin a sentence that a capital there says nothing, whatever the rest of the chapter holds.
_BEGINNINGS = word_set(
    "a about above across after again against all almost already also although always among an and another any "
    "anyone anything as at away because before behind beside besides beyond both but by can come could dear "
    "despite did do does down during each either enough even ever every everyone everything except few finally "
    "first for from had has have he hello her here hers hey him his how however i if in indeed inside instead "
    "into is it its just last later least let like little long look many maybe me meanwhile more moreover most "
    "much my near neither never next no nobody none nor not nothing now of off often oh on once one only onto or "
    "other our out outside over perhaps please poor quite rather really she since so some somebody someone "
    "something sometimes somewhere soon still such suddenly tell than thank that the their them then there "
    "therefore these they this those though through thus till to together too toward towards two under until up "
    "upon us was we well were what whatever when whenever where wherever whether which while who whoever whom "
    "whose why will with within without would yes yesterday yet you your"
)
_OPENERS = "\"'“‘«„([—–-:;_*…"
_TITLE_GAP = re.compile(r"\.?\s+")
_POSSESSIVE = re.compile(r"['’]s?$")
LONGEST_NAME = 4


@dataclass(frozen=True, slots=True)
class Token:
    """A word of a sentence. `first` says that a capital on it is expected there."""

    text: str
    start: int
    end: int
    first: bool


@dataclass(frozen=True, slots=True)
class _Use:
    name: str
    first: bool
    before: str
    after: str
    owns: bool
    articled: bool


def find_names(prose: Prose, written: Counter[str], language: str) -> dict[str, NameEvidence]:
    """Names with the evidence of this chapter; none in German, where every noun has a capital.

    `written` counts the words as the chapter writes them.
    """
    if language == "de":
        return {}
    speech = frozenset(SPEECH.get(language, "").split())
    places = frozenset(PLACES.get(language, "").split())
    found: dict[str, NameEvidence] = {}
    for sentence in prose.sentences:
        if any(word[0].isupper() for word in sentence.words):
            for use in _find_uses(prose, sentence, written):
                _add(found.setdefault(use.name, NameEvidence()), use, speech, places)
    for name, evidence in found.items():
        evidence.lower = written[name.lower()]
    return found


def _add(evidence: NameEvidence, use: _Use, speech: frozenset[str], places: frozenset[str]) -> None:
    evidence.mentions += 1
    evidence.inside += not use.first
    evidence.speaks += use.before in speech or use.after in speech
    evidence.acts += use.owns or use.after in _VERBS or (len(use.after) > 4 and use.after.endswith("ed"))
    evidence.placed += use.before in places
    evidence.articled += use.articled


def _find_uses(prose: Prose, sentence: Sentence, written: Counter[str]) -> Iterator[_Use]:
    tokens = list(_tokens(prose.text, sentence))
    i = 0
    while i < len(tokens):
        j = _name_end(prose.text, tokens, i, written)
        if j > i:
            name = _spell([token.text for token in tokens[i:j]])
            articled = i > 0 and tokens[i - 1].text.lower() in _ARTICLES
            # "said the Captain": the verb stands before the article.
            verb = i - 1 - articled
            before = tokens[verb].text.lower() if verb >= 0 else ""
            after = tokens[j].text.lower() if j < len(tokens) else ""
            if name:
                yield _Use(name, tokens[i].first, before, after, bool(_POSSESSIVE.search(tokens[j - 1].text)), articled)
        i = max(j, i + 1)


def _tokens(text: str, sentence: Sentence) -> Iterator[Token]:
    position, first = sentence.start, True
    for match in WORD.finditer(text, sentence.start, sentence.end):
        between = text[position : match.start()]
        if between != " " and not first:
            first = "--" in between or any(mark in between for mark in _OPENERS)
        yield Token(match.group(), match.start(), match.end(), first)
        position, first = match.end(), False


def _name_end(text: str, tokens: list[Token], start: int, written: Counter[str]) -> int:
    """Where the name that begins at `start` ends; `start` when none begins there."""
    if not _may_begin(tokens[start], written):
        return start
    end = start + 1
    while end < len(tokens) and end - start < LONGEST_NAME:
        previous = tokens[end - 1]
        gap = text[previous.end : tokens[end].start]
        joined = gap.isspace() or (previous.text.lower() in TITLES and bool(_TITLE_GAP.fullmatch(gap)))
        if not joined or _POSSESSIVE.search(previous.text):
            break
        if _is_capital(tokens[end].text) and not _begins_anew(tokens, end):
            end += 1
        elif tokens[end].text in PARTICLES and end + 1 < len(tokens) and _is_capital(tokens[end + 1].text):
            end += 2
        else:
            break
    return end


def _begins_anew(tokens: list[Token], i: int) -> bool:
    """Whether a title in the middle of capitals begins the next name: in Fenchurch Street Lord Godalming said."""
    named = i + 1 < len(tokens) and _is_capital(tokens[i + 1].text)
    return named and tokens[i].text.lower() in TITLES and tokens[i - 1].text.lower() not in TITLES


def _may_begin(token: Token, written: Counter[str]) -> bool:
    if not _is_capital(token.text):
        return False
    word = token.text.lower()
    # At the beginning of a sentence only a word that this chapter never writes small can be a name.
    return not token.first or word in TITLES or not (written[word] or word in _BEGINNINGS)


def _is_capital(word: str) -> bool:
    return word[0].isupper() and len(word) > 1 and not word.isupper() and not word.startswith(("I'", "I’"))


def _spell(words: list[str]) -> str:
    """The name in one spelling: possessive dropped, titles without a full stop. Empty for a title alone."""
    last = _POSSESSIVE.sub("", words[-1]).replace("’", "'")
    kept = [*words[:-1], last]
    return "" if len(last) < 2 and len(kept) == 1 else " ".join(kept)
