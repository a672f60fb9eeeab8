"""Which measures apply to a text, and why some do not."""

from __future__ import annotations

from pydantic import BaseModel

from tasks.analysis.languages import EASE, NAMES


class Measure(BaseModel):
    """Whether a measure applies to this text, and why not."""

    name: str
    applies: bool
    why: str


def list_measures(language: str, words: int, has_arc: bool, chapters: int) -> list[Measure]:
    """Every measure that is made for some texts only."""
    name = NAMES.get(language, NAMES["other"])
    english = f"The lexicon is made for English; this text is in {name}."
    return [
        _say("tone", has_arc, english if language != "en" else f"{words:,} words are too few for a curve."),
        _say("reading ease", language in EASE, f"There is no formula here for {name}."),
        _say("school grade", language == "en", f"The grade formula is made for English; this text is in {name}."),
        _say("watched words", language == "en", f"The word lists are made for English; this text is in {name}."),
        _say("cast", language != "de", "In German every noun has a capital, so names cannot be told from nouns."),
        _say("pace", chapters >= 3, f"Pace compares chapters with each other; there are {chapters}."),
    ]


def _say(name: str, applies: bool, why: str) -> Measure:
    return Measure(name=name, applies=applies, why="" if applies else why)
