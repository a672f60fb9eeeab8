"""A whole book: pace, tone, lengths, notes that carry their numbers, quotations that are really there."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tasks.analysis.arc import find_turns, smooth_curve, trace_arc
from tasks.analysis.book import Synthesis, synthesize_book
from tasks.analysis.chapter import analyze_chapter
from tasks.analysis.excerpts import LONGEST, find_invented
from tasks.analysis.model import ChapterAnalysis, Excerpt
from tasks.analysis.notes import find_longest_absence, write_notes
from tasks.analysis.numbers import average, describe, find_outliers, standardize
from tasks.documents.chapters import find_chapters

SAD = "The cold grave was a horrible, terrible loss, and the cruel war killed all their hope and left them in pain. "
GLAD = "It was a wonderful, happy day, and they laughed with joy and love and kissed their good, beautiful friends. "
GREY = "The table stood by the window and the chair stood by the table, and beyond it there was the road. "
TALK = "“Run!” he cried.\n\n“Where?”\n\n“Jump!” She ran.\n\n"


def chapter(text: str, title: str = "", number: int | None = None) -> ChapterAnalysis:
    return analyze_chapter(text, title=title, number=number, language="en")


def book(*texts: str) -> Synthesis:
    return synthesize_book([chapter(text, f"Chapter {n}", n) for n, text in enumerate(texts, 1)])


def test_tone_has_ten_points_and_knows_sad_from_glad() -> None:
    tone = chapter(SAD * 15 + GLAD * 15).sentiment
    assert tone is not None
    assert len(tone) == 10
    assert all(point < -0.5 for point in tone[:4])
    assert all(point > 0.5 for point in tone[6:])


def test_tone_is_left_out_for_other_languages_and_for_few_words() -> None:
    assert analyze_chapter(GLAD * 30, language="de").sentiment is None
    assert chapter(GLAD).sentiment is None


def test_the_arc_turns_where_the_tone_does() -> None:
    arc = trace_arc([chapter(GLAD * 60), chapter(SAD * 60), chapter(GLAD * 60), chapter(SAD * 60)])
    assert arc is not None
    assert len(arc.points) == 101
    assert [(turn.kind, turn.chapter) for turn in arc.turns] == [("low", 2), ("high", 3)]
    assert arc.high > 0.5 > -0.5 > arc.low


def test_a_flat_curve_does_not_turn() -> None:
    assert find_turns([0.5] * 101) == []
    assert find_turns([i / 100 for i in range(101)]) == []


def test_small_ripples_are_not_turns() -> None:
    points = [0.0] * 30 + [0.02] * 10 + [0.0] * 20 + [1.0] * 10 + [0.0] * 31
    assert [kind for _, kind in find_turns(points)] == ["high"]


def test_smoothing_keeps_the_level_and_fills_gaps() -> None:
    assert smooth_curve([(10.0, 0.3, 5), (90.0, 0.3, 5)], 11, 6) == pytest.approx([0.3] * 11)


def test_pace_compares_chapters_of_one_book() -> None:
    result = book(GREY * 30, TALK * 60, GREY * 30, GREY * 30)
    paces = [row.pace or 0 for row in result.chapters]
    assert paces[1] > 60 > 50 > max(paces[0], *paces[2:])
    assert sum(paces) / 4 == pytest.approx(50, abs=0.2)


def test_pace_is_left_out_where_there_is_nothing_to_compare() -> None:
    assert [row.pace for row in book(GREY * 30, TALK * 30).chapters] == [None, None]


def test_totals_are_the_sums_of_the_chapters() -> None:
    result = book(GREY * 30, SAD * 20, TALK * 10)
    assert result.words == sum(row.words for row in result.chapters)
    assert result.chapters[0].begins == 0
    assert result.vocabulary.types == len({w for t in (GREY, SAD, TALK) for w in chapter(t).counts})


def test_a_book_needs_a_chapter() -> None:
    with pytest.raises(ValueError, match="at least one chapter"):
        synthesize_book([])


def test_a_book_of_one_short_chapter_is_put_together() -> None:
    result = book("Only these few words are here.")
    assert (result.words, result.arc, result.landmarks, result.cast) == (6, None, [], [])
    assert write_notes(result) == []
    assert {m.name for m in result.measures if not m.applies} == {"tone", "pace"}


def test_measures_that_do_not_apply_say_why() -> None:
    result = synthesize_book([analyze_chapter("Der Mann sah das Haus. " * 300, language="de")] * 3)
    why = {m.name: m.why for m in result.measures if not m.applies}
    assert set(why) == {"tone", "school grade", "watched words", "cast"}
    assert "German" in why["tone"]


def test_chapters_far_outside_the_range_are_named_with_their_numbers() -> None:
    result = book(*[GREY * n for n in (30, 31, 29, 30, 32, 120)])
    assert result.outliers == [6]
    note = next(n for n in write_notes(result) if "Far outside" in n.text)
    assert "Chapter 6, 2,400 words" in note.text
    assert note.numbers["outliers"] == 1


def test_every_number_of_a_note_stands_in_its_sentence(sample: Path) -> None:
    text = sample.read_text(encoding="utf-8")
    result = book(*[text[s.body : s.end] for s in find_chapters(text) if s.kind == "chapter"])
    notes = write_notes(result)
    assert {note.section for note in notes} >= {"chapters", "pace", "dialogue", "arc", "cast", "language"}
    assert all(any(sign.isdigit() for sign in note.text) and note.numbers for note in notes)


def test_a_person_missing_in_the_middle_is_noticed() -> None:
    assert find_longest_absence([3, 0, 1, 0, 0, 0, 2, 0]) == (3, 5)
    assert find_longest_absence([0, 0, 1, 1]) is None


def test_quotations_are_exact_and_short(sample: Path) -> None:
    text = sample.read_text(encoding="utf-8")
    bodies = [text[s.body : s.end] for s in find_chapters(text) if s.kind == "chapter"]
    quotes = [quote for row in book(*bodies).chapters for quote in (row.opening, row.closing) if quote]
    assert len(quotes) == 2 * len(bodies)
    assert find_invented(text, quotes) == []
    assert all(len(quote.text) <= LONGEST for quote in quotes)


def test_an_invented_quotation_is_found_out() -> None:
    quotes = [Excerpt(text="He came."), Excerpt(text="She never said this.")]
    assert find_invented("He came. She left.", quotes) == ["She never said this."]


def test_a_quotation_has_no_mark_whose_partner_is_elsewhere() -> None:
    found = chapter("“We must go. It is late. I quite detest the man.”")
    assert found.opening is not None
    assert found.closing is not None
    assert (found.opening.text, found.closing.text) == ("We must go.", "I quite detest the man.")


def test_statistics_of_short_lists() -> None:
    assert describe([5.0]).median == 5
    assert standardize([2.0, 2.0]) == [0.0, 0.0]
    assert find_outliers([1.0, 100.0]) == []
    assert average([None, 4.0], [10.0, 1.0]) == 4.0
    assert average([None], [1.0]) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n\n ",
        "12345 67890",
        "!!!",
        "\N{BOM}",
        "word " * 3_000,
        "A" * 5_000,
        "猫が好き。" * 500,
        "“" * 300,
        "'" * 300 + "a",
    ],
    ids=["empty", "blank", "digits", "marks", "bom", "no stops", "one word", "japanese", "open quotes", "apostrophes"],
)
def test_any_text_can_be_measured(text: str) -> None:
    result = synthesize_book([analyze_chapter(text)])
    assert result.words == result.chapters[0].words
    write_notes(result)


def test_measuring_time_grows_with_length_not_faster() -> None:
    def took(repeats: int) -> float:
        text = (GREY + SAD + TALK) * repeats
        start = time.process_time()
        chapter(text)
        return time.process_time() - start

    took(50)
    assert took(1600) < 24 * max(took(200), 0.01)
