"""Small statistics, for lists that may be short."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median, pstdev, quantiles

from pydantic import BaseModel


class Distribution(BaseModel):
    """Five numbers, the mean and the standard deviation."""

    least: float
    lower: float
    median: float
    upper: float
    most: float
    mean: float
    spread: float


def describe(values: Sequence[float]) -> Distribution:
    """The distribution of one or more values."""
    lower, _, upper = quantiles(values, n=4, method="inclusive") if len(values) > 1 else (values[0],) * 3
    return Distribution(
        least=round(min(values), 2),
        lower=round(lower, 2),
        median=round(median(values), 2),
        upper=round(upper, 2),
        most=round(max(values), 2),
        mean=round(fmean(values), 2),
        spread=round(pstdev(values), 2),
    )


def find_outliers(values: Sequence[float]) -> list[int]:
    """Indexes of values far outside the middle half (1.5 times its width); needs five values or more."""
    if len(values) < 5:
        return []
    told = describe(values)
    reach = 1.5 * (told.upper - told.lower)
    return [i for i, value in enumerate(values) if not told.lower - reach <= value <= told.upper + reach]


def standardize(values: Sequence[float]) -> list[float]:
    """Distances from the mean in standard deviations; zeros when all values are alike."""
    mean, spread = fmean(values), pstdev(values)
    return [(value - mean) / spread if spread > 1e-9 else 0.0 for value in values]


def average(values: Sequence[float | None], weights: Sequence[float]) -> float | None:
    """The weighted mean of the values that are there; None when none is."""
    pairs = [(v, w) for v, w in zip(values, weights, strict=True) if v is not None]
    total = sum(w for _, w in pairs)
    return sum(v * w for v, w in pairs) / total if total else None
