"""Processes under supervision come back when they die, stop when told, never outlive who started them; and the port."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from processes import ended
from tree import ROOT

from tasks.command.children import Child, describe_end
from tasks.command.door import open_door, reachable_host
from tasks.command.signals import Signals
from tasks.command.supervisor import PostgresWatch, Supervisor
from tasks.embedded import EmbeddedPostgres
from tasks.errors import Refused

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


def test_a_busy_port_is_passed_over_unless_it_must_be_that_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with open_door("127.0.0.1", port, exactly=False) as door:
            assert door.getsockname()[1] > port
        with pytest.raises(Refused, match=f"port_busy: Port {port} is used by another program"):
            open_door("127.0.0.1", port, exactly=True)


def test_an_address_that_is_not_ours_is_said() -> None:
    with pytest.raises(Refused, match="address_invalid"):
        open_door("192.0.2.1", 8000, exactly=True)


def test_a_listener_on_every_address_is_reached_on_this_machine() -> None:
    assert [reachable_host(h) for h in ("0.0.0.0", "::", "::1", "10.0.0.5")] == [
        "127.0.0.1", "[::1]", "[::1]", "10.0.0.5",
    ]  # fmt: skip


def test_each_end_in_a_row_doubles_the_wait_before_the_next_start(tmp_path: Path) -> None:
    child = Child("child", ["/bin/false"], {}, tmp_path / "log", 1)
    delays = []
    for deaths in range(1, 10):
        child.deaths = deaths
        delays.append(child.delay_s)
    assert delays == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_the_end_of_a_process_is_said_in_words() -> None:
    assert [describe_end(code) for code in (0, 3, -9)] == [
        "ended by itself", "ended with exit code 3", "was killed (SIGKILL)",
    ]  # fmt: skip


def test_the_last_lines_of_a_log_are_at_hand(tmp_path: Path) -> None:
    child = Child(
        "child", ["/bin/sh", "-c", "for n in 1 2 3 4; do echo line $n; done; exit 7"], {}, tmp_path / "log", 1
    )
    child.start()
    while (end := child.notice_end()) is None:
        os.sched_yield()
    assert end == "ended with exit code 7"
    assert child.last_words(lines=2) == ["line 3", "line 4"]
    assert child.deaths == 1
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o600


def test_a_log_that_has_grown_long_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.command.children._LOG_BYTES", 10)
    (tmp_path / "x.log").write_text("a long old log\n")
    child = Child("child", ["/bin/sh", "-c", "echo new"], {}, tmp_path / "x.log", 1)
    child.start()
    while not child.ended():
        os.sched_yield()
    assert (tmp_path / "x.log").read_text() == "new\n"
    assert (tmp_path / "x.log.1").read_text() == "a long old log\n"
