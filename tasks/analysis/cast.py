"""The people of a book, from the names of its chapters. Places and things are sorted out by how names are used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

from pydantic import BaseModel, Field

from tasks.analysis.aliases import merge_names, read_name
from tasks.analysis.model import ChapterAnalysis, NameEvidence
from tasks.analysis.names import RANKS, TITLES
from tasks.analysis.words import word_set

MOST = 40  # people in the table
FEWEST_MENTIONS = 3
SHORT_BOOK = 40_000  # words
PRESENT = 2  # mentions in a chapter to count as present in it

_CALENDAR = (
    "monday tuesday wednesday thursday friday saturday sunday january february march april may june july august "
    "september october november december spring summer autumn winter christmas easter"
)
_PEOPLES = (
    "english french german italian spanish russian american british irish scotch scottish welsh dutch greek latin "
    "roman chinese indian turkish jewish christian catholic european englishman frenchman "
    "americans england france germany "
    "italy spain russia america scotland ireland wales europe asia africa india china japan london"
)
_POWERS = "god lord heaven heavens hell providence bible nature death fate fortune fear time space truth love"
_THINGS = (
    "chapter book part volume letter journal diary note telegram street road avenue square park river lake hotel "
    "college church house hall island inn dock bay cape mount end wood machine north south east west"
)
_OPENINGS = (
    "oh ah yes no well why what who how when where then there this that these those it he she they we you my his her "
    "their our your but and so if as now for here not nor or yet still never come good dear very indeed perhaps thank "
    "please hush alas ay aye nay ha hallo hullo hello hey is are was do did don't can't won't i'll i'm i've i'd it's "
    "that's there's he's she's let's what's you're they're besides lest tell"
)
_NOT_NAMES = frozenset(" ".join((_CALENDAR, _PEOPLES, _POWERS, _THINGS, _OPENINGS)).split())
_NEVER_FIRST = frozenset(" ".join((_CALENDAR, _OPENINGS)).split())
_NEVER_LAST = frozenset(" ".join((_CALENDAR, _THINGS)).split())
_ALONE = TITLES - RANKS | word_set("madam ma'am gentlemen ladies sirs")
_KIN = word_set("mother father mamma mama papa mum mom dad daddy mummy grandmother grandfather aunt uncle")


class Character(BaseModel):
    """A person of the book, or what looks like one."""

    name: str
    aliases: list[str] = []
    mentions: int
    speaks: int = Field(description="Times a name stands beside a verb of speaking.")
    chapters: int = Field(description="Chapters with at least one mention.")
    first: int = Field(description="Position of the chapter of the first mention, from 1.")
    last: int
    by_chapter: list[int]


class Pair(BaseModel):
    """Two people and the chapters in which both are mentioned at least twice."""

    a: str
    b: str
    together: int
    either: int


def find_cast(chapters: Sequence[ChapterAnalysis]) -> list[Character]:
    """The people by mentions, most first; at most MOST."""
    words = sum(chapter.words for chapter in chapters)
    once = 0 if words < SHORT_BOOK else 1  # in a long book a name that occurs once is as likely an accident
    evidence = {name: e for name, e in _gather(chapters).items() if e.mentions > once}
    people = {name: e for name, e in evidence.items() if _is_person(name, e)}
    people |= {name: e for name, e in evidence.items() if _shares_name(name, e, set(people))}
    groups = merge_names({name: e.mentions for name, e in people.items() if not _is_plural(name, people)})
    cast = [_introduce(group, evidence, chapters) for group in groups]
    floor = max(FEWEST_MENTIONS, words // 15_000)
    kept = [person for person in cast if person.mentions >= floor]
    return sorted(kept, key=lambda person: -person.mentions)[:MOST]


def find_pairs(cast: Sequence[Character], most: int = 12) -> list[Pair]:
    """Who shares chapters with whom, among the first ten of the cast."""
    present = {p.name: {i for i, n in enumerate(p.by_chapter) if n >= PRESENT} for p in cast[:10]}
    pairs = [
        Pair(a=a, b=b, together=len(present[a] & present[b]), either=len(present[a] | present[b]))
        for a, b in combinations(present, 2)
    ]
    return sorted((p for p in pairs if p.together), key=lambda p: (-p.together, p.either))[:most]


def _gather(chapters: Sequence[ChapterAnalysis]) -> dict[str, NameEvidence]:
    total: dict[str, NameEvidence] = defaultdict(lambda: NameEvidence())
    for chapter in chapters:
        for name, evidence in chapter.names.items():
            summed = total[name]
            for field in NameEvidence.model_fields:
                setattr(summed, field, getattr(summed, field) + getattr(evidence, field))
    return dict(total)


def _is_person(name: str, e: NameEvidence) -> bool:
    parts = read_name(name)
    words = [word.lower() for word in parts.words]
    if not e.inside or set(name.lower().split()) <= _ALONE:
        return False
    if words and _is_other(words):
        return False
    if not words and e.acts >= 0.3 * e.mentions:
        return e.mentions > e.lower
    if e.articled > 0.3 * e.mentions or not words or set(words) <= _KIN:
        # "The Captain" speaks, "the Thames" does not.
        return e.speaks >= max(2, 0.03 * e.mentions) and e.lower <= e.mentions
    if parts.titles:
        return True
    if e.lower > e.inside and e.speaks < 3:
        return False
    if e.placed > 0.15 * e.mentions and e.speaks < 0.05 * e.mentions:
        return False
    if e.speaks and e.placed <= 0.03 * e.mentions:
        return True
    return e.speaks >= max(1, 0.06 * e.mentions) or e.acts >= max(2, 0.15 * e.mentions)


def _is_other(words: list[str]) -> bool:
    """Whether the words are known for naming something else than a person."""
    if len(words) == 1:
        return words[0] in _NOT_NAMES
    return words[0] in _NEVER_FIRST or words[-1] in _NEVER_LAST or set(words) <= _NOT_NAMES


def _shares_name(name: str, e: NameEvidence, known: set[str]) -> bool:
    """A fuller name of someone known by a part of it: Tom Morgan, beside Morgan."""
    words = name.split()
    people = words[0] in known or words[-1] in known
    return (
        len(words) > 1 and people and words[-1].lower() not in _NEVER_LAST and e.placed + e.articled < 0.3 * e.mentions
    )


def _is_plural(name: str, people: dict[str, NameEvidence]) -> bool:
    """The Miss Bennets, the Lucases: a family, not a person."""
    return any(name.endswith(ending) and name.removesuffix(ending) in people for ending in ("s", "es"))


def _introduce(names: list[str], evidence: dict[str, NameEvidence], chapters: Sequence[ChapterAnalysis]) -> Character:
    by_chapter = [sum(c.names[name].mentions for name in names if name in c.names) for c in chapters]
    met = [position for position, count in enumerate(by_chapter, 1) if count]
    display = _choose_name(names, evidence)
    return Character(
        name=display,
        aliases=_list_aliases(names, display, evidence),
        mentions=sum(by_chapter),
        speaks=sum(evidence[name].speaks for name in names),
        chapters=len(met),
        first=met[0] if met else 0,
        last=met[-1] if met else 0,
        by_chapter=by_chapter,
    )


def _list_aliases(names: list[str], display: str, evidence: dict[str, NameEvidence]) -> list[str]:
    """The other names that are used more than once and not only by accident, most used first."""
    floor = max(2, 0.01 * sum(evidence[name].mentions for name in names))
    others = [n for n in names if n != display.removeprefix("the ") and evidence[n].mentions >= floor]
    return sorted(others, key=lambda name: -evidence[name].mentions)


def _choose_name(names: list[str], evidence: dict[str, NameEvidence]) -> str:
    """The fullest name that is used often, otherwise the one used most."""
    total = sum(evidence[name].mentions for name in names)
    often = [name for name in names if evidence[name].mentions >= 0.15 * total]
    best = max(often or names, key=lambda name: (len(read_name(name).words), evidence[name].mentions))
    return f"the {best}" if evidence[best].articled > 0.5 * evidence[best].mentions else best
