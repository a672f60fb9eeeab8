"""Tone and pace over the length of the book, as one SVG."""

from __future__ import annotations

from tasks.analysis.book import Synthesis
from tasks.exports.escape import escape_svg
from tasks.exports.report import ManuscriptReport

WIDTH, HEIGHT = 960, 440
LEFT, RIGHT = 60, 940
TONE_TOP, TONE_BOTTOM = 60, 220
PACE_TOP, PACE_BOTTOM = 270, 400
MOST_LABELS = 40
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#333}.small{font-size:10px;fill:#777}.axis{stroke:#999;stroke-width:1}"
    ".grid{stroke:#ddd;stroke-width:1}.tone{fill:none;stroke:#2a5db0;stroke-width:2}.turn{fill:#2a5db0}"
    ".pace{fill:#b8863b}"
)


def write_svg(report: ManuscriptReport) -> bytes:
    """A standalone picture, UTF-8. It draws what there is: no tone for other languages, no pace for two chapters."""
    book = report.book
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="t">',
        f'<title id="t">{escape_svg(report.title)}: tone and pace</title>',
        f'<style>{STYLE}</style><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="28" font-weight="bold">{escape_svg(report.title)[:100]}</text>',
        *_draw_borders(book),
        *_draw_tone(book),
        *_draw_pace(book),
        "</svg>",
    ]
    return "\n".join(parts).encode()


def _x(percent: float) -> float:
    return round(LEFT + (RIGHT - LEFT) * percent / 100, 1)


def _draw_borders(book: Synthesis) -> list[str]:
    """A faint line where each chapter begins, with its number where there is room."""
    lines = []
    labelled = len(book.chapters) <= MOST_LABELS
    for row in book.chapters:
        x = _x(row.begins)
        lines.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{TONE_TOP}" y2="{PACE_BOTTOM}"/>')
        if labelled:
            lines.append(f'<text class="small" x="{x + 2}" y="{PACE_BOTTOM + 14}">{row.position}</text>')
    return lines


def _draw_tone(book: Synthesis) -> list[str]:
    if not book.arc:
        return [f'<text x="{LEFT}" y="{TONE_TOP + 30}" class="small">Tone was not measured.</text>']
    low, high = min(book.arc.low, 0.0), max(book.arc.high, 0.0)
    scale = (TONE_BOTTOM - TONE_TOP) / (high - low or 1.0)
    points = [(_x(i), round(TONE_BOTTOM - (v - low) * scale, 1)) for i, v in enumerate(book.arc.points)]
    zero = round(TONE_BOTTOM + low * scale, 1)
    line = " ".join(f"{x},{y}" for x, y in points)
    dots = [
        f'<circle class="turn" cx="{points[t.percent][0]}" cy="{points[t.percent][1]}" r="4"/>' for t in book.arc.turns
    ]
    return [
        f'<text x="{LEFT}" y="{TONE_TOP - 8}" class="small">Tone, smoothed ({low:+.2f} to {high:+.2f})</text>',
        f'<line class="axis" x1="{LEFT}" x2="{RIGHT}" y1="{zero}" y2="{zero}"/>',
        f'<polyline class="tone" points="{line}"/>',
        *dots,
    ]


def _draw_pace(book: Synthesis) -> list[str]:
    """A bar for each chapter from the average, as wide as the chapter is long."""
    middle = (PACE_TOP + PACE_BOTTOM) / 2
    bars = [f'<text x="{LEFT}" y="{PACE_TOP - 8}" class="small">Pace by chapter (above the line: faster)</text>']
    ends = [*(row.begins for row in book.chapters[1:]), 100.0]
    for row, end in zip(book.chapters, ends, strict=True):
        if row.pace is None:
            continue
        height = round(min(30.0, abs(row.pace - 50)) / 30 * (PACE_BOTTOM - PACE_TOP) / 2, 1)
        top = middle - height if row.pace >= 50 else middle
        x, width = _x(row.begins), max(0.6, round(_x(end) - _x(row.begins) - 1, 1))
        bars.append(
            f'<rect class="pace" x="{x}" y="{top}" width="{width}" height="{height}">'
            f"<title>{escape_svg(row.title)}: {row.pace:.0f}</title></rect>"
        )
    return [*bars, f'<line class="axis" x1="{LEFT}" x2="{RIGHT}" y1="{middle}" y2="{middle}"/>']
