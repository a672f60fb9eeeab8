"""The tone of a book from beginning to end, smoothed, and where it turns."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from pydantic import BaseModel, Field

from tasks.analysis.model import ChapterAnalysis
from tasks.analysis.sentiment import WINDOWS

POINTS = 101
SMOOTHING = 6  # percent to either side
PROMINENCE = 0.25  # of the curve's range: smaller ups and downs are not turns
EDGE = 4  # percent at either end, where the smoothing has little to go by
FEWEST_WORDS = 3_000


class Turn(BaseModel):
    """A high or low point of the smoothed curve."""

    percent: int
    kind: str = Field(description="high or low")
    tone: float
    chapter: int = Field(description="Position of the chapter it lies in, from 1.")


class Arc(BaseModel):
    """Tone at each percent of the text, -1 to 1."""

    points: list[float]
    turns: list[Turn]
    mean: float
    low: float
    high: float


def trace_arc(chapters: Sequence[ChapterAnalysis]) -> Arc | None:
    """The arc over all chapters whose tone was measured; None for a short text or another language."""
    total = sum(chapter.words for chapter in chapters)
    samples = _sample(chapters)
    if total < FEWEST_WORDS or len(samples) < WINDOWS:
        return None
    points = smooth_curve(samples, POINTS, SMOOTHING)
    return Arc(
        points=[round(point, 4) for point in points],
        turns=[
            Turn(percent=i, kind=kind, tone=round(points[i], 3), chapter=find_chapter(chapters, i))
            for i, kind in find_turns(points)
            if EDGE <= i <= 100 - EDGE
        ],
        mean=round(fmean(points), 3),
        low=round(min(points), 3),
        high=round(max(points), 3),
    )


def _sample(chapters: Sequence[ChapterAnalysis]) -> list[tuple[float, float, int]]:
    """(position in percent, tone, words) of each window of each measured chapter."""
    total, passed = sum(chapter.words for chapter in chapters) or 1, 0
    samples = []
    for chapter in chapters:
        for i, tone in enumerate(chapter.sentiment or []):
            middle = passed + chapter.words * (i + 0.5) / WINDOWS
            samples.append((100 * middle / total, tone, max(1, chapter.words // WINDOWS)))
        passed += chapter.words
    return samples


def smooth_curve(samples: Sequence[tuple[float, float, int]], points: int, width: float) -> list[float]:
    """Weighted means of the samples around each of `points` even positions; nearer ones weigh more."""
    curve: list[float] = []
    first = 0
    for i in range(points):
        at = 100 * i / (points - 1)
        while first < len(samples) and samples[first][0] < at - width:
            first += 1
        total = weight = 0.0
        for position, value, words in samples[first:]:
            if position > at + width:
                break
            near = words * (1 - abs(position - at) / width)
            total, weight = total + near * value, weight + near
        curve.append(total / weight if weight else (curve[-1] if curve else samples[0][1]))
    return curve


def find_turns(points: Sequence[float]) -> list[tuple[int, str]]:
    """Highs and lows that differ from their neighbours by PROMINENCE of the range, alternating."""
    least = PROMINENCE * (max(points) - min(points))
    if least < 1e-6:
        return []
    turns: list[tuple[int, str]] = []
    low = high = 0
    rising: bool | None = None
    for i, value in enumerate(points):
        low, high = (i if value < points[low] else low), (i if value > points[high] else high)
        if rising is not True and value - points[low] >= least:
            turns += [(low, "low")] if low else []
            rising, high = True, i
        elif rising is not False and points[high] - value >= least:
            turns += [(high, "high")] if high else []
            rising, low = False, i
        if rising is True and value >= points[high]:
            high, low = i, i
        elif rising is False and value <= points[low]:
            low, high = i, i
    return turns


def find_chapter(chapters: Sequence[ChapterAnalysis], percent: float) -> int:
    """Position, from 1, of the chapter that holds a percentage of all words."""
    total, passed = sum(chapter.words for chapter in chapters), 0
    for position, chapter in enumerate(chapters, 1):
        passed += chapter.words
        if passed >= total * percent / 100:
            return position
    return len(chapters)
