"""`ledgerline up` for real: Postgres, API and worker in one terminal, through deaths, restarts and Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from processes import all_ended
from up_process import Up, command, environment, start_up
from waiting import until


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of all that runs here."""
    return tmp_path_factory.mktemp("up")


@pytest.fixture(scope="module")
def up(folder: Path) -> Iterator[Up]:
    """One `up` for all tests that leave it running."""
    (folder / "story.txt").write_text("The lamps were lit at dusk.\n\nNobody came.\n")
    with start_up(folder) as up:
        yield up
        assert up.stop() == 0
        assert "Traceback" not in up.said


def hold_job(up: Up, gate: Path) -> str:
    """A job that a worker has in hand and that ends when the gate is opened."""
    job = str(up.post("/jobs", {"pipeline": "held", "params": {"gate": str(gate)}})["id"])
    try:
        until(gate.with_suffix(".reached").exists)
    except AssertionError as error:
        log = (up.state.logs / "worker.log").read_text()
        raise AssertionError(f"{job} was not begun\n{up.said}\n{log[-4000:]}") from error
    return job


def watch(folder: Path, job: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "tasks.command", "watch", job],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=heed_ctrl_c,
    )


def heed_ctrl_c() -> None:
    """A shell that runs the tests in the background lets them ignore SIGINT, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_it_says_where_everything_is_and_keeps_its_secrets(up: Up) -> None:
    endpoint = up.endpoint()
    for fact in (f"{endpoint.url}/api/v1", "/api/v1/docs", ".ledgerline/key", ".ledgerline/logs", "Ctrl-C", "ready "):
        assert fact in up.said
    secrets = [*up.state.secrets().values(), endpoint.token, up.state.read_settings()["DATABASE_URL"]]
    logs = "".join(path.read_text() for path in up.state.logs.iterdir())
    assert [secret for secret in secrets if secret in up.said + logs] == []
    files = [up.state.path / name for name in ("key", "secrets.json", "settings.json", "logs/api.log")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_a_file_is_submitted_watched_listed_explained_and_saved(up: Up, folder: Path) -> None:
    sent = command(folder, "submit", "story.txt", "--pipeline", "reading", "--watch")
    assert sent.returncode == 0, sent.stderr
    assert "✓ completed in" in sent.stdout
    job = sent.stdout.split("submitted as job ")[1].split()[0]
    assert job in command(folder, "jobs", "--status", "completed").stdout
    explained = command(folder, "explain", job).stdout
    assert [word in explained for word in ("submitted", "step_completed", "completed")] == [True] * 3
    assert "story.txt" in command(folder, "artifacts", job).stdout
    saved = command(folder, "artifacts", job, "--save", "saved")
    assert (folder / "saved" / "story.txt").read_text() == "THE LAMPS WERE LIT AT DUSK.\n\nNOBODY CAME.\n"
    assert "saved/story.txt" in saved.stdout
    name, link = command(folder, "artifacts", job, "--links").stdout.splitlines()
    assert (name, httpx.get(link).text) == ("story.txt", (folder / "saved" / "story.txt").read_text())
    after_the_fact = command(folder, "watch", job)
    assert after_the_fact.returncode == 0
    assert "story.txt" not in after_the_fact.stderr


def test_a_job_that_fails_is_told_by_watch_and_taken_up_again_by_retry(up: Up, folder: Path) -> None:
    job = str(up.post("/jobs", {"pipeline": "doomed", "params": {"way": "crash"}})["id"])
    watched = command(folder, "watch", job)
    assert watched.returncode == 1
    assert "✗ failed after" in watched.stdout
    assert "parse_crashed" in watched.stdout
    again = command(folder, "retry", job, "--watch")
    assert again.returncode == 1
    assert "goes on from where it failed" in again.stdout
    assert "parse_crashed" in command(folder, "jobs", "--status", "failed").stdout


def test_a_job_is_cancelled_once(up: Up, folder: Path) -> None:
    job = hold_job(up, folder / "cancelled.gate")
    assert command(folder, "cancel", job, "--reason", "I changed my mind.").returncode == 0
    watched = command(folder, "watch", job)
    assert watched.returncode == 2
    assert "I changed my mind." in watched.stdout
    refused = command(folder, "cancel", job)
    assert (refused.returncode, refused.stderr) == (1, "job_is_over: This job is already cancelled.\n")


def test_what_the_api_refuses_reaches_the_user_as_a_sentence(up: Up, folder: Path) -> None:
    (folder / "empty.txt").touch()
    refused = command(folder, "submit", "empty.txt", "--pipeline", "reading")
    assert refused.returncode == 1
    assert refused.stderr.startswith("empty.txt: empty_file: ")
    refused = command(folder, "submit", "story.txt", "--pipeline", "absent")
    assert refused.stderr.startswith("story.txt: unknown_pipeline: ")


def test_a_second_up_in_the_same_place_says_where_the_first_is(up: Up, folder: Path) -> None:
    second = command(folder, "up")
    assert second.returncode == 1
    assert second.stderr.startswith("already_running: ")
    assert up.endpoint().url in second.stderr


def test_the_doctor_finds_everything_in_order(up: Up, folder: Path) -> None:
    examined = command(folder, "doctor")
    assert examined.returncode == 0, examined.stdout
    assert "Everything works." in examined.stdout


def test_a_worker_that_is_killed_comes_back_and_its_job_completes(up: Up, folder: Path) -> None:
    gate = folder / "worker.gate"
    job = hold_job(up, gate)
    before, killed = len(up.said), up.pid_of("worker")
    with watch(folder, job) as watching:
        os.kill(killed, signal.SIGKILL)
        up.wait_for(r"worker +was killed \(SIGKILL\); starting it again in 0\.5 s", before)
        up.wait_for(r"worker +runs again", before)
        gate.touch()
        assert watching.wait(30) == 0
    assert up.pid_of("worker") != killed
    assert len(gate.with_suffix(".reached").read_text().splitlines()) == 2


def test_a_watch_goes_on_without_gap_or_repeat_when_the_api_is_killed(up: Up, folder: Path) -> None:
    gate = folder / "api.gate"
    job = hold_job(up, gate)
    before = len(up.said)
    with watch(folder, job) as watching:
        assert watching.stdout is not None
        first = watching.stdout.readline()
        os.kill(up.pid_of("api"), signal.SIGKILL)
        up.wait_for(r"api +runs again", before)
        gate.touch()
        lines = [first, *watching.stdout]
        assert watching.wait(30) == 0
    told = [line[21:].strip() for line in lines if line[:2] == "20"]
    assert len(told) == len(set(told))
    assert told[0].endswith("Waiting for a worker.")
    assert told[-1].endswith("Everything is done.")


def test_ctrl_c_stops_the_watching_and_not_the_job(up: Up, folder: Path) -> None:
    gate = folder / "watched.gate"
    job = hold_job(up, gate)
    with watch(folder, job) as watching:
        assert watching.stdout is not None
        watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        assert watching.wait(10) == 130
        assert watching.stdout.read().endswith("Stopped watching. The job goes on.\n")
    gate.touch()
    assert command(folder, "watch", job).returncode == 0


def test_a_postgres_that_is_killed_comes_back_and_the_job_completes(up: Up, folder: Path) -> None:
    gate = folder / "postgres.gate"
    job = hold_job(up, gate)
    before = len(up.said)
    postmaster = int((up.state.postgres / "data" / "postmaster.pid").read_text().split()[0])
    os.kill(postmaster, signal.SIGKILL)
    up.wait_for(r"postgres +runs again", before)
    gate.touch()
    watched = command(folder, "watch", job)
    assert watched.returncode == 0, watched.stdout + watched.stderr
    until(lambda: command(folder, "doctor").returncode == 0)


def test_ctrl_c_stops_everything_in_order_and_up_starts_again_where_it_was(tmp_path: Path) -> None:
    with start_up(tmp_path) as up:
        processes, key = up.processes(), up.state.read_key()
        assert up.stop(signal.SIGINT) == 0
        assert all_ended(processes)
        order = [up.said.index(line) for line in ("worker    stopped", "api       stopped", "postgres  stopped")]
        assert order == sorted(order)
        assert "Traceback" not in up.said
        assert up.state.running() is None
    with start_up(tmp_path) as up:
        assert up.state.read_key() == key
        assert "up to date" in up.said
        assert up.stop(signal.SIGTERM) == 0


def test_ctrl_c_while_it_starts_leaves_nothing_behind(tmp_path: Path) -> None:
    with start_up(tmp_path, ready=False) as up:
        up.wait_for(r"postgres +ready")
        processes = up.processes()
        assert up.stop() == 0
        assert all_ended(processes)
        assert "Traceback" not in up.said


def test_a_database_and_a_secret_of_somebody_elses_get_no_development_user(tmp_path: Path, database_url: str) -> None:
    with start_up(tmp_path, DATABASE_URL=database_url, JWT_SECRET="theirs" * 8, JWT_ISSUER="https://x/auth/v1") as up:
        assert "set LEDGERLINE_TOKEN" in up.said
        assert command(tmp_path, "jobs").stderr.startswith("token_missing: ")
        assert command(tmp_path, "jobs", LEDGERLINE_TOKEN="nonsense").stderr.startswith("token_invalid: ")
        assert up.stop() == 0
    assert not (up.state.postgres).exists()
    assert up.state.read_key() is None
    with psycopg.connect(database_url) as connection:
        assert connection.execute("select count(*) from public.members").fetchone() == (0,)


def test_pipelines_that_cannot_be_used_are_a_sentence(tmp_path: Path, database_url: str) -> None:
    refused = command(tmp_path, "migrate", DATABASE_URL=database_url, LINK_SECRET="x" * 32, PIPELINES="no_such_module")
    assert refused.returncode == 1
    assert refused.stderr.startswith("pipelines_invalid: The pipelines in no_such_module cannot be used: ")


def test_a_second_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    with start_up(tmp_path, DRAIN_TIMEOUT_S="600") as up:
        hold_job(up, tmp_path / "never.gate")
        processes = up.processes()
        up.process.send_signal(signal.SIGINT)
        up.wait_for("stopping")
        assert up.stop(signal.SIGINT) == 130
        assert all_ended(processes)
        assert "Traceback" not in up.said


def test_nothing_is_left_when_up_itself_is_killed(tmp_path: Path) -> None:
    with start_up(tmp_path, DRAIN_TIMEOUT_S="600") as up:
        job = hold_job(up, tmp_path / "never.gate")
        with watch(tmp_path, job) as watching:
            assert watching.stdout is not None
            watching.stdout.readline()
            processes = up.processes()
            up.process.kill()
            until(lambda: all_ended(processes))
            watching.kill()
        assert up.state.running() is None
        refused = command(tmp_path, "jobs")
        assert refused.stderr.startswith("api_unknown: ")


def test_a_port_that_is_taken_is_passed_over_or_refused_when_it_was_asked_for(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = command(tmp_path, "up", "--port", str(port))
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"port_busy: Port {port} is used by another program.")
        refused = command(tmp_path, "up", PORT=str(port))
        assert refused.stderr.startswith(f"port_busy: Port {port} is used by another program.")
    assert not (tmp_path / ".ledgerline" / "postgres").exists()


def test_a_sample_is_reported_on_and_the_second_time_nothing_is_done_twice(tmp_path: Path, sample: Path) -> None:
    first = command(tmp_path, "up", "--once", "--sample", str(sample))
    assert first.returncode == 0, first.stdout + first.stderr
    assert "✓ completed in" in first.stdout
    assert "done before" not in first.stdout
    reports = list((tmp_path / ".ledgerline" / "reports").glob("*/*"))
    assert {path.name for path in reports} >= {"report.md", "report.json"}
    assert [path for path in reports if f"{path.relative_to(tmp_path)}\n" not in first.stdout] == []
    second = command(tmp_path, "up", "--once", "--sample", str(sample))
    assert second.returncode == 0, second.stdout + second.stderr
    assert "done before" in second.stdout


def test_a_sample_that_fails_makes_once_fail(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    ran = command(tmp_path, "up", "--once", "--sample", "empty.txt")
    assert ran.returncode == 1
    assert "empty_file: " in ran.stdout
    assert "stopped   everything" in ran.stdout
