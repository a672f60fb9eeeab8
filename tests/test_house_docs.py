"""What the documents repeat from the code is what the code says."""

from __future__ import annotations

import re
import sys
import types
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import PydanticUndefined
from tree import ROOT, project, read, tracked, under

from tasks.pipeline import SPECIAL, Blob, Pipeline, Source
from tasks.settings import Settings

PAGES = [name for name in tracked() if name.endswith(".md")]
ARROW = re.compile(r"^ +(\S+) --> (\S+?)(?::|$)", re.MULTILINE)


# Settings ------------------------------------------------------------------------------------------


def test_every_setting_is_documented_as_it_is() -> None:
    expected = {name.upper(): (_default(field.default), field.description) for name, field in _settings()}
    rows = re.findall(r"^\| `([A-Z_]+)` \| (.+?) \| (.+) \|$", read("docs/settings.md"), re.MULTILINE)
    assert {name: (default, meaning) for name, default, meaning in rows} == expected
    assert len(rows) == len(expected)


def test_the_example_environment_sets_only_what_is_a_setting() -> None:
    names = re.findall(r"^([A-Z_]+)=", read(".env.example"), re.MULTILINE)
    assert names
    assert set(names) <= {name.upper() for name, _ in _settings()}


def _settings() -> list[tuple[str, Any]]:
    return list(Settings.model_fields.items())


def _default(value: object) -> str:
    if value is PydanticUndefined:
        return "required"
    return "none" if value is None else f"`{value}`"


# States --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "table"),
    [("Job", "jobs"), ("Step run", "job_steps"), ("Review", "reviews"), ("Delivery", "webhook_deliveries")],
)
def test_the_diagrams_show_the_states_and_arrows_of_the_tables(title: str, table: str) -> None:
    states = _states(table)
    arrows = set(ARROW.findall(_diagram(title)))
    assert {state for arrow in arrows for state in arrow} - {"[*]"} == set(states)
    missing = {(start, end) for comment in states.values() for start, end in _arrows(comment, states)} - arrows
    assert missing == set()


@pytest.mark.parametrize("title", ["Job", "Step run", "Review", "Delivery"])
def test_every_state_can_be_reached_and_left(title: str) -> None:
    arrows = set(ARROW.findall(_diagram(title)))
    states = {state for arrow in arrows for state in arrow} - {"[*]"}
    assert {end for _, end in arrows} >= states
    assert {start for start, _ in arrows} >= states


def _states(table: str) -> dict[str, str]:
    """The words that a table's status may be, each with the comment beside it."""
    migrations = "".join(read(name) for name in under("supabase/migrations", suffix=".sql"))
    assert not re.search(rf"alter table public\.{table}\b[^;]*check \(status", migrations), "read the newer check too"
    block = re.search(
        rf"create table public\.{table} \(.*?\bstatus text[^\n]*status in \((.*?)\n  \)\)", migrations, re.S
    )
    assert block is not None
    return dict(re.findall(r"'(\w+)',? *-- (.+)", block[1]))


def _arrows(comment: str, states: dict[str, str]) -> set[tuple[str, str]]:
    """`a, b -> c` in a comment as arrows; the left sides are states, other words are prose."""
    found = set()
    for left, end in re.findall(r"((?:\w+, )*\w+) -> (\w+)", comment):
        found |= {(start, end) for start in left.split(", ") if start in states and end in states}
    return found


def _diagram(title: str) -> str:
    block = re.search(rf"^## {title}\n+```mermaid\n(.*?)```", read("docs/states.md"), re.MULTILINE | re.DOTALL)
    assert block is not None
    return block[1]


# Commands ------------------------------------------------------------------------------------------


def test_every_command_that_a_page_names_exists() -> None:
    known = set(import_module("tasks.command.program").COMMANDS)
    named = {
        (page, word)
        for page in PAGES
        for word in re.findall(r"(?:`|^ {4}|\.venv/bin/)ledgerline ([a-z]+)", read(page), re.M)
    }
    assert {word for _, word in named} >= {"up", "migrate", "worker", "doctor", "explain"}
    assert [(page, word) for page, word in sorted(named) if word not in known] == []


def test_every_make_target_that_a_page_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", read("Makefile"), re.MULTILINE))
    named = {word for page in PAGES for word in re.findall(r"(?:`|^ {4})make ([a-z-]+)", read(page), re.MULTILINE)}
    assert {"run", "test"} <= named
    assert named - targets == set()


def test_the_readme_opens_with_the_two_commands() -> None:
    start = read("README.md")[:1500]
    assert 0 < start.index("make run") < start.index("make test")


# Links and pages -----------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    text = re.sub(r"```.*?```", "", read(page), flags=re.DOTALL)
    targets = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    files = {target: (ROOT / page).parent / target.split("#")[0] for target in targets if not target.startswith("#")}
    assert [target for target, path in files.items() if not path.exists()] == []
    anchors = {target: files.get(target, ROOT / page) for target in targets if "#" in target}
    assert [target for target, path in anchors.items() if target.split("#")[1] not in _anchors(path)] == []


def test_the_list_of_decisions_is_complete_and_in_order() -> None:
    records = sorted(path.name for path in (ROOT / "docs" / "decisions").glob("0*.md"))
    listed = re.findall(r"\]\((\d{4}-[a-z-]+\.md)\)\s*\| (.+) \|", read("docs/decisions/README.md"))
    assert [name for name, _ in listed] == records
    assert [int(name[:4]) for name in records] == list(range(1, len(records) + 1))
    assert {name: f"# {title}" for name, title in listed} == {
        name: read(f"docs/decisions/{name}").splitlines()[0] for name in records
    }


def test_every_decision_says_context_decision_and_consequences_in_short() -> None:
    for name in under("docs/decisions", suffix=".md"):
        if not name.endswith("README.md"):
            text = read(name)
            assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"], name
            assert len(text.splitlines()) <= 40, name


def _anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# The example ---------------------------------------------------------------------------------------


class Desk:
    """A context that keeps everything in memory."""

    attempt = 1
    previous_error = None

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.artifacts: dict[str, bytes] = {}

    def write(self, data: bytes) -> Blob:
        blob = Blob(sha256=str(len(self.blobs)), bytes=len(data))
        self.blobs[blob.sha256] = data
        return blob

    def read(self, blob: Blob) -> bytes:
        return self.blobs[blob.sha256]

    def artifact(self, name: str, media_type: str, data: bytes) -> None:
        self.artifacts[name] = data


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The pipeline printed on the how-to page, as a module."""
    block = re.search(r"```python\n(.*?)```", read("docs/pipelines.md"), re.DOTALL)
    assert block is not None
    module = types.ModuleType("page_example")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(block[1], "docs/pipelines.md", "exec"), vars(module))
    return module


def test_the_pipeline_of_the_how_to_is_a_whole_one(example: types.ModuleType) -> None:
    pipeline: Pipeline = example.paragraphs
    assert [(step.name, step.after, step.map) for step in pipeline.steps.values()] == [
        ("split", (), None), ("count", ("split",), "split"), ("choose", ("count",), None),
    ]  # fmt: skip


def test_the_pipeline_of_the_how_to_does_what_its_page_says(example: types.ModuleType) -> None:
    desk = Desk()
    source = Source(kind="txt", blob=desk.write(b"One two.\n\nThree four five.\n\n\n\nSix."))
    counts = [example.count(item, desk) for item in example.split(source, desk)]
    longest = example.choose(counts, example.Choices(), desk)
    assert (longest.number, longest.words) == (2, 3)
    assert desk.artifacts == {"longest.txt": b"Paragraph 2 has 3 words.\n"}


def test_the_how_to_lists_every_special_parameter_and_every_word_of_a_step() -> None:
    page = read("docs/pipelines.md")
    words = set(Pipeline.step.__annotations__) - {"return"}
    assert [name for name in (*SPECIAL, *words) if not re.search(rf"^\| .*`{name}`.* \|", page, re.MULTILINE)] == []


# The sample ----------------------------------------------------------------------------------------


def test_the_sample_is_a_story_of_chapters_that_repeats_nothing(sample: Path) -> None:
    text = sample.read_text(encoding="utf-8")
    assert len(re.findall(r"^# Chapter [A-Z][a-z]+: \S", text, re.MULTILINE)) >= 10
    assert len(text.split()) >= 8000
    paragraphs = [part for part in text.split("\n\n") if len(part.split()) > 4]
    assert len(paragraphs) == len(set(paragraphs))


def test_the_project_runs_its_own_sample() -> None:
    assert re.search(r"^SAMPLE \?= (\S+)$", read("Makefile"), re.MULTILINE)[1] in tracked()  # type: ignore[index]
    assert project()["project"]["scripts"] == {"ledgerline": "tasks.command:main"}
