"""A pipeline that cannot work is refused while it is declared; one that can has a stable graph."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sample_pipelines
from ledger_play import Play
from tree import ROOT

from tasks import ledger
from tasks.engine.call import Call, StepContext, blobs_in, describe_items, digest, encode, fits_in_row
from tasks.pipeline import Blob, Context, Pipeline, PipelineInvalid
from tasks.pipelines import declared, modules


def make() -> Pipeline:
    """A pipeline with one step that returns a list and one that does not."""
    pipeline = Pipeline("made", title="Made for tests")

    @pipeline.step(stage="parsing")
    def parts() -> list[int]:
        return []

    @pipeline.step(stage="parsing")
    def whole() -> int:
        return 1

    return pipeline


def plain() -> int:
    return 1


def of_item(item: int) -> int:
    return item


def untyped(params):  # type: ignore[no-untyped-def]
    return params


def of_stranger(nowhere: int) -> int:
    return nowhere


def whole() -> int:
    return 1


def document() -> int:
    return 1


def Capital() -> int:
    return 1


INVALID: dict[str, tuple[Callable[..., Any], dict[str, Any], str]] = {
    "an unknown queue": (plain, {"queue": "gpu"}, "unknown queue 'gpu'"),
    "an unknown stage": (plain, {"stage": "dreaming"}, "unknown stage 'dreaming'"),
    "a name twice": (whole, {}, "declared twice"),
    "the name of a special parameter": (document, {}, "needs another name"),
    "a name that SQL would not take": (Capital, {}, "needs another name"),
    "a parameter without a type": (untyped, {}, "no type given for params, return"),
    "an input that no step above gives": (of_stranger, {}, "not declared above it: nowhere"),
    "a step to wait for that is not there": (plain, {"after": ("nowhere",)}, "not declared above it: nowhere"),
    "a map over a step that is not there": (of_item, {"map": "nowhere"}, "not declared above it: nowhere"),
    "an item without a map": (of_item, {}, "takes `item` but maps over nothing"),
    "a map without an item": (plain, {"map": "parts"}, "does not take `item`"),
    "a map over what is no list": (of_item, {"map": "whole"}, "does not return a list"),
    "items that may fail without a map": (plain, {"allow_failures": 1}, "maps over nothing"),
    "no attempt": (plain, {"attempts": 0}, "must be positive"),
    "too many attempts": (plain, {"attempts": 101}, "more than 100 attempts"),
    "no time": (plain, {"timeout_s": 0}, "must be positive"),
    "no memory": (plain, {"memory_mb": 0}, "must be positive"),
    "no weight": (plain, {"weight": 0}, "must be positive"),
    "no version": (plain, {"version": 0}, "must be positive"),
}


@pytest.mark.parametrize("case", INVALID)
def test_a_step_is_refused_that_has(case: str) -> None:
    function, options, problem = INVALID[case]
    pipeline = make()
    with pytest.raises(PipelineInvalid, match=f"made.{function.__name__}: ") as caught:
        pipeline.step(**{"stage": "parsing"} | options)(function)
    assert problem in str(caught.value)
    assert list(pipeline.steps) == ["parts", "whole"]


def test_a_map_over_a_step_that_is_mapped_itself_is_refused() -> None:
    pipeline = make()

    @pipeline.step(stage="analyzing", map="parts")
    def lists(item: int) -> list[int]:
        return [item]

    with pytest.raises(PipelineInvalid, match="mapped itself"):
        pipeline.step(stage="analyzing", map="lists")(of_item)


def test_all_problems_of_a_step_are_told_at_once() -> None:
    with pytest.raises(PipelineInvalid, match=r"queue.*stage.*positive"):
        make().step(stage="dreaming", queue="gpu", attempts=0)(plain)


@pytest.mark.parametrize("options", [{"name": "Made Up"}, {"name": ""}, {"version": 0}, {"title": ""}])
def test_a_pipeline_needs_a_name_a_title_and_a_version(options: dict[str, Any]) -> None:
    with pytest.raises(PipelineInvalid):
        Pipeline(**{"name": "made", "title": "Made"} | options)


@pytest.mark.parametrize(
    "options",
    [
        {"name": "whole"},
        {"name": "item"},
        {"after": ()},
        {"after": ("nowhere",)},
        {"stage": "dreaming"},
        {"expires_s": -1},
    ],
)
def test_a_gate_that_cannot_work_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(PipelineInvalid):
        make().gate(**{"name": "approval", "after": ("whole",)} | options)


def test_what_can_be_declared_can_be_published(play: Play) -> None:
    pipeline = make()
    pipeline.gate("approval", after=("whole",))
    pipeline.step(stage="analyzing", map="parts", attempts=100, timeout_s=0.001, weight=0.001)(of_item)
    assert ledger.publish(play.connection, [pipeline], "tests") == ["made"]


# Graphs and digests -----------------------------------------------------------------------------------------


def test_parameters_that_name_steps_make_the_edges() -> None:
    graph = sample_pipelines.fan.graph()
    assert [(step["name"], step["after"], step["map"]) for step in graph["steps"]] == [
        ("spread", [], None),
        ("double", ["spread"], "spread"),
        ("total", ["double"], None),
    ]
    assert [step["takes"] for step in graph["steps"]] == [["params"], ["item", "params"], []]


def test_the_same_declaration_has_the_same_digest_in_every_process() -> None:
    code = "import sample_pipelines as s; print(s.fan.digest(), s.reviewed.digest())"
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PYTHONHASHSEED": "random", "PATH": ""}
    ran = [subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True) for _ in "ab"]
    here = f"{sample_pipelines.fan.digest()} {sample_pipelines.reviewed.digest()}\n"
    assert [run.stdout for run in ran] == [here, here]


@pytest.mark.parametrize("change", [{"version": 2}, {"title": "Another"}, {"accepts": ("txt",)}])
def test_another_declaration_has_another_digest(change: dict[str, Any]) -> None:
    assert Pipeline(**{"name": "made", "title": "Made"} | change).digest() != Pipeline("made", title="Made").digest()


def test_another_step_has_another_digest() -> None:
    digests = set()
    for options in ({}, {"queue": "llm"}, {"version": 2}, {"attempts": 2}, {"after": ("whole",)}, {"weight": 2}):
        pipeline = make()
        pipeline.step(**{"stage": "parsing"} | options)(plain)  # type: ignore[arg-type]
        digests.add(pipeline.digest())
    assert len(digests) == 6


# Finding pipelines ------------------------------------------------------------------------------------------


def test_two_pipelines_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("first_twin", "second_twin"):
        (tmp_path / f"{name}.py").write_text("from tasks.pipeline import Pipeline\nit = Pipeline('twin', title='T')\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    with pytest.raises(PipelineInvalid, match=r"two pipelines named 'twin'.*second_twin"):
        declared(("first_twin", "second_twin"))


def test_a_pipeline_is_found_by_being_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_pipelines").mkdir()
    (tmp_path / "some_pipelines" / "__init__.py").touch()
    for name in ("apple", "pear"):
        source = f"from tasks.pipeline import Pipeline\nit = Pipeline({name!r}, title='T')\nagain = it\n"
        (tmp_path / "some_pipelines" / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert list(declared(("some_pipelines",))) == ["apple", "pear"]
    assert modules(("some_pipelines",)) == ["some_pipelines.apple", "some_pipelines.pear"]


def test_a_pipeline_that_is_only_imported_is_not_declared_again() -> None:
    assert "fan" not in declared(("engine_pipelines",))


# Values ------------------------------------------------------------------------------------------------------


def test_equal_values_have_equal_digests_whatever_their_order() -> None:
    assert digest(encode({"a": 1, "b": [2]})) == digest(encode({"b": [2], "a": 1}))
    assert digest(encode([1, 2])) != digest(encode([2, 1]))


@pytest.mark.parametrize(
    ("text", "fits"),
    [("x" * 8192, True), ("x" * 8193, False), ("é" * 4097, False), (encode("a\0b"), False)],
)
def test_only_small_text_that_jsonb_takes_fits_into_a_row(text: str, fits: bool) -> None:
    assert fits_in_row(text) == fits


def test_items_that_do_not_fit_are_described_by_a_pointer() -> None:
    small, large = describe_items(["s", "l" * 9000])
    assert small["value"] == "s"
    assert large["value"] == {"$blob": {"sha256": digest(encode("l" * 9000)), "bytes": 9002}}


def test_blobs_are_found_wherever_a_value_points_to_them() -> None:
    blob = Blob(sha256="a" * 64, bytes=1).model_dump()
    other = {"sha256": "b" * 64, "bytes": 2}
    assert blobs_in({"x": [1, {"y": blob}], "z": other}) == {"a" * 64, "b" * 64}
    assert blobs_in([{"sha256": "c" * 64}, "text", None]) == set()


def test_a_context_keeps_the_newest_report_and_the_last_of_files_that_share_a_name(tmp_path: Path) -> None:
    call = Call("m", "p", "s", {}, tmp_path, 1, None, False)
    context: Context = StepContext(call)
    context.progress(1, 2, "first")
    context.progress(2, 2, "second" * 1000)
    for content in (b"old", b"new"):
        context.artifact("a.txt", "text/plain", content)
    assert (tmp_path / "progress").read_text().startswith('[2, 2, "second')
    assert len((tmp_path / "progress").read_text()) < 600
    (artifact,) = context.artifacts  # type: ignore[attr-defined]
    assert context.read(Blob(sha256=artifact["sha256"], bytes=3)) == b"new"
