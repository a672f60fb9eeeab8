"""Taking a text apart: words, sentences, paragraphs, speech, syllables, language."""

from __future__ import annotations

import pytest

from tasks.analysis.dialogue import find_speech, find_style, measure_dialogue
from tasks.analysis.languages import guess_language
from tasks.analysis.readability import count_syllables, measure_readability
from tasks.analysis.vocabulary import find_phrases, measure_mtld
from tasks.analysis.words import Prose, count_words

PLAIN = "The cat sat on the mat and looked at the rain. "


@pytest.mark.parametrize(
    ("text", "words"),
    [("", 0), ("don't stop", 2), ("well-known fact", 2), ("1984 was cold", 2), ("L’été à Paris", 3), ("猫が好き", 4)],
)
def test_words_are_runs_of_letters(text: str, words: int) -> None:
    assert count_words(text) == words


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("He came. She left.", ["He came.", "She left."]),
        ("Mr. Darcy met Dr. Grant at St. James. They spoke.", ["Mr. Darcy met Dr. Grant at St. James.", "They spoke."]),
        ('"Yes!" he said. "No."', ['"Yes!" he said.', '"No."']),
        ("“Is it?” asked J. R. Hartley.", ["“Is it?” asked J. R. Hartley."]),
        ("She waited… and then it was I. It was late.", ["She waited… and then it was I.", "It was late."]),
        ("Not yet ended", ["Not yet ended"]),
        ("彼は来た。彼女は行った。", ["彼は来た。", "彼女は行った。"]),
    ],
)
def test_sentences_end_where_a_reader_ends_them(text: str, sentences: list[str]) -> None:
    prose = Prose(text)
    assert [text[s.start : s.end] for s in prose.sentences] == sentences


def test_paragraphs_are_parted_by_blank_lines_or_else_by_lines() -> None:
    assert len(Prose("One line\nwrapped.\n\nAnother.").paragraphs) == 2
    assert len(Prose("One line.\nAnother.\nA third.").paragraphs) == 3


def test_an_endless_sentence_is_cut_so_that_it_stays_measurable() -> None:
    prose = Prose("word " * 1_000)
    assert [len(s.words) for s in prose.sentences] == [400, 400, 200]


@pytest.mark.parametrize(
    ("style", "text", "spoken"),
    [
        ("straight", '"One two three," he said.', "One two three,"),
        ("curly", "“One two,” he said. “Three.”", "One two,Three."),
        ("straight single", "'One, don't you,' he said. The boys' hats.", "One, don't you,"),
        ("curly single", "‘One, don’t you,’ he said.", "One, don’t you,"),
        ("guillemets", "« Un deux », dit-il.", " Un deux "),
        ("reversed", "»Eins zwei«, sagte er.", "Eins zwei"),
        ("low", "„Eins zwei“, sagte er.", "Eins zwei"),
        ("dash", "— Un deux, dit-il.", "Un deux, dit-il."),
    ],
)
def test_speech_is_found_in_every_style_of_marks(style: str, text: str, spoken: str) -> None:
    assert "".join(text[a:b] for a, b in find_speech(text, style)) == spoken
    told = text + "\n\n" + text + "\n\nHe went away and nobody saw him go."
    assert find_style(Prose(told)) == style


def test_a_quotation_that_goes_on_in_the_next_paragraph_is_counted() -> None:
    prose = Prose("“One two three.\n\n“Four five.” He was silent now.")
    assert measure_dialogue(prose, "curly") == pytest.approx(5 / 9)


def test_a_text_without_marks_has_no_share_of_dialogue() -> None:
    prose = Prose(PLAIN * 10)
    assert find_style(prose) is None
    assert measure_dialogue(prose, None) is None


@pytest.mark.parametrize(
    ("word", "language", "syllables"),
    [("cat", "en", 1), ("table", "en", 2), ("rate", "en", 1), ("walked", "en", 1), ("wanted", "en", 2),
     ("idea", "en", 2), ("unbelievable", "en", 5), ("hm", "en", 1),
     ("schmetterling", "de", 3), ("bonjour", "fr", 2), ("casa", "es", 2)],
)  # fmt: skip
def test_syllables_are_counted_by_groups_of_vowels(word: str, language: str, syllables: int) -> None:
    assert count_syllables(word, language) == syllables


def test_reading_ease_follows_its_formula() -> None:
    # Eleven words of one syllable and no other: 206.835 - 1.015 * 11 - 84.6.
    result = measure_readability(Prose(PLAIN * 20), "en")
    assert result.ease == pytest.approx(206.835 - 1.015 * 11 - 84.6, abs=0.1)
    assert result.grade == pytest.approx(0.39 * 11 + 11.8 - 15.59, abs=0.1)
    assert result.formula == "Flesch"


def test_readability_is_left_out_where_it_does_not_apply() -> None:
    assert measure_readability(Prose(PLAIN), "en").ease is None
    assert measure_readability(Prose(PLAIN * 20), "other").ease is None
    german = measure_readability(Prose("Der Mann ging durch die Stadt und sah den Regen fallen. " * 20), "de")
    assert german.ease is not None
    assert german.grade is None


def test_variety_is_higher_for_more_varied_words_and_does_not_shrink_with_length() -> None:
    poor = ["the", "cat", "sat"] * 100
    rich = [f"word{n}" for n in range(300)]
    mixed = [f"word{n % 150}" for n in range(600)]
    assert (measure_mtld(poor) or 0) < 10 < (measure_mtld(mixed) or 0) < (measure_mtld(rich) or 0)
    assert measure_mtld(mixed * 4) == pytest.approx(measure_mtld(mixed * 2), rel=0.1)
    assert measure_mtld(rich[:50]) is None


def test_repeated_phrases_are_runs_within_sentences_that_say_something() -> None:
    sentences = [
        ["her", "heart", "skipped", "a", "beat"],
        ["her", "heart", "skipped", "a", "beat"],
        ["it", "was", "in", "the"],
    ]
    assert find_phrases(sentences * 2, "en") == {"her heart skipped a": 4, "heart skipped a beat": 4}


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("He was in the house and she had gone to the river with him as they said.", "en"),
        ("Er war nicht in dem Haus und sie hatte sich auf den Weg gemacht, so wie ich.", "de"),
        ("Il était dans la maison et elle ne se levait pas pour lui, que les autres.", "fr"),
        ("Él no estaba en la casa y ella se fue con los otros que era para el río.", "es"),
        ("Lui non era in casa e lei si alzò per dire che la vita era come un sogno.", "it"),
        ("Kissa istui ikkunalla ja katseli sadetta", "other"),
        ("", "other"),
    ],
)
def test_the_language_is_guessed_from_its_commonest_words(text: str, language: str) -> None:
    assert guess_language(text) == language
