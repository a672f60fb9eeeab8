"""What operators are told: the story of a job with its failures, and whether everything works."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
from ledger_play import Play
from psycopg.rows import dict_row
from scripted_api import AT, answer, scripted_api

from tasks.command.doctor import Finding, examine
from tasks.command.program import run
from tasks.command.state import StateFolder
from tasks.ledger import TENANT_LIMITS
from tasks.settings import Settings


@pytest.fixture
def play(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Play]:
    """A database of this test alone, known to the command by its environment."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("LINK_SECRET", "x" * 32)
    with psycopg.connect(database_url, row_factory=dict_row, autocommit=True) as connection:
        yield Play(connection)


def findings() -> list[Finding]:
    return list(examine(StateFolder(Path(".ledgerline"))))


def bad() -> list[str]:
    return [finding.text for finding in findings() if finding.verdict == "bad"]


# explain -----------------------------------------------------------------------------------------------


def test_the_story_of_a_failed_job_has_its_history_and_the_operators_detail(
    play: Play, capsys: pytest.CaptureFixture[str]
) -> None:
    job = play.submit("line")
    play.complete(play.begin(), 1)
    play.fail(play.begin(), "broken", detail="the disk said ouch\nand then fell silent")
    assert run(["explain", str(job)]) == 0
    told = capsys.readouterr().out
    assert f"job {job}  line" in told
    assert "broken: It is broken." in told
    kinds = [line.split()[3] for line in told.splitlines() if line[:1].isdigit()]
    assert kinds == play.kinds(job)
    assert "the disk said ouch" in told
    assert "and then fell silent" in told
    assert "It waits" not in told


def test_a_job_without_a_worker_says_that_it_waits_for_one(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    job = play.submit("line")
    assert run(["explain", str(job)]) == 0
    assert 'It waits: No worker is running for the queue "llm".' in capsys.readouterr().out


def test_a_job_in_line_says_how_many_are_before_it(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    play.beat()
    play.submit("line")
    job = play.submit("line")
    assert run(["explain", str(job)]) == 0
    assert "It waits: 1 step is ahead of it." in capsys.readouterr().out


@pytest.mark.parametrize("job", ["nonsense", str(UUID(int=9))])
def test_a_job_that_is_not_there_is_refused(job: str, play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", job]) == 1
    assert capsys.readouterr().err == "job_not_found: There is no such job.\n"


def test_a_user_is_told_by_the_api_and_never_the_operators_detail(
    play: Play, capsys: pytest.CaptureFixture[str]
) -> None:
    job = {"id": "j", "pipeline": "line", "status": "queued", "stage": "initializing", "error": None}
    event = {"seq": 1, "at": AT, "kind": "submitted", "message": "Waiting.", "data": {"status": "queued"}}
    waiting = answer(job | {"waiting_for": {"reason": "queue", "message": "It is next in line."}})
    with scripted_api(waiting, answer({"events": [event]})) as api:
        assert run(["explain", "j", "--url", api.url, "--token", "t"]) == 0
    told = capsys.readouterr().out
    assert "submitted" in told
    assert "It waits: It is next in line." in told
    assert "operator" not in told


def test_a_database_that_is_away_is_a_sentence(
    play: Play, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/nowhere")
    for command in (["explain", str(uuid4())], ["migrate"]):
        assert run(command) == 1
        assert capsys.readouterr().err.startswith("database_unavailable: The database cannot be reached.")


# doctor ------------------------------------------------------------------------------------------------


def test_without_a_worker_the_doctor_says_so_and_what_to_do(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    play.submit("line")
    assert run(["doctor"]) == 1
    told = capsys.readouterr().out
    assert "✗ no worker is alive; step runs waiting: 1\n  → Start `ledgerline worker`." in told
    assert "✗ no worker has ever swept the ledger" in told
    assert "✓ the database wakes its listeners" in told
    assert "2 things are wrong." in told


def test_with_a_worker_and_a_sweep_everything_works(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    every = ["cpu", "llm", "media", "maintenance"]
    play.beat()
    play.all("update ops.workers set queues = %s returning id", every)
    play.all("select ledger.sign_chore('sweep', %s, 0)", play.worker)
    assert bad() == []
    assert run(["doctor"]) == 0
    assert "Everything works." in capsys.readouterr().out


def test_a_queue_that_nobody_serves_is_found(play: Play) -> None:
    play.beat()
    found = [text for text in bad() if text.startswith("queue ")]
    assert found == ["queue media: no live worker, 0 waiting", "queue maintenance: no live worker, 0 waiting"]


def test_a_worker_that_has_gone_silent_is_not_counted(play: Play) -> None:
    play.beat()
    play.all("update ops.workers set heartbeat_at = now() - interval '31 seconds' returning id")
    assert "no worker is alive; step runs waiting: 0" in bad()


def test_a_sweep_that_is_overdue_is_found(play: Play) -> None:
    play.beat()
    play.all("select ledger.sign_chore('sweep', %s, 0)", play.worker)
    play.all("update ops.chores set ran_at = now() - interval '4 minutes' returning name")
    assert any(text.startswith("the last sweep was 4 min 0") for text in bad())


def test_drift_is_found(play: Play) -> None:
    play.submit("line")
    play.all("delete from procrastinate.procrastinate_jobs returning id")
    assert any("disagree in" in text and "no queue job" in text for text in bad())


def test_a_database_without_migrations_is_told_to_migrate(
    play: Play, empty_database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    assert any(text.startswith("migrations are missing: ") for text in bad())
    assert run(["explain", str(uuid4())]) == 1
    assert capsys.readouterr().err == "not_migrated: The database is not up to date. Run `ledgerline migrate`.\n"


def test_migrate_says_what_it_did_and_a_second_time_that_nothing_was_left_to_do(
    play: Play, empty_database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    monkeypatch.setenv("PIPELINES", "sample_pipelines")
    assert run(["migrate"]) == 0
    first = capsys.readouterr().out
    assert "migrations applied; pipelines: " in first
    assert "diamond" in first
    assert run(["migrate"]) == 0
    assert "up to date; pipelines: " in capsys.readouterr().out


def test_a_store_that_cannot_be_written_is_found(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").write_text("")
    monkeypatch.setenv("STORAGE_PATH", "file/below")
    assert any(text.startswith("files cannot be stored: ") for text in bad())


def test_wrong_settings_are_all_named(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "many")
    monkeypatch.setenv("STORAGE", "floppy")
    named = [text.split()[1] for text in bad()]
    assert named == ["STORAGE:", "PORT:"]


def test_local_storage_is_mentioned_and_is_not_wrong(play: Play) -> None:
    mentioned = [finding.text for finding in findings() if finding.verdict == "mind"]
    assert any("on this machine only" in text for text in mentioned)


# limits ------------------------------------------------------------------------------------------------


def shown(capsys: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    """What `limits` shows: by the name of the limit, its value and where it comes from."""
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    return {line[0]: line[1:] for line in lines if line and line[0] in TENANT_LIMITS}


def test_an_operator_sees_and_changes_what_a_tenant_may_have(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["limits", "A tenant"]) == 0
    assert shown(capsys)["active_jobs"] == ["250000", "MAX_ACTIVE_JOBS"]
    assert play.all("select * from tenant_limits") == []
    assert run(["limits", str(play.tenant), "--active-jobs", "5", "--stored-bytes", "1000"]) == 0
    assert run(["limits", str(play.tenant), "--stored-bytes", "default"]) == 0
    capsys.readouterr()
    assert run(["limits", str(play.tenant)]) == 0
    told = shown(capsys)
    assert told["active_jobs"] == ["5", "its", "own"]
    assert told["stored_bytes"][1] == "MAX_STORED_BYTES"
    (own,) = play.all("select active_jobs, stored_bytes from tenant_limits")
    assert own == {"active_jobs": 5, "stored_bytes": None}


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5"])
def test_a_limit_is_a_number_or_taken_back(play: Play, value: str) -> None:
    assert run(["limits", "A tenant", "--active-jobs", value]) == 2
    assert play.all("select * from tenant_limits") == []


def test_a_tenant_that_is_not_there_has_no_limits(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["limits", "nobody"]) == 1
    assert "tenant_not_found" in capsys.readouterr().err
