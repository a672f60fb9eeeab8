"""Ctrl-C and its relatives while `up` runs: the first asks to stop, the second raises KeyboardInterrupt."""

from __future__ import annotations

import os
import select
import signal
from types import FrameType
from typing import Any, Self

_STOPPERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """Installed while used as a context manager. `stopping` tells whether somebody asked to stop."""

    def __init__(self) -> None:
        self.stopping = False

    def __enter__(self) -> Self:
        self._readable, self._writable = os.pipe()
        os.set_blocking(self._readable, False)
        os.set_blocking(self._writable, False)
        self._former_wakeup = signal.set_wakeup_fd(self._writable, warn_on_full_buffer=False)
        self._former: dict[signal.Signals, Any] = {number: signal.signal(number, self._note) for number in _STOPPERS}
        # The end of a child interrupts `wait`.
        self._former[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._former_wakeup)
        os.close(self._readable)
        os.close(self._writable)

    def wait(self, seconds: float) -> None:
        """Sleep, but wake up for any signal and for `wake`."""
        if select.select([self._readable], [], [], max(0.0, seconds))[0]:
            os.read(self._readable, 1024)

    def wake(self) -> None:
        """End a `wait` from another thread."""
        os.write(self._writable, b"\0")

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.stopping:
            raise KeyboardInterrupt
        self.stopping = True
