"""Watching real processes from a test: what runs, what has ended, and waiting for it with a deadline."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

DEADLINE_S = 60.0


def ended(pid: int) -> bool:
    """True when the process is gone, or is a corpse that nobody has buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def all_ended(pids: Iterable[int]) -> bool:
    return all(ended(pid) for pid in pids)


def numbers_in(path: Path) -> list[int]:
    """The whole lines of numbers that a process has written so far."""
    text = path.read_text() if path.exists() else ""
    return [int(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


async def until(holds: Callable[[], Any], within: float = DEADLINE_S) -> float:
    """Wait until `holds()` is true and say how long that took. AssertionError after `within` seconds."""
    started = time.monotonic()
    while not holds():
        waited = time.monotonic() - started
        assert waited < within, f"not so after {waited:.1f} s"
        await asyncio.sleep(0.005)
    return time.monotonic() - started


def descendants(pid: int) -> set[int]:
    """All living processes below one."""
    found: set[int] = set()
    for child in _children(pid):
        found |= {child} | descendants(child)
    return {one for one in found if not ended(one)}


def _children(pid: int) -> set[int]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        return {int(one) for t in threads for one in Path(f"/proc/{pid}/task/{t}/children").read_text().split()}
    except OSError:
        return set()
