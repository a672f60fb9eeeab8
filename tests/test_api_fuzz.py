"""Schemathesis calls the served API in every way its OpenAPI document allows, and in many it does not.

All checks of schemathesis are on: no 5xx, no undocumented status, header or media type, no answer that breaks its
schema, nothing accepted that the document forbids and the reverse. FUZZ_EXAMPLES and FUZZ_SEED make the
long run: `make fuzz`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from api_play import PREFIX, Person, Served
from flask import Flask
from tree import ROOT
from worker_process import House, open_house

from tasks import ledger
from tasks.pipelines import declared
from tasks.settings import Settings

EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "5")
SEED = os.environ.get("FUZZ_SEED", "20261126")
LONGEST_S = 120 + 20 * int(EXAMPLES)
STORY = "\n\n".join(f"Chapter {number}\n\n{'The lamp went out, and nobody lit it again. ' * 30}" for number in (1, 2))


def fuzz(served: Served, folder: Path, *options: str) -> str:
    """Run schemathesis against an API; what it printed. AssertionError when it has found anything."""
    command = [
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(ROOT / "tests" / "schemathesis.toml"),
        "run", f"{served.url}{PREFIX}/openapi.json", "--max-examples", EXAMPLES, "--seed", SEED, "--no-color", *options,
    ]  # fmt: skip
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LONGEST_S, check=False)
    assert ended.returncode == 0, ended.stdout[-20_000:] + ended.stderr[-2_000:]
    return ended.stdout


@pytest.fixture(scope="module")
def busy(module_database_url: str, api_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house at work: the real pipelines, a worker, and an API on the same storage."""
    with open_house(module_database_url, tmp_path_factory.mktemp("busy")) as house:
        ledger.publish(house.play.connection, declared(("tasks.pipelines",)).values(), "fuzz")
        house.start(pipelines="tasks.pipelines", storage_path=api_settings.storage_path)
        yield house


@pytest.fixture
def owner(busy: House, app: Flask) -> Person:
    """An owner with a document, a job that is over and one that waits for a reviewer."""
    owner = Person(app, busy.play.user)
    jobs = []
    for pipeline in ("manuscript", "review"):
        uploaded = owner.upload(STORY.encode(), query=f"?pipeline={pipeline}").get_json()
        jobs.append(UUID(uploaded["job"]["id"]))
    busy.follower.until(lambda: busy.play.job(jobs[0])["status"] == "completed", within=60)
    busy.follower.until(lambda: busy.play.job(jobs[1])["status"] == "awaiting_review", within=60)
    return owner


def test_whatever_an_owner_sends_is_answered_as_the_document_says(
    busy: House, served: Served, owner: Person, tmp_path: Path
) -> None:
    told = fuzz(served, tmp_path, "--header", f"Authorization: {owner.bearer()['Authorization']}")
    assert "Stateful" in told
    assert busy.play.drift() == []


def test_whatever_a_stranger_sends_is_answered_as_the_document_says(
    served: Served, busy: House, tmp_path: Path
) -> None:
    fuzz(served, tmp_path, "--phases", "examples,coverage,fuzzing")
    assert busy.play.drift() == []
