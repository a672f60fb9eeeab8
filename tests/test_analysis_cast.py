"""Who is in the book: names found by use, places and sentence beginnings left out, aliases merged with care."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.analysis.aliases import merge_names
from tasks.analysis.cast import Character, find_cast, find_pairs
from tasks.analysis.chapter import analyze_chapter
from tasks.documents.chapters import find_chapters


def cast_of(*chapters: str, language: str = "en") -> list[Character]:
    return find_cast([analyze_chapter(text, language=language) for text in chapters])


def names_of(*chapters: str) -> list[str]:
    return [person.name for person in cast_of(*chapters)]


def groups(mentions: dict[str, int]) -> set[frozenset[str]]:
    return {frozenset(group) for group in merge_names(mentions)}


SCENE = (
    "The door opened and Anna looked up. “Come in,” said Anna. Then Anna smiled at Boris, and Boris nodded. "
    "“Where were you?” asked Anna. “In London,” Boris replied. They had met in London on a Monday in March, and in "
    "London they would part. Nobody had asked Boris why. Well, Anna knew. However, Anna had said nothing of it. "
    "The English rain fell. Perhaps God knew. “Oh, Boris,” Anna said."
)


def test_people_are_found_and_places_days_and_beginnings_of_sentences_are_not() -> None:
    assert names_of(SCENE) == ["Anna", "Boris"]


def test_mentions_are_counted_by_chapter_with_first_and_last() -> None:
    quiet = "The rain fell on the roof all day long and nobody came to the house."
    anna = next(p for p in cast_of(quiet, SCENE, quiet, SCENE, quiet) if p.name == "Anna")
    assert (anna.first, anna.last, anna.chapters) == (2, 4, 2)
    assert anna.by_chapter == [0, 7, 0, 7, 0]
    assert anna.speaks == 2 * 3


def test_a_role_with_an_article_is_a_person_when_it_speaks() -> None:
    text = (
        "“Now,” said the Captain. The Captain turned. “Why?” asked the Captain. We saw the Thames and the Bible there. "
    )
    assert names_of(text * 3) == ["the Captain"]


def test_names_written_small_elsewhere_are_words() -> None:
    assert names_of("Hope was gone. They saw Hope there, and some hope, and the hope of it, a hope again. " * 4) == []


def test_german_has_no_cast_because_every_noun_has_a_capital() -> None:
    assert cast_of("Der Mann sagte zu der Frau, dass Anna das Haus sah. " * 5, language="de") == []


@pytest.mark.parametrize(
    ("mentions", "expected"),
    [
        ({"Mr Darcy": 270, "Darcy": 100, "Miss Darcy": 38}, [{"Mr Darcy", "Darcy"}, {"Miss Darcy"}]),
        ({"Mr Bennet": 88, "Mrs Bennet": 148}, [{"Mr Bennet"}, {"Mrs Bennet"}]),
        (
            {"Elizabeth": 600, "Elizabeth Bennet": 8, "Miss Elizabeth": 12, "Miss Bennet": 58, "Jane Bennet": 3},
            [{"Elizabeth", "Elizabeth Bennet", "Miss Elizabeth"}, {"Miss Bennet"}, {"Jane Bennet"}],
        ),
        (
            {"Dr Van Helsing": 82, "Van Helsing": 200, "Professor": 160},
            [{"Dr Van Helsing", "Van Helsing"}, {"Professor"}],
        ),
        ({"Lady Catherine": 100, "Lady Catherine de Bourgh": 12}, [{"Lady Catherine", "Lady Catherine de Bourgh"}]),
        ({"Joe": 600, "Mrs Joe": 60}, [{"Joe"}, {"Mrs Joe"}]),
        ({"Natasha Rostov": 9, "Petya Rostov": 9, "Rostov": 700}, [{"Natasha Rostov"}, {"Petya Rostov"}, {"Rostov"}]),
        ({"Mr Utterson": 90, "Gabriel Utterson": 5}, [{"Mr Utterson", "Gabriel Utterson"}]),
        (
            {"Long John": 30, "Long John Silver": 5, "John Silver": 13},
            [{"Long John", "Long John Silver", "John Silver"}],
        ),
        ({"Colonel Forster": 26, "Mrs Forster": 12}, [{"Colonel Forster"}, {"Mrs Forster"}]),
    ],
)
def test_aliases_are_merged_only_where_no_one_else_can_be_meant(
    mentions: dict[str, int], expected: list[set[str]]
) -> None:
    assert groups(mentions) == {frozenset(group) for group in expected}


def test_pairs_share_chapters_in_which_both_are_named_twice() -> None:
    alone = "“Come in,” said Anna. Then Anna smiled, and Anna went to see what Anna had left. Boris was out."
    (pair,) = find_pairs(cast_of(SCENE, alone, SCENE))
    assert (pair.a, pair.b, pair.together, pair.either) == ("Anna", "Boris", 2, 3)


@pytest.mark.parametrize(
    ("book", "expected", "never"),
    [
        ("pride-and-prejudice", ["Elizabeth", "Mr Darcy", "Jane", "Mr Bingley", "Wickham"], ["London", "Longbourn"]),
        ("treasure-island", ["Silver", "Jim", "Dr Livesey", "Ben Gunn", "Captain Smollett"], ["Spy-glass", "England"]),
        ("the-time-machine", ["the Time Traveller", "Weena", "Filby"], ["Time Machine", "the Time Machine"]),
    ],
)
def test_the_cast_of_a_novel_is_its_cast(book: str, expected: list[str], never: list[str], corpora: Path) -> None:
    text = (corpora / "novels" / f"{book}.txt").read_text(encoding="utf-8")
    chapters = [text[s.body : s.end] for s in find_chapters(text) if s.kind == "chapter"]
    names = names_of(*chapters)
    assert set(expected) <= set(names[:12])
    others = {"Chapter", "Mr", "Mrs", "Sir", "Monday", "May", "God", "The", "Then", "Oh", "Yes", "But", *never}
    assert not others & set(names)
