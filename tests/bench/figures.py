"""The arithmetic of the benchmarks: ratios round by round, medians, spreads, and the table that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Target:
    """What is promised: a measure of ours against the same of another, or against a number.

    `least`: the ratio (ours / other) must be at least this. `most`: it must not be above this. Without `other`, the
    measure itself must hold.
    """

    measure: str
    ours: str
    other: str | None
    least: float | None = None
    most: float | None = None

    def met_by(self, value: float) -> bool:
        """Whether a value keeps the promise."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        return f">= {self.least:g}" if self.least is not None else f"<= {self.most:g}"


@dataclass(frozen=True)
class Verdict:
    """A target and what was measured: the median over the rounds, and the least and the most of them."""

    target: Target
    middle: float
    low: float
    high: float

    @property
    def met(self) -> bool:
        """Whether the median keeps the promise."""
        return self.target.met_by(self.middle)


Measured = dict[str, dict[str, list[float]]]
"""measure → who → one value per round."""


def ratios(ours: Sequence[float], others: Sequence[float]) -> list[float]:
    """Round by round: what slowed one of them down in a round, slowed the other too."""
    return [mine / theirs for mine, theirs in zip(ours, others, strict=True)]


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    rank = -(-share * len(ordered) // 1)
    return ordered[max(0, int(rank) - 1)]


def judge(target: Target, measured: Measured) -> Verdict | None:
    """Compare; None when one of the two was not measured."""
    values = measured.get(target.measure, {})
    if target.ours not in values or (target.other is not None and target.other not in values):
        return None
    found = ratios(values[target.ours], values[target.other]) if target.other else values[target.ours]
    return Verdict(target, median(found), min(found), max(found))


def describe(measured: Measured, titles: dict[str, str]) -> list[str]:
    """A table: each measure of each contender as median and spread."""
    rows = [("measure", "who", "median", "least", "most")]
    for measure, by_name in measured.items():
        for name, values in by_name.items():
            cells = (median(values), min(values), max(values))
            rows.append((measure, titles.get(name, name), *(show(cell) for cell in cells)))
    return align(rows)


def describe_verdicts(verdicts: Sequence[Verdict], titles: dict[str, str]) -> list[str]:
    """A table: each promise, what was measured, and whether it holds."""
    rows = [("target", "against", "wanted", "median", "least", "most", "")]
    for verdict in verdicts:
        target = verdict.target
        against = titles.get(target.other, target.other) if target.other else "itself"
        cells = (verdict.middle, verdict.low, verdict.high)
        said = "met" if verdict.met else "NOT MET"
        rows.append((f"{target.measure} of {target.ours}", against, str(target), *(f"{c:.2f}" for c in cells), said))
    return align(rows)


def align(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns as wide as their widest cell; numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(_pad(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def show(value: float) -> str:
    """A number with as many digits as mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _pad(cell: str, width: int) -> str:
    return cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width)
