"""The processes that `up` keeps running: how one is started, noticed to have ended, started again and stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tasks.command import tether

_LOG_BYTES = 10 * 1024 * 1024
_FIRST_DELAY_S = 0.5
_LONGEST_DELAY_S = 30.0
# A process that ran for this long was not broken from the start: its next delay is the shortest again.
_HEALTHY_S = 30.0


@dataclass
class Child:
    """One supervised process.

    patience_s: how long it may take to stop by itself.
    handles: open files that it inherits.
    """

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    patience_s: float
    handles: tuple[int, ...] = ()
    deaths: int = field(default=0, init=False)
    due_at: float = field(default=0.0, init=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _started_at: float = field(default=0.0, init=False)

    @property
    def pid(self) -> int | None:
        """The process id, or None when it does not run."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start it. It writes to its log and to nothing else, and gets no signal of the terminal."""
        self.due_at = 0.0
        self._started_at = time.monotonic()
        with open_log(self.log) as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                pass_fds=self.handles,
                start_new_session=True,
            )

    def notice_end(self) -> str | None:
        """How it ended, in words, once after each end; None while it runs. Sets when it is due to start again."""
        code = self._process.poll() if self._process else None
        if code is None:
            return None
        self._process = None
        lived = time.monotonic() - self._started_at
        self.deaths = 1 if lived >= _HEALTHY_S else self.deaths + 1
        self.due_at = time.monotonic() + self.delay_s
        return describe_end(code)

    @property
    def delay_s(self) -> float:
        """Seconds between an end and the next start: doubles with each end in a row."""
        return min(_FIRST_DELAY_S * 2.0 ** max(0, self.deaths - 1), _LONGEST_DELAY_S)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        if self._process:
            self._process.send_signal(number)

    def ended(self) -> bool:
        """Whether it does not run. Use it while stopping; `notice_end` while supervising."""
        if self._process and self._process.poll() is not None:
            self._process = None
        return self._process is None

    def kill(self) -> None:
        """End it at once, with whatever it started in its own session."""
        if self._process:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def last_words(self, lines: int = 8) -> list[str]:
        """The end of its log."""
        try:
            text = self.log.read_bytes()[-8192:].decode(errors="replace")
        except OSError:
            return []
        return [line for line in text.splitlines() if line.strip()][-lines:]


@contextmanager
def open_log(path: Path) -> Iterator[int]:
    """A log opened to append; put aside when it has grown past 10 MiB."""
    if path.exists() and path.stat().st_size > _LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        yield handle
    finally:
        os.close(handle)


def describe_end(code: int) -> str:
    """An exit code of subprocess, in words."""
    if code < 0:
        return f"was killed ({signal.Signals(-code).name})"
    return "ended by itself" if code == 0 else f"ended with exit code {code}"
