"""What a document is, by fixed rules over what was measured. Each answer carries its rule and its numbers."""

from __future__ import annotations

from pydantic import BaseModel, Field

from tasks.analysis.names import SPEECH
from tasks.analysis.survey import Survey

FEWEST_WORDS = 200
MUCH_TALK = 0.05
SPEAKERS = 3
# Where verbs of speaking are not known, talk alone has to tell, and has to be clearer.
CLEARLY_MUCH = 0.15
CLEARLY_LITTLE = 0.02

# Least words of each class. Those of stories are the limits that prizes for fiction use.
_STORIES = ((40_000, "novel"), (17_500, "novella"), (7_500, "novelette"), (1_000, "short story"), (0, "flash fiction"))
_OTHERS = ((40_000, "book"), (10_000, "long paper"), (2_000, "paper"), (500, "article"), (0, "note"))
_EASES = ((80, "very easy"), (60, "plain"), (50, "fairly difficult"), (30, "difficult"), (-1_000, "very difficult"))


class Category(BaseModel):
    """One way to sort documents, and where this one belongs."""

    name: str
    value: str
    because: str = Field(description="The numbers of this document.")
    rule: str = Field(description="How numbers become the value, for every document.")


def categorise(found: Survey) -> list[Category]:
    """Every category that can be told. The same survey gives the same answers."""
    form = _tell_form(found)
    ease = _tell_ease(found)
    return [form, _tell_length(found, form.value), *([ease] if ease else [])]


def _tell_form(found: Survey) -> Category:
    talk = found.dialogue_share or 0.0
    known = found.language in SPEECH
    told = f"{talk:.0%} of the words are in quotation marks"
    if known:
        rule = (
            f"fiction: {MUCH_TALK:.0%} or more of the words in quotation marks, and {SPEAKERS} or more times a name "
            f"beside a verb of speaking. non-fiction: less than both. unclear: anything else, and texts of fewer than "
            f"{FEWEST_WORDS} words."
        )
        told += f"; {found.speakers} times a name stands beside a verb of speaking"
        value = _form_by_speakers(talk, found.speakers)
    else:
        rule = (
            f"fiction: {CLEARLY_MUCH:.0%} or more of the words in quotation marks. non-fiction: less than "
            f"{CLEARLY_LITTLE:.0%}. unclear: anything else, texts of fewer than {FEWEST_WORDS} words, and languages "
            "that are not known here."
        )
        value = _form_by_talk(talk)
    if found.words < FEWEST_WORDS or found.language == "other":
        value = "unclear"
    return Category(name="form", value=value, because=f"{told}; {found.words:,} words.", rule=rule)


def _form_by_speakers(talk: float, speakers: int) -> str:
    if talk >= MUCH_TALK and speakers >= SPEAKERS:
        return "fiction"
    return "non-fiction" if talk < MUCH_TALK and speakers < SPEAKERS else "unclear"


def _form_by_talk(talk: float) -> str:
    if talk >= CLEARLY_MUCH:
        return "fiction"
    return "non-fiction" if talk < CLEARLY_LITTLE else "unclear"


def _tell_length(found: Survey, form: str) -> Category:
    classes = _STORIES if form == "fiction" else _OTHERS
    value = next(name for least, name in classes if found.words >= least)
    rule = ", ".join(f"{name} from {least:,} words" for least, name in reversed(classes))
    of = "Of fiction" if form == "fiction" else "Of all but fiction"
    return Category(name="length", value=value, because=f"{found.words:,} words.", rule=f"{of}: {rule}.")


def _tell_ease(found: Survey) -> Category | None:
    if found.ease is None:
        return None
    value = next(name for least, name in _EASES if found.ease >= least)
    rule = ", ".join(f"{name} from {least}" for least, name in _EASES[:-1])
    because = f"Reading ease {found.ease:.0f} ({found.ease_formula}; higher is easier)."
    return Category(name="reading", value=value, because=because, rule=f"{rule}, and {_EASES[-1][1]} below.")
