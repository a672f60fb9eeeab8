"""How the chapters of a text are found, in texts made for one rule each."""

from __future__ import annotations

import itertools
import random

import pytest

from tasks.documents.chapters import Section, find_chapters
from tasks.documents.chapters.numerals import read_number, read_roman
from tasks.documents.model import Heading

TEXT = "the river house morning walked under a quiet old door and she looked again at his letter while rain fell"
WORDS = TEXT.split()


def prose(words: int, seed: int = 1) -> str:
    """Paragraphs of lower-case nonsense sentences, wrapped by blank lines."""
    dice = random.Random(seed)
    sentences, count = [], 0
    while count < words:
        length = dice.randint(6, 18)
        sentence = " ".join(dice.choice(WORDS) for _ in range(length))
        sentences.append(sentence[0].upper() + sentence[1:] + ".")
        count += length
    paragraphs = [" ".join(sentences[i : i + 5]) for i in range(0, len(sentences), 5)]
    return "\n\n".join(paragraphs)


def book(*headings: str, words: int = 400) -> str:
    return "\n\n\n".join(f"{heading}\n\n{prose(words, n)}" for n, heading in enumerate(headings))


def chapters(text: str, headings: list[Heading] | None = None) -> list[Section]:
    return [s for s in find_chapters(text, headings or []) if s.kind == "chapter"]


def numbers(text: str) -> list[int | None]:
    return [s.number for s in chapters(text)]


@pytest.mark.parametrize(
    "headings",
    [
        ["CHAPTER I", "CHAPTER II", "CHAPTER III"],
        ["Chapter One", "Chapter Two", "Chapter Three"],
        ["Chapter 1: The Door", "Chapter 2: The House", "Chapter 3: The Rain"],
        ["I.", "II.", "III."],
        ["I", "II", "III"],
        ["1", "2", "3"],
        ["ONE", "TWO", "THREE"],
        ["— 1 —", "— 2 —", "— 3 —"],
        ["I. The Door", "II. The House", "III. The Rain"],
        ["1 The Door", "2 The House", "3 The Rain"],
        ["The First Chapter", "The Second Chapter", "The Third Chapter"],
        ["A.", "B.", "C."],
        ["Erstes Kapitel", "Zweites Kapitel", "Drittes Kapitel"],
        ["Chapitre premier", "Chapitre deuxième", "Chapitre III"],
        ["Capítulo 1", "Capítulo 2", "Capítulo 3"],
        ["1. Kapitel", "2. Kapitel", "3. Kapitel"],
        ["**Chapter 1**", "**Chapter 2**", "**Chapter 3**"],
        ["Letter the First", "Letter the Second", "Letter the Last"],
        ["Day One", "Day Two", "Day Three"],
    ],
)
def test_every_way_to_number_chapters_is_read(headings: list[str]) -> None:
    assert numbers(book(*headings)) == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("XIV", 14),
        ("xlix", 49),
        ("IIII", None),
        ("IC", None),
        ("Xi", None),
        ("twenty-one", 21),
        ("Forty Second", 42),
        ("21st", 21),
        ("vierzehn", 14),
        ("zwölfte", 12),
        ("house", None),
        ("CXXXV", 135),
        ("third", 3),
    ],
)
def test_numerals_are_read_or_refused(text: str, value: int | None) -> None:
    assert read_number(text) == value


def test_every_roman_numeral_up_to_399_is_read_back() -> None:
    signs = [(100, "C"), (90, "XC"), (50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")]

    def write(number: int) -> str:
        for value, sign in signs:
            if number >= value:
                return sign + write(number - value)
        return ""

    assert [read_roman(write(n)) for n in range(1, 400)] == list(range(1, 400))


def test_titles_on_the_heading_line_and_below_it_are_taken() -> None:
    found = chapters(book("CHAPTER I\n\nTHE OLD HOUSE", "CHAPTER II. A Letter", "CHAPTER III\n\n(Kept in secret.)"))
    assert [s.title for s in found] == [
        "Chapter 1: THE OLD HOUSE",
        "Chapter 2: A Letter",
        "Chapter 3: (Kept in secret.)",
    ]


def test_the_body_begins_after_the_heading_and_its_title() -> None:
    text = book("CHAPTER I\n\nTHE OLD HOUSE", "CHAPTER II\n\nTHE RIVER")
    for section in chapters(text):
        assert "THE" not in text[section.body : section.end]
        assert text[section.start :].startswith("CHAPTER")


def test_a_table_of_contents_is_not_chapters() -> None:
    listed = "CONTENTS\n\n" + "\n\n".join(f"Chapter {n}. The Door ..... {n * 10}" for n in range(1, 9))
    text = listed + "\n\n\n" + book(*[f"Chapter {n}. The Door" for n in range(1, 9)])
    assert numbers(text) == list(range(1, 9))
    assert find_chapters(text)[0].kind == "front"


def test_a_table_of_contents_without_leaders_followed_by_front_matter_is_not_chapters() -> None:
    listed = "\n".join(f"CHAPTER {n}" for n in ("I", "II", "III", "IV"))
    text = f"{listed}\n\n\nPREFACE\n\n{prose(300)}\n\n\n{book('CHAPTER I', 'CHAPTER II', 'CHAPTER III', 'CHAPTER IV')}"
    assert numbers(text) == [1, 2, 3, 4]
    assert [s.title for s in find_chapters(text) if s.kind == "front"] == ["Front matter", "PREFACE"]


def test_parts_are_their_own_level_and_span_their_chapters() -> None:
    text = book("PART ONE\n\nCHAPTER I", "CHAPTER II", "PART TWO\n\nCHAPTER I", "CHAPTER II")
    sections = find_chapters(text)
    assert numbers(text) == [1, 2, 1, 2]
    parts = [s for s in sections if s.kind == "part"]
    assert [p.title for p in parts] == ["Part 1", "Part 2"]
    assert [sum(p.start <= c.start < p.end for c in chapters(text)) for p in parts] == [2, 2]


def test_a_part_without_chapters_is_one_and_ends_the_part_before_it() -> None:
    text = book("PART ONE\n\nCHAPTER I", "CHAPTER II", "PART TWO", "PART THREE\n\nCHAPTER I", "CHAPTER II")
    sections = find_chapters(text)
    titles = [s.title for s in sections if s.kind == "chapter"]
    assert titles == ["Chapter 1", "Chapter 2", "Part 2", "Chapter 1", "Chapter 2"]
    second = next(s for s in sections if s.title == "Part 2")
    assert [p.title for p in sections if p.kind == "part" and p.start <= second.start < p.end] == []


def test_parts_without_chapters_are_the_chapters() -> None:
    text = book("PART ONE", "PART TWO", "PART THREE", words=900)
    assert [(s.kind, s.title) for s in find_chapters(text)] == [
        ("chapter", "Part 1"),
        ("chapter", "Part 2"),
        ("chapter", "Part 3"),
    ]


def test_bare_numbers_inside_numbered_chapters_are_sections_of_them() -> None:
    inside = "\n\n\n".join(f"{n}\n\n{prose(300, n)}" for n in (1, 2, 3))
    text = "\n\n\n".join(f"Chapter {n}\n\n{inside}" for n in ("One", "Two", "Three"))
    assert [s.title for s in chapters(text)] == ["Chapter 1", "Chapter 2", "Chapter 3"]


def test_prologue_and_epilogue_are_read_and_other_matter_is_not() -> None:
    text = book("Dedication", "Prologue", "Chapter 1", "Chapter 2", "Epilogue", "Acknowledgements", "About the Author")
    kinds = [(s.kind, s.title) for s in find_chapters(text)]
    assert kinds == [
        ("front", "Dedication"),
        ("chapter", "Prologue"),
        ("chapter", "Chapter 1"),
        ("chapter", "Chapter 2"),
        ("chapter", "Epilogue"),
        ("back", "Acknowledgements"),
        ("back", "About the Author"),
    ]


def test_a_sentence_that_begins_like_a_heading_is_prose() -> None:
    text = book("Chapter 1", "Chapter 2", "Chapter 3")
    text = text.replace(
        "\n\n\nChapter 3", "\n\nChapter 3 was the one he liked.\n\nI saw it. II was not there.\n\n\nChapter 3"
    )
    assert numbers(text) == [1, 2, 3]


def test_a_numbered_list_is_not_chapters() -> None:
    rules = "\n\n".join(f"{n}. Bring the Rope" for n in range(1, 8))
    text = book("Chapter 1", "Chapter 2").replace("\n\n\nChapter 2", f"\n\n{rules}\n\n\nChapter 2")
    assert numbers(text) == [1, 2]
    assert len(chapters(f"{prose(300)}\n\n{rules}\n\n{prose(300)}")) == 1


def test_page_numbers_are_not_chapters() -> None:
    words = prose(9_000).replace("\n\n", " ").split()
    pages = [" ".join(words[i : i + 300]) for i in range(0, len(words), 300)]
    text = "".join(f"{page}\n\n{n}\n\n" for n, page in enumerate(pages, 1))
    assert {s.found_by for s in chapters(text)} == {"chunks"}


def test_a_running_head_on_each_page_counts_once() -> None:
    text = "\n\n\n".join(f"Chapter {n}\n\n{prose(200)}\n\nChapter {n}\n\n{prose(200)}" for n in (1, 2, 3))
    assert numbers(text) == [1, 2, 3]


def test_chapters_are_found_where_no_blank_lines_part_the_paragraphs() -> None:
    assert numbers(book("Chapter 1", "Chapter 2", "Chapter 3").replace("\n\n\n", "\n").replace("\n\n", "\n")) == [
        1,
        2,
        3,
    ]


def test_a_missing_heading_does_not_end_the_count() -> None:
    assert numbers(book("Chapter 1", "Chapter 2", "Chapter 4", "Chapter 5")) == [1, 2, 4, 5]


def test_an_opening_whose_heading_is_missing_is_the_first_chapter() -> None:
    text = f"A Novel\n\n{prose(600)}\n\n\n{book('Chapter 2', 'Chapter 3')}"
    assert [(s.number, s.title) for s in chapters(text)] == [(1, "Opening"), (2, "Chapter 2"), (3, "Chapter 3")]


def with_structure(*parts: tuple[int, str, int]) -> tuple[str, list[Heading]]:
    text, headings = "", []
    for n, (level, title, words) in enumerate(parts):
        headings.append(Heading(offset=len(text), level=level, text=title))
        text += f"{title}\n\n{prose(words, n) if words else ''}\n\n"
    return text, headings


def test_unnumbered_headings_of_the_documents_structure_are_chapters() -> None:
    text, headings = with_structure(
        (1, "A Novel", 0), (2, "winter", 500), (2, "What she said.", 500), (2, "Spring", 500)
    )
    found = chapters(text, headings)
    assert [(s.title, s.found_by) for s in found] == [
        ("winter", "structure"),
        ("What she said.", "structure"),
        ("Spring", "structure"),
    ]


def test_named_headings_beside_numbered_ones_of_the_same_level_are_chapters() -> None:
    text, headings = with_structure((1, "Chapter 1", 500), (1, "The Storm", 500), (1, "Chapter 2", 500))
    assert [s.title for s in chapters(text, headings)] == ["Chapter 1", "The Storm", "Chapter 2"]


def test_names_set_apart_are_chapters_with_less_confidence() -> None:
    text = "\n\n\n\n".join(
        f"{name}\n\n\n{prose(600, n)}" for n, name in enumerate(["The Door", "Rain", "Her Letter", "Again"])
    )
    found = chapters(text)
    assert [s.title for s in found] == ["The Door", "Rain", "Her Letter", "Again"]
    assert {s.found_by for s in found} == {"names"}
    assert found[0].confidence < 0.8


def test_scene_breaks_divide_a_text_without_headings() -> None:
    found = chapters("\n\n* * *\n\n".join(prose(500, n) for n in range(4)))
    assert [(s.title, s.found_by) for s in found] == [(f"Scene {n}", "scene breaks") for n in (1, 2, 3, 4)]
    assert all(s.confidence <= 0.4 for s in found)


def test_a_text_without_any_sign_is_cut_into_even_stretches_between_paragraphs() -> None:
    text = prose(12_000)
    found = chapters(text)
    lengths = [len(text[s.body : s.end].split()) for s in found]
    assert len(found) == 4
    assert max(lengths) < 1.2 * min(lengths)
    assert all(text[s.start - 2 : s.start] in ("", "\n\n") for s in found)
    assert found[0].confidence <= 0.2


def test_a_short_text_is_one_chapter() -> None:
    (only,) = find_chapters(prose(200))
    assert (only.kind, only.found_by, only.start) == ("chapter", "whole text", 0)


@pytest.mark.parametrize("text", ["", " \n\n\f\n ", "\n"])
def test_a_text_without_words_has_no_sections(text: str) -> None:
    assert find_chapters(text) == []


@pytest.mark.parametrize("text", ["Chapter 1", "I", "Chapter 1\n\nChapter 2\n\nChapter 3", "* * *", "\N{BOM}Hello"])
def test_a_few_words_are_always_one_chapter_or_more(text: str) -> None:
    sections = find_chapters(text)
    assert chapters(text)
    assert all(0 <= s.start <= s.body <= s.end <= len(text) for s in sections)


def test_sections_lie_in_the_text_and_do_not_overlap_whatever_the_text() -> None:
    dice = random.Random(7)
    pieces = [
        "CHAPTER I",
        "2",
        "PART TWO",
        "Epilogue",
        "* * *",
        "CONTENTS",
        "THE END",
        prose(30),
        prose(90),
        "",
        "I. A Door",
    ]
    for _ in range(200):
        text = "\n\n".join(dice.choice(pieces) for _ in range(dice.randint(1, 25)))
        sections = find_chapters(text)
        leaves = [s for s in sections if s.kind != "part"]
        assert all(0 <= s.start <= s.body <= s.end <= len(text) for s in sections)
        assert all(a.end <= b.start for a, b in itertools.pairwise(leaves))


def test_thousands_of_headings_are_not_chapters() -> None:
    text = "\n\n".join(f"Chapter {n % 900 + 1}\n\n{prose(60)}" for n in range(2_100))
    assert len(chapters(text)) < 100
