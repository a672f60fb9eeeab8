"""The arithmetic of the benchmarks. What they measure is asserted nowhere: see tests/bench."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from bench.entries import read_entries
from bench.figures import Target, align, describe, describe_verdicts, judge, quantile, ratios, show
from bench.plot import draw

MEASURED = {"jobs/s": {"ours": [1000.0, 900.0, 1200.0], "peer": [500.0, 300.0, 300.0]}}


def test_ratios_are_taken_round_by_round() -> None:
    assert ratios([1000, 900], [500, 300]) == [2, 3]
    with pytest.raises(ValueError):
        ratios([1000], [500, 300])


def test_a_verdict_is_the_median_of_the_ratios_with_their_spread() -> None:
    verdict = judge(Target("jobs/s", "ours", "peer", least=3), MEASURED)
    assert verdict is not None
    assert (verdict.middle, verdict.low, verdict.high, verdict.met) == (3, 2, 4, True)


@pytest.mark.parametrize(("target", "met"), [
    (Target("jobs/s", "ours", "peer", least=3.1), False),
    (Target("jobs/s", "peer", "ours", most=0.5), True),
    (Target("jobs/s", "ours", None, least=1000), True),
    (Target("jobs/s", "ours", None, most=999), False),
])  # fmt: skip
def test_targets_bound_a_ratio_or_a_measure(target: Target, met: bool) -> None:
    verdict = judge(target, MEASURED)
    assert verdict is not None
    assert verdict.met is met


def test_what_was_not_measured_is_not_judged() -> None:
    assert judge(Target("jobs/s", "ours", "absent", least=1), MEASURED) is None
    assert judge(Target("ms", "ours", None, most=1), MEASURED) is None


def test_quantiles_are_values_that_were_measured() -> None:
    values = [float(number) for number in range(1, 101)]
    assert [quantile(values, share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]
    assert quantile([7.0], 0.99) == 7


def test_the_table_shows_median_and_spread_of_everybody() -> None:
    assert describe(MEASURED, {"ours": "Ledgerline"}) == [
        "measure  who         median  least  most",
        "jobs/s   Ledgerline   1,000    900  1,200",
        "jobs/s   peer           300    300    500",
    ]


def test_the_verdicts_say_met_or_not() -> None:
    verdicts = [judge(Target("jobs/s", "ours", "peer", least=least), MEASURED) for least in (3, 4)]
    lines = describe_verdicts([verdict for verdict in verdicts if verdict], {"peer": "A peer"})
    assert [line.split("  ")[-1].strip() for line in lines[1:]] == ["met", "NOT MET"]
    assert ">= 3" in lines[1]
    assert "A peer" in lines[1]


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert align([("a", "n"), ("long", "12"), ("b", "3")]) == ["a     n", "long  12", "b      3"]


@pytest.mark.parametrize(("value", "shown"), [(12345.6, "12,346"), (45.67, "45.7"), (1.234, "1.23")])
def test_numbers_have_as_many_digits_as_mean_something(value: float, shown: str) -> None:
    assert show(value) == shown


def test_the_picture_has_a_bar_for_everybody() -> None:
    picture = ElementTree.fromstring(draw({"one": ("Rates & more", MEASURED)}, {"ours": "Ledgerline"}))
    tag = "{http://www.w3.org/2000/svg}"
    assert len(picture.findall(f"{tag}rect")) == 1 + 2
    assert "Ledgerline" in [text.text for text in picture.findall(f"{tag}text")]


def test_only_the_first_entry_of_a_job_counts(tmp_path: Path) -> None:
    log = tmp_path / "entries"
    log.write_text("a 5\nb 7\na 9\n")
    assert read_entries(log) == {"a": 5, "b": 7}
    assert read_entries(tmp_path / "none") == {}
