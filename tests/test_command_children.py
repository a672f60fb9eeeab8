"""Processes under supervision: they come back when they die, stop when told, and never outlive who started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from processes import ended
from tree import ROOT

from tasks.command.children import Child
from tasks.command.signals import Signals
from tasks.command.supervisor import PostgresWatch, Supervisor
from tasks.embedded import EmbeddedPostgres

# Says that it is ready, then waits to be told to stop.
POLITE = (
    "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [15]); print('ready', flush=True);"
    "signal.sigwait([15]); print('bye', flush=True)"
)
DEAF = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"


@pytest.fixture
def signals() -> Iterator[Signals]:
    with Signals() as signals:
        yield signals


def python(tmp_path: Path, name: str, code: str, patience_s: float = 10.0) -> Child:
    return Child(name, [sys.executable, "-I", "-S", "-c", code], dict(os.environ), tmp_path / f"{name}.log", patience_s)


def wait_until_ready(child: Child) -> None:
    deadline = time.monotonic() + 15
    while "ready" not in child.last_words():
        assert time.monotonic() < deadline, child.last_words()
        os.sched_yield()


def test_a_child_that_dies_is_started_again_and_said_so(
    tmp_path: Path, signals: Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    child = python(tmp_path, "worker", POLITE)
    supervisor = Supervisor(signals, [child])
    supervisor.start()
    wait_until_ready(child)
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    supervisor.watch(lambda: child.pid not in (None, first))
    assert child.pid != first
    supervisor.kill()
    said = capsys.readouterr().out
    assert "was killed (SIGKILL); starting it again in 0.5 s" in said
    assert "worker | ready" in said
    assert "runs again (process " in said


def test_children_stop_one_after_the_other_the_last_started_first(
    tmp_path: Path, signals: Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    children = [python(tmp_path, name, POLITE) for name in ("api", "worker")]
    supervisor = Supervisor(signals, children)
    supervisor.start()
    for child in children:
        wait_until_ready(child)
    supervisor.stop()
    said = capsys.readouterr().out
    assert said.index("worker") < said.index("api")
    assert [child.last_words()[-1] for child in children] == ["bye", "bye"]


def test_a_child_that_does_not_stop_is_ended(
    tmp_path: Path, signals: Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    child = python(tmp_path, "worker", DEAF, patience_s=0.3)
    supervisor = Supervisor(signals, [child])
    supervisor.start()
    wait_until_ready(child)
    pid = child.pid
    assert pid is not None
    supervisor.stop()
    assert ended(pid)
    assert "did not stop within 0.3 s and was ended" in capsys.readouterr().out


def test_ctrl_c_in_the_terminal_reaches_up_and_not_its_children(tmp_path: Path) -> None:
    child = python(tmp_path, "worker", POLITE)
    child.start()
    wait_until_ready(child)
    assert child.pid is not None
    assert os.getpgid(child.pid) != os.getpgrp()
    child.kill()


def test_a_child_ends_when_who_started_it_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path; from tasks.command.children import Child\n"
        f"child = Child('x', [sys.executable, '-I', '-S', '-c', {POLITE!r}], {{}}, Path(sys.argv[1]), 1)\n"
        "child.start(); print(child.pid, flush=True); sys.stdin.read()"
    )
    log = tmp_path / "x.log"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(log)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        deadline = time.monotonic() + 15
        while not log.exists() or b"ready" not in log.read_bytes():
            assert time.monotonic() < deadline
            os.sched_yield()
        parent.kill()
        while not ended(pid):
            assert time.monotonic() < deadline
            os.sched_yield()


def test_the_first_signal_asks_and_the_second_insists(signals: Signals) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    signals.wait(5)
    assert signals.stopping
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_wait_ends_when_a_child_does(tmp_path: Path, signals: Signals) -> None:
    child = python(tmp_path, "short", "pass")
    child.start()
    while child.notice_end() is None:
        signals.wait(5)
    assert not signals.stopping


def test_an_embedded_postgres_that_dies_is_started_again(
    tmp_path: Path, signals: Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    with EmbeddedPostgres(tmp_path / "postgres", durable=False) as postgres:
        watch = PostgresWatch(postgres)
        supervisor = Supervisor(signals, [], watch)
        url = postgres.url
        os.kill(int((tmp_path / "postgres" / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        supervisor.watch(lambda: watch.misses == 0 and watch.check_at > 0 and postgres.running)
        assert postgres.url == url
    assert "is gone; starting it again" in capsys.readouterr().out


class Moved:
    """An embedded Postgres that has just come back at another address."""

    misses = 0

    class postgres:
        url = "postgresql://elsewhere"

    def tend(self) -> bool:
        return True


def test_when_postgres_comes_back_elsewhere_everybody_is_told(tmp_path: Path, signals: Signals) -> None:
    child = python(tmp_path, "worker", f"import os; print(os.environ['DATABASE_URL'], flush=True); {POLITE}")
    child.environment["DATABASE_URL"] = "postgresql://here"
    told: list[str] = []
    supervisor = Supervisor(signals, [child], cast(PostgresWatch, Moved()), told.append)
    supervisor.start()
    wait_until_ready(child)
    supervisor.tend()
    supervisor.postgres = None
    supervisor.watch(lambda: "postgresql://elsewhere" in child.last_words())
    supervisor.kill()
    assert told == ["postgresql://elsewhere"]
