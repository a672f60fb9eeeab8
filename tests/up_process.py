"""A real `ledgerline up` in a process of its own, and commands sent to it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
from processes import all_ended, descendants
from tree import ROOT
from waiting import until

from tasks.command.client import Endpoint
from tasks.command.state import StateFolder
from tasks.settings import Settings

QUICK = {"HEARTBEAT_S": "0.2", "LEASE_S": "1.5", "DRAIN_TIMEOUT_S": "3", "WORKER_CHILDREN": "1"}


class Up:
    """One running `up`. `said`: what it has printed so far."""

    def __init__(self, state: StateFolder, process: subprocess.Popen[str]) -> None:
        self.state = state
        self.process = process
        self.lines: list[str] = []
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def said(self) -> str:
        return "".join(self.lines)

    def wait_for(self, pattern: str, after: int = 0) -> re.Match[str]:
        """Wait until it has printed something; `after`: not counting the first so many characters."""
        return until(lambda: re.search(pattern, self.said[after:]) or self._ended_early(pattern))

    def endpoint(self) -> Endpoint:
        running = self.state.running()
        assert running is not None
        return Endpoint(running.url, self.state.read_key())

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """A call that no command makes."""
        endpoint = self.endpoint()
        headers = {"Authorization": f"Bearer {endpoint.token}"}
        response = httpx.post(f"{endpoint.url}/api/v1{path}", json=body, headers=headers)
        assert response.is_success, response.text
        return dict(response.json())

    def processes(self) -> set[int]:
        return {self.process.pid} | descendants(self.process.pid)

    def pid_of(self, name: str) -> int:
        """The child's process as last announced."""
        return int(re.findall(rf"^{name} .*\(process (\d+)\)", self.said, re.MULTILINE)[-1])

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(number)
        return self.end()

    def end(self, within: float = 30) -> int:
        code = self.process.wait(within)
        self._reader.join(5)
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(self.process.stdout)

    def _ended_early(self, pattern: str) -> None:
        assert self.process.poll() is None or re.search(pattern, self.said), f"no {pattern!r} in:\n{self.said}"


def environment(**extra: str) -> dict[str, str]:
    """What a command is run with: none of the settings of whoever runs the tests."""
    ours = {name.upper() for name in Settings.model_fields} | {"LEDGERLINE_URL", "LEDGERLINE_TOKEN", "LEDGERLINE_STATE"}
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return kept | {"PYTHONPATH": path, "PIPELINES": "sample_pipelines,tasks.pipelines"} | QUICK | extra


@contextmanager
def start_up(folder: Path, *options: str, ready: bool = True, **extra: str) -> Iterator[Up]:
    """Run `up` in a working directory; killed at the end if it still runs."""
    command = [sys.executable, "-m", "tasks.command", "up", *options]
    process = subprocess.Popen(
        command, cwd=folder, env=environment(**extra), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    up = Up(StateFolder(folder / ".ledgerline"), process)
    try:
        if ready:
            up.wait_for(r"stop +Ctrl-C")
        yield up
    finally:
        if process.poll() is None:
            left = descendants(process.pid)
            process.kill()
            process.wait()
            until(lambda: all_ended(left))


def command(folder: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the working directory of an `up`."""
    return subprocess.run(
        [sys.executable, "-m", "tasks.command", *arguments],
        cwd=folder,
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=60,
    )
