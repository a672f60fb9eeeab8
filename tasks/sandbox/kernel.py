"""The few things asked of the kernel that Python has no function for. Each does nothing where it does not exist."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

_SET_PDEATHSIG = 1
_SET_NAME = 15
_SET_CHILD_SUBREAPER = 36
_SET_NO_NEW_PRIVS = 38

LINUX = sys.platform == "linux"
_libc = ctypes.CDLL(None) if LINUX else None


def die_with_parent(sign: int = signal.SIGKILL) -> None:
    """Be killed when the thread that made this process ends; 0 takes it back."""
    _prctl(_SET_PDEATHSIG, sign)


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent ended, so that none can slip away by a double fork."""
    _prctl(_SET_CHILD_SUBREAPER, 1)


def give_up_privileges() -> None:
    """No program started from here can gain rights (setuid, file capabilities)."""
    _prctl(_SET_NO_NEW_PRIVS, 1)


def call_process(name: str) -> None:
    """The name operators see in ps and top; at most 15 bytes."""
    if _libc is not None:
        _libc.prctl(_SET_NAME, name.encode()[:15], 0, 0, 0)


def limit(kind: int, soft: int) -> None:
    """Set a soft limit, or the hard one if that is lower. The hard limit stays, so that the next call can raise it."""
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        soft = hard if soft == resource.RLIM_INFINITY else min(soft, hard)
    with suppress(ValueError, OSError):  # macOS refuses RLIMIT_AS below what is mapped
        resource.setrlimit(kind, (soft, hard))


def volunteer_for_oom_killer() -> None:
    """Let the kernel take this process before the worker and the database."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def count_oom_kills() -> int:
    """How often the kernel's out-of-memory killer has struck since boot; 0 where that cannot be known."""
    with suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def forget_peak() -> None:
    """Start a new measurement of the resident peak."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_bytes(b"5")


def read_peak() -> int:
    """Resident peak in bytes since forget_peak()."""
    with suppress(OSError), open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"VmHWM:"):
                return int(line.split()[1]) * 1024
    return peak_of(resource.getrusage(resource.RUSAGE_SELF))


def peak_of(usage: resource.struct_rusage) -> int:
    """Resident peak in bytes: ru_maxrss is in bytes on macOS and in KiB elsewhere."""
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def children_of(pid: int) -> set[int]:
    """Direct children of a process, started by any of its threads. Empty where /proc does not tell."""
    found: set[int] = set()
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError):
                found.update(map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split()))
    return found


def kill_family(pid: int) -> None:
    """SIGKILL to a process and to its process group. The process too: it may not have become a leader yet."""
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if _libc is not None:
        _libc.prctl(option, value, 0, 0, 0)
