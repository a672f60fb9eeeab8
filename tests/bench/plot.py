"""The measured rates as a picture: a bar for each median, a line for the spread."""

from __future__ import annotations

from html import escape
from statistics import median

from bench.figures import Measured, show

WIDTH, LABEL, ROW = 860, 330, 22
BAR = WIDTH - LABEL - 90


def draw(scenarios: dict[str, tuple[str, Measured]], titles: dict[str, str]) -> str:
    """An SVG. `scenarios`: name → (title, what was measured)."""
    lines: list[str] = []
    top = 30
    for title, measured in scenarios.values():
        top = _draw_scenario(lines, top, title, measured, titles)
    size = f'width="{WIDTH}" height="{top}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    return "\n".join([head, f'<rect {size} fill="white"/>', *lines, "</svg>\n"])


def _draw_scenario(lines: list[str], top: int, title: str, measured: Measured, titles: dict[str, str]) -> int:
    lines.append(f'<text x="10" y="{top}" font-size="15" font-weight="bold">{escape(title)}</text>')
    for measure, by_name in measured.items():
        top += ROW + 6
        lines.append(f'<text x="10" y="{top}" fill="#555">{escape(measure)}</text>')
        scale = BAR / max(max(max(values) for values in by_name.values()), 1e-9)
        for name, values in by_name.items():
            top += ROW
            lines += _draw_bar(top, titles.get(name, name), values, scale, first=name == next(iter(by_name)))
    return top + 2 * ROW


def _draw_bar(top: int, label: str, values: list[float], scale: float, *, first: bool) -> list[str]:
    middle, low, high = (scale * value for value in (median(values), min(values), max(values)))
    y = top - 11
    return [
        f'<text x="{LABEL - 8}" y="{top}" text-anchor="end">{escape(label)}</text>',
        f'<rect x="{LABEL}" y="{y}" width="{middle:.1f}" height="14" fill="{"#2b6cb0" if first else "#b0bac5"}"/>',
        f'<path d="M{LABEL + low:.1f} {y + 7}H{LABEL + high:.1f}" stroke="#222"/>',
        f'<text x="{LABEL + high + 6:.1f}" y="{top}">{show(median(values))}</text>',
    ]
