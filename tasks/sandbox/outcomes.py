"""What a caller of the sandbox gives and gets.

Confined               the child was stopped, or stopped itself; says what it had used
├── TimedOut           wall clock limit
├── CpuExceeded        CPU limit (SIGXCPU)
├── OutOfMemory        memory limit, in Python or by the kernel's killer
└── Crashed            any other end: `signal` or `exit_code` says which
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Limits:
    """What one call may use: seconds of wall clock, seconds of CPU, bytes of address space.

    `memory_bytes` is the soft RLIMIT_AS of the child, libraries included, so that resident memory can never exceed
    it. CPU seconds are rounded up to whole ones by the kernel's clock.
    """

    wall_s: float
    cpu_s: float
    memory_bytes: int

    def __post_init__(self) -> None:
        if min(self.wall_s, self.cpu_s, self.memory_bytes) <= 0:
            raise ValueError("every limit must be greater than zero")


@dataclass(frozen=True)
class Result:
    """What the function returned and what the call used.

    `peak_memory_bytes` is the resident peak of this call (of the child's life where the kernel cannot reset it);
    `cpu_s` includes ended grandchildren; `child_task_number` counts from 1 in each child.
    """

    value: Any
    peak_memory_bytes: int
    cpu_s: float
    child_pid: int
    child_task_number: int


class Confined(Exception):
    """A call ended by its confinement. `detail` is for the operator and never for a user."""

    def __init__(self, message: str, *, child_pid: int = 0, peak_memory_bytes: int = 0, detail: str = "") -> None:
        super().__init__(message)
        self.child_pid = child_pid
        self.peak_memory_bytes = peak_memory_bytes
        self.detail = detail


class TimedOut(Confined):
    """The call took longer than `wall_s`, not counting the wait for a free child."""


class CpuExceeded(Confined):
    """The call used more than `cpu_s`."""


class OutOfMemory(Confined):
    """The call needed more than `memory_bytes`, or the kernel ran out of memory for it."""


class Crashed(Confined):
    """The child ended by a signal or by itself. Both are None when the forkserver went down with it."""

    def __init__(
        self,
        message: str,
        *,
        signal: int | None = None,
        exit_code: int | None = None,
        child_pid: int = 0,
        peak_memory_bytes: int = 0,
        detail: str = "",
    ) -> None:
        super().__init__(message, child_pid=child_pid, peak_memory_bytes=peak_memory_bytes, detail=detail)
        self.signal = signal
        self.exit_code = exit_code
