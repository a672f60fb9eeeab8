"""What children of the sandbox are made to do in tests. Most of it is naughty."""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

from tasks.errors import Permanent, Transient

LOADED_IN = os.getpid()  # once per process that imports this module


def echo(*values: object) -> tuple[object, ...]:
    return values


def where_loaded() -> int:
    return LOADED_IN


def mark(path: str) -> None:
    """Append this process to a file: shows that, and how often, something ran."""
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")


def refuse_for_good(code: str) -> NoReturn:
    raise Permanent(code, "This file is not a book.", detail="page 3")


def ask_to_wait(seconds: float) -> NoReturn:
    raise Transient(retry_after=seconds)


class Unpicklable(Exception):
    def __reduce__(self) -> NoReturn:
        raise TypeError("never")


class Unopenable(Exception):
    """Pickles, but cannot be made again: its arguments do not fit."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class Greedy(Exception):
    """Wants 3 GiB to say what happened."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Greedy, (len(bytearray(3 << 30)),))


class UnopenableValue:
    def __reduce__(self) -> tuple[object, ...]:
        return (_fail_outside, (os.getpid(),))


def _fail_outside(pid: int) -> str:
    if os.getpid() != pid:
        raise LookupError("only at home")
    return "at home"


def raise_unpicklable() -> NoReturn:
    raise Unpicklable("the spine is broken")


def raise_unopenable() -> NoReturn:
    raise Unopenable("the spine", "the cover")


def raise_greedy() -> NoReturn:
    raise Greedy


def return_unopenable() -> UnopenableValue:
    return UnopenableValue()


def return_unpicklable() -> object:
    return lambda: None


def return_bytes(size: int) -> bytes:
    return bytes(size)


def interrupt() -> NoReturn:
    raise KeyboardInterrupt("from within")


def cancel_itself() -> NoReturn:
    raise asyncio.CancelledError


def say_secret(secret: str) -> NoReturn:
    raise ValueError(secret)


def segfault() -> None:
    ctypes.string_at(0)


def leave(code: int) -> NoReturn:
    os._exit(code)


def leave_politely(code: int) -> NoReturn:
    sys.exit(code)


def hang(path: str) -> NoReturn:
    mark(path)
    while True:
        time.sleep(60)


def hang_deaf(path: str) -> NoReturn:
    """Hang with every signal that can be ignored ignored, and every one that can be blocked blocked."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGXCPU):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    hang(path)


def burn(path: str) -> NoReturn:
    """Compute in C for ever, without ever looking at signals."""
    mark(path)
    sum(range(10**15))
    raise AssertionError("the sun has gone out")


def burn_for(seconds: float) -> float:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return seconds


def grow() -> NoReturn:
    """Take memory, MiB by MiB, and touch it."""
    kept = []
    while True:
        kept.append(bytearray(1 << 20))


def allocate(size: int) -> int:
    return len(bytearray(size))


def allocate_and_hide_it(size: int) -> NoReturn:
    try:
        bytearray(size)
    except MemoryError as error:
        raise Permanent("too_big", "This book is too big.") from error
    raise AssertionError("there was room")


def allocate_and_abort(size: int) -> NoReturn:
    """End as C++ does when memory runs out."""
    kept = b"x" * size
    os.kill(os.getpid(), signal.SIGABRT)
    raise AssertionError(len(kept))


def recurse_in_c() -> NoReturn:
    """Run over the end of the C stack: each level is a call from C into Python and back."""
    sys.setrecursionlimit(10**8)

    class Endless:
        def __getattr__(self, name: str) -> object:
            return getattr(self, name)

    getattr(Endless(), "x")  # noqa: B009 - the C function is the point
    raise AssertionError("it ended")


def recurse() -> int:
    sys.setrecursionlimit(10**9)
    return recurse()


def fork_bomb(path: str) -> NoReturn:
    """Start processes for ever. They only sleep: the machine that runs the tests is needed by others."""
    while True:
        if os.fork() == 0:
            mark(path)
            time.sleep(600)


def start_family(path: str) -> None:
    """A grandchild, and one that does everything to get away: own session, parent gone."""
    subprocess.Popen([sys.executable, "-c", _SLEEPER, path])
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            mark(path)
            time.sleep(600)
        os._exit(0)


def start_family_and_hang(path: str) -> NoReturn:
    start_family(path)
    while True:
        time.sleep(60)


def start_family_in_group_and_burn(path: str) -> NoReturn:
    """A grandchild, then this child itself, in that order."""
    if os.fork() == 0:
        mark(path)
        time.sleep(600)
    while not os.path.exists(path):
        time.sleep(0.005)
    burn(path)


_SLEEPER = """
import os, sys, time
with open(sys.argv[1], "a") as file:
    file.write(f"{os.getpid()}\\n")
time.sleep(600)
"""


def work_until(path: str, gate: str) -> str:
    """Say that it has begun, then wait until the file `gate` is there."""
    mark(path)
    while not os.path.exists(gate):
        time.sleep(0.005)
    return "undisturbed"


def chatter(text: str) -> None:
    print(text, flush=True)
    print(text, file=sys.stderr, flush=True)
    for descriptor in (1, 2):
        os.write(descriptor, text.encode())


def environment() -> dict[str, str]:
    return dict(os.environ)


def open_files() -> dict[int, str]:
    return {int(fd): os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd)}


def _is_open(descriptor: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{descriptor}")


def limits_seen() -> dict[str, tuple[int, int]]:
    return {name: resource.getrlimit(getattr(resource, name)) for name in ("RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_NOFILE")}


def status_line(name: str) -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))


def disturb(folder: str) -> None:
    """Leave signals, timers and the working directory in disorder for the next call."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGXCPU])
    signal.signal(signal.SIGXCPU, signal.SIG_IGN)
    signal.alarm(3600)
    os.chdir(folder)


def look_around() -> tuple[str, float, set[int]]:
    remaining = signal.getitimer(signal.ITIMER_REAL)[0]
    return os.getcwd(), remaining, set(signal.pthread_sigmask(signal.SIG_BLOCK, []))


def scribble_over_sockets() -> None:
    """Write nonsense to every socket in reach, as memory corruption might."""
    for descriptor, name in open_files().items():
        if name.startswith("socket:"):
            os.write(descriptor, b"\x00" * 7 + b"\x04" + b"junk")


def close_everything(path: str) -> NoReturn:
    """Lose the connection to the worker and live on."""
    os.closerange(3, 1000)
    hang(path)


def terminate_itself() -> str:
    os.kill(os.getpid(), signal.SIGTERM)
    return "still here"


def allocate_touched(size: int) -> int:
    return len(b"x" * size)
