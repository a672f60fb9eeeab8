"""What stands where readers of story structure look: at set percentages of the text. Positions, not judgements."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel

from tasks.analysis.arc import Arc, find_chapter
from tasks.analysis.model import ChapterAnalysis

PLACES = (
    (12, "something upsets the opening situation"),
    (25, "the main character commits to the story"),
    (50, "the middle turns: a reversal or a revelation"),
    (75, "the low point, or the last setback"),
    (90, "the climax"),
)
WINDOW = 5  # percent to either side, for the change of tone


class Landmark(BaseModel):
    """A place in the text and what was measured there."""

    percent: int
    looked_for: str
    chapter: int
    tone: float | None
    change: float | None
    pace: float | None


def place_landmarks(
    chapters: Sequence[ChapterAnalysis], arc: Arc | None, pace: Sequence[float | None]
) -> list[Landmark]:
    """The chapter at each place, with the tone there, how it changes around it, and the chapter's pace."""
    if len(chapters) < 3:
        return []
    landmarks = []
    for percent, looked_for in PLACES:
        chapter = find_chapter(chapters, percent)
        landmarks.append(
            Landmark(
                percent=percent,
                looked_for=looked_for,
                chapter=chapter,
                tone=round(arc.points[percent], 3) if arc else None,
                change=round(arc.points[percent + WINDOW] - arc.points[percent - WINDOW], 3) if arc else None,
                pace=pace[chapter - 1],
            )
        )
    return landmarks
