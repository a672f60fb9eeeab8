"""Small charts made of characters, for Markdown."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

_STEPS = "▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def draw_line(values: Sequence[float], width: int = 60) -> str:
    """Values as a row of blocks, lowest to highest, at most `width` of them. Neighbours are averaged."""
    if not values:
        return ""
    points = shrink(values, width)
    low, high = min(points), max(points)
    scale = (len(_STEPS) - 1) / (high - low) if high > low else 0
    return "".join(_STEPS[round((point - low) * scale)] for point in points)


def draw_presence(counts: Sequence[int], width: int = 40) -> str:
    """Where counts are not zero: a dot where there is none, higher blocks for more."""
    points = shrink([float(count) for count in counts], width)
    most = max(points, default=0.0) or 1.0
    return "".join("·" if point == 0 else _STEPS[min(7, int(7 * point / most))] for point in points)


def draw_bar(value: float, most: float, width: int = 12) -> str:
    """A bar of up to `width` full blocks."""
    eighths = round(8 * width * value / most) if most else 0
    return (_EIGHTHS[8] * (eighths // 8) + _EIGHTHS[eighths % 8]).strip() or _EIGHTHS[1]


def shrink(values: Sequence[float], width: int) -> list[float]:
    """At most `width` values: the means of even stretches."""
    if len(values) <= width:
        return list(values)
    edges = [round(i * len(values) / width) for i in range(width + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
