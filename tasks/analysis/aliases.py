"""Which names are one person: merged only where no second person could be meant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from tasks.analysis.names import LADIES, MALE, MARRIED, PARTICLES, RANKS, TITLES, UNMARRIED

DOMINANT = 3  # times as many mentions as all others with that name: then the bare name is that person's


# A rank beside a family name was long a man's.
_SORTS = {"male": MALE | RANKS, "married": MARRIED, "lady": LADIES, "unmarried": UNMARRIED}


@dataclass(frozen=True)
class Name:
    """A name taken apart: "Lady Catherine de Bourgh" is the title lady and the words Catherine, de, Bourgh."""

    text: str
    titles: tuple[str, ...]
    words: tuple[str, ...]

    @property
    def last(self) -> str:
        """The family name, where there is more than one word or a title."""
        return self.words[-1] if self.words else ""

    @property
    def sort(self) -> str:
        """What a title tells, or nothing."""
        for title in self.titles:
            for sort, known in _SORTS.items():
                if title in known:
                    return sort
        return ""


@dataclass
class Person:
    """Names that were merged, with all their mentions."""

    names: list[Name] = field(default_factory=list)
    mentions: int = 0

    @property
    def sorts(self) -> set[str]:
        """What its titles tell, all together."""
        return {name.sort for name in self.names} - {""}


def read_name(text: str) -> Name:
    """Take a name apart. Titles stand in front."""
    words = text.split()
    count = 0
    while count < len(words) and words[count].lower() in TITLES:
        count += 1
    return Name(text, tuple(word.lower() for word in words[:count]), tuple(words[count:]))


def merge_names(mentions: dict[str, int]) -> list[list[str]]:
    """Groups of names that mean one person."""
    return _Merger(mentions).merge()


class _Merger:
    """Gives each shorter name to the one person it can mean, and leaves it alone when there are several."""

    def __init__(self, mentions: dict[str, int]) -> None:
        ordered = sorted(mentions.items(), key=lambda item: -item[1])
        self.people = [Person([read_name(text)], count) for text, count in ordered]
        self.given: dict[str, list[set[str]]] = defaultdict(list)
        self.titled: dict[str, set[str]] = defaultdict(set)
        for name in (person.names[0] for person in self.people):
            if len(name.words) > 1:
                _join(self.given[name.last], set(name.words[:-1]) - PARTICLES)
            elif name.titles:
                self.titled[name.last].add(name.sort)

    def merge(self) -> list[list[str]]:
        for matches in (self._same_words, self._is_longer_form, self._is_family, self._is_part):
            self._merge_by(matches)
        return [[name.text for name in person.names] for person in self.people]

    def _merge_by(self, matches: Callable[[Name, Person], bool]) -> None:
        sharing: dict[str, list[Person]] = defaultdict(list)
        for person in self.people:
            for word in {word for name in person.names for word in name.words}:
                sharing[word].append(person)
        gone: set[int] = set()
        for person in sorted(self.people, key=lambda p: (max(len(n.words) for n in p.names), p.mentions)):
            near = {id(p): p for name in person.names for word in name.words for p in sharing[word]}
            others = [p for p in near.values() if p is not person and id(p) not in gone and _agree(person, p)]
            target = _choose(person, [p for p in others if matches(person.names[0], p)])
            if target:
                target.names += person.names
                target.mentions += person.mentions
                gone.add(id(person))
        self.people = [p for p in self.people if id(p) not in gone]

    def _same_words(self, x: Name, other: Person) -> bool:
        """Dr Van Helsing, Professor Van Helsing: the same words under other titles."""
        return bool(x.titles and x.words) and any(y.titles and y.words == x.words for y in other.names)

    def _is_longer_form(self, x: Name, other: Person) -> bool:
        """Lady Catherine, Lady Catherine de Bourgh; Elizabeth Bennet, Miss Elizabeth Bennet."""
        return any(
            (x.words and x.titles == y.titles and x.titles and len(x.words) < len(y.words) and _starts(x, y))
            or (len(x.words) > 1 and y.titles and not x.titles and x.words == y.words)
            for y in other.names
        )

    def _is_family(self, x: Name, other: Person) -> bool:
        """Mr Utterson, Gabriel Utterson: when the family has one given name and one kind of title."""
        if not x.titles or len(x.words) != 1 or x.sort == "married":
            return False
        alone = len(self.given[x.last]) == 1 and len(self.titled[x.last]) == 1
        return alone and any(len(y.words) > 1 and y.last == x.last for y in other.names)

    def _is_part(self, x: Name, other: Person) -> bool:
        """Elizabeth, Elizabeth Bennet; Miss Elizabeth, Elizabeth; Darcy, Mr Darcy; Van Helsing, Dr Van Helsing."""
        if x.titles:
            if x.sort == "married":
                return False
            given = any(x.last in names for family in self.given.values() for names in family)
            return given and len(x.words) == 1 and any(not y.titles and y.words == x.words for y in other.names)
        return any(self._is_part_of(x, y) for y in other.names)

    def _is_part_of(self, x: Name, y: Name) -> bool:
        shorter = len(x.words) < len(y.words) or (len(x.words) == len(y.words) and bool(y.titles))
        if not shorter or not x.words:
            return False
        # A family name alone means a full name only where the family has no second given name.
        only = len(x.words) > 1 or len(y.words) == 1 or len(self.given[x.last]) == 1
        return _starts(x, y) or (_ends(x, y) and only)


def _join(family: list[set[str]], given: set[str]) -> None:
    """Add the given names of one person of a family; who shares one with another is the same."""
    for known in [known for known in family if known & given]:
        family.remove(known)
        given |= known
    family.append(given)


def _agree(a: Person, b: Person) -> bool:
    """Titles must not tell of two people: Mr and Mrs, Mrs and Miss, Colonel and Mrs."""
    return len(a.sorts | b.sorts) <= 1


def _choose(person: Person, fitting: list[Person]) -> Person | None:
    """The one person, or the one mentioned far more than the others. A family name alone is first a man's."""
    if not person.names[0].titles:
        men = [p for p in fitting if p.mentions >= 0.3 * person.mentions and _is_mister(p, person.names[0])]
        fitting = men if len(men) == 1 else [p for p in fitting if "married" not in p.sorts]
    if not fitting:
        return None
    best = max(fitting, key=lambda p: p.mentions)
    others = sum(p.mentions for p in fitting) - best.mentions
    return best if best.mentions >= DOMINANT * others else None


def _is_mister(person: Person, bare: Name) -> bool:
    return any(name.sort == "male" and name.words == bare.words for name in person.names)


def _starts(x: Name, y: Name) -> bool:
    return y.words[: len(x.words)] == x.words


def _ends(x: Name, y: Name) -> bool:
    if not x.words or x.words[0] in PARTICLES:
        return False
    return y.words[len(y.words) - len(x.words) :] == x.words
