"""What reviewers and operators type: the inbox, decisions, and pauses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from api_play import Front, Person, Served, make_token
from ledger_play import Play
from psycopg.rows import dict_row
from scripted_api import answer, scripted_api

from tasks.command.program import run
from tasks.settings import Settings


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working directory, with no setting given."""
    for name in (*Settings.model_fields, "LEDGERLINE_URL", "LEDGERLINE_TOKEN", "LEDGERLINE_STATE", "LEDGERLINE_TENANT"):
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


# Reviewers, at a real API -------------------------------------------------------------------------------


@pytest.fixture
def reviewer(front: Front, served: Served, monkeypatch: pytest.MonkeyPatch) -> Person:
    """A reviewer whose commands go to the served API."""
    person = front.person("reviewer")
    monkeypatch.setenv("LEDGERLINE_URL", served.url)
    monkeypatch.setenv("LEDGERLINE_TOKEN", make_token(person.user))
    return person


def waiting(front: Front) -> tuple[str, str]:
    """A job that waits for a person, and its review."""
    job = front.play.submit("reviewed")
    front.play.finish_all()
    return str(job), str(front.play.one("select id from reviews where job_id = %s and status = 'open'", job))


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_the_inbox_shows_what_waits_and_then_nothing(
    front: Front, reviewer: Person, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["review"]) == 0
    assert said(capsys) == "Nothing waits for a person.\n"
    job, review = waiting(front)
    assert run(["review", "--pipeline", "reviewed"]) == 0
    head, row = said(capsys).splitlines()
    assert head.split() == ["review", "job", "pipeline", "gate", "document", "waits", "since", "expires", "look", "at"]
    assert row.split()[:4] == [review, job, "reviewed", "approval"]
    assert run(["review", "--assigned-to", "none"]) == 0
    assert review in said(capsys)
    for narrowed in (["--pipeline", "line"], ["--assigned-to", "me"]):
        assert run(["review", *narrowed]) == 0
        assert said(capsys) == "Nothing waits for a person.\n"


def test_approving_lets_the_job_go_on_and_is_listed_with_its_comment(
    front: Front, reviewer: Person, capsys: pytest.CaptureFixture[str]
) -> None:
    job, review = waiting(front)
    assert run(["approve", review, "--comment", "[bold]good[/bold]"]) == 0
    assert said(capsys) == f"Approved. Job {job} goes on.\n"
    assert front.play.statuses(job, "final") == ["queued"]  # type: ignore[arg-type]
    assert run(["review", "--status", "approved"]) == 0
    row = said(capsys).splitlines()[1]
    assert review in row
    assert str(reviewer.user) in row
    assert row.endswith("[bold]good[/bold]")


def test_rejecting_fails_the_job(front: Front, reviewer: Person, capsys: pytest.CaptureFixture[str]) -> None:
    job, review = waiting(front)
    assert run(["reject", review, "--comment", "too short"]) == 0
    assert said(capsys).startswith(f"Rejected. Job {job} has failed; ")
    row = front.play.job(job)  # type: ignore[arg-type]
    assert (row["status"], row["error_message"]) == ("failed", "A reviewer rejected it: too short")


def test_reprocessing_lists_the_steps_until_one_is_named(
    front: Front, reviewer: Person, capsys: pytest.CaptureFixture[str]
) -> None:
    job, review = waiting(front)
    assert run(["reprocess", review]) == 1
    assert capsys.readouterr().err == "step_missing: Say with --from-step where to begin: draft.\n"
    assert run(["reprocess", review, "--from-step", "final"]) == 1
    assert capsys.readouterr().err == "step_not_reached: The job has not come to that step yet.\n"
    assert run(["reprocess", review, "--from-step", "draft"]) == 0
    assert said(capsys) == f"Job {job} runs again from draft.\n"
    assert front.play.statuses(job, "draft") == ["queued"]  # type: ignore[arg-type]
    assert run(["reprocess", review]) == 1
    assert capsys.readouterr().err == "already_decided: This was already reprocessed.\n"


def test_somebody_who_was_faster_is_told_of(front: Front, reviewer: Person, capsys: pytest.CaptureFixture[str]) -> None:
    _, review = waiting(front)
    assert run(["approve", review]) == 0
    assert run(["reject", review]) == 1
    assert capsys.readouterr().err == "already_decided: This was already approved.\n"


def test_a_gate_without_an_end_never_expires(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"id": "r", "job_id": "j", "pipeline": "p", "step": "approval", "document_title": "[red]A[/red]"}
    row |= {"opened_at": "2026-11-02T10:00:00+00:00", "expires_at": None, "artifacts": [{"name": "summary.md"}]}
    with scripted_api(answer({"reviews": [row], "next_cursor": None})) as api:
        assert run(["review", "--url", api.url, "--token", "t"]) == 0
    assert api.requests[0][1] == "/api/v1/review?status=open&limit=20"
    assert re.search(r"approval +\[red\]A\[/red\] .+ never +summary\.md", said(capsys))


# Operators, at a database -------------------------------------------------------------------------------


@pytest.fixture
def play(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Play]:
    """A database of this test alone, known to the command by its environment."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("LINK_SECRET", "x" * 32)
    with psycopg.connect(database_url, row_factory=dict_row, autocommit=True) as connection:
        yield Play(connection)


def why(play: Play, job: Any) -> dict[str, Any]:
    with play.connection.transaction():
        play.all("select set_config('request.jwt.claims', json_build_object('sub', %s::text)::text, true)", play.user)
        return dict(play.one("select access.waiting_for(%s)", job))


def test_a_paused_queue_begins_nothing_until_it_is_resumed(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    job = play.submit("line")
    assert run(["pause", "queue", "llm", "--reason", "The provider is down."]) == 0
    assert said(capsys) == "Queue llm is paused. What runs goes on, and nothing more is begun.\n"
    assert play.begin_all() == []
    assert why(play, job)["message"] == 'The queue "llm" is paused. The provider is down.'
    assert run(["resume", "queue", "llm"]) == 0
    assert said(capsys) == "Queue llm goes on.\n"
    assert len(play.begin_all()) == 1


def test_a_tenant_is_paused_by_its_id_or_its_name(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    job = play.submit("line")
    for name in (str(play.tenant).upper(), "A tenant"):
        assert run(["pause", "tenant", name]) == 0
        assert said(capsys).startswith(f"Tenant A tenant ({play.tenant}) is paused.")
        assert play.statuses(job) == ["held"]
        assert run(["resume", "tenant", name]) == 0
        assert said(capsys) == f"Tenant A tenant ({play.tenant}) goes on.\n"
        assert play.statuses(job) == ["queued"]
    assert run(["resume", "tenant", str(play.tenant)]) == 0
    assert said(capsys) == f"Tenant A tenant ({play.tenant}) was not paused.\n"
    assert play.drift() == []


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["queue", "lmm"], "queue_unknown: There is no queue lmm. There are: cpu, llm, media, maintenance."),
        (["tenant", "nobody"], "tenant_not_found: There is no tenant nobody."),
        (["tenant", "A tenant"], "tenant_ambiguous: Several tenants are named A tenant: say its id."),
    ],
)
def test_a_name_that_means_nothing_or_too_much_is_refused(
    words: list[str], error: str, play: Play, capsys: pytest.CaptureFixture[str]
) -> None:
    play.add_tenant()
    for command in ("pause", "resume"):
        assert run([command, *words]) == 1
        assert capsys.readouterr().err == f"{error}\n"
    assert play.all("select from ops.pauses") == []


def test_something_else_than_a_queue_or_a_tenant_is_a_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pause", "job", "x"]) == 2
    assert "'job' is not one of 'queue', 'tenant'" in capsys.readouterr().err
