"""Runs in a child process: one call after another, each under its own limits, until the worker hangs up."""

from __future__ import annotations

import faulthandler
import math
import os
import pickle
import resource
import signal
import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from operator import attrgetter
from pkgutil import resolve_name
from typing import Any, NoReturn

from tasks.sandbox import kernel
from tasks.sandbox.wire import HEADER, MAX_BYTES, OUT_OF_MEMORY, STARTED, Kind, Reply, Request, pack, pack_error

_FRAMES = 20  # of a traceback: enough to see where, also after a runaway recursion


def serve(channel: socket.socket, faults: int) -> NoReturn:
    """Answer requests from `channel` until it closes. The stack of a crash is written to the descriptor `faults`."""
    faulthandler.enable(faults, all_threads=False)
    home = os.getcwd()
    number = 0
    try:
        while request := _receive(channel):
            number += 1
            _tidy(home)
            channel.sendall(STARTED)
            channel.sendall(pack(perform(request, number)))
            _release()
        os._exit(0)
    except SystemExit as leaving:
        os._exit(leaving.code if isinstance(leaving.code, int) else int(bool(leaving.code)))
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except OSError:  # the worker is gone
        os._exit(0)


def perform(request: Request, number: int) -> Reply:
    """Call the function under its limits, which stay until the reply is sent.

    SystemExit passes: a function that exits ends its child. So does a MemoryError on the way to the reply.
    """
    kernel.forget_peak()
    before = _cpu_used()
    _confine(request, before)
    kind: Kind = "value"
    trace, worn = "", False
    try:
        body = _call(request)
    except SystemExit:
        raise
    except BaseException as error:
        kind, body, trace, worn = _tell(error)
    worn = worn or _left_processes()
    return Reply(kind, body, trace, kernel.read_peak(), _cpu_used() - before, number, worn)


def _call(request: Request) -> bytes:
    function: Callable[..., Any] = resolve_name(request.target)
    value = function(*pickle.loads(request.arguments))
    body = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    if len(body) > MAX_BYTES:
        raise ValueError(f"{request.target} returned {len(body)} bytes; more than {MAX_BYTES} must go through a file")
    return body


def _tell(error: BaseException) -> tuple[Kind, bytes, str, bool]:
    trace = _trace(error)
    # After these two, what is left of the heap or of the interpreter is suspect.
    worn = any(isinstance(cause, MemoryError | SystemError) for cause in _chain(error))
    for cause in _chain(error):
        cause.__traceback__ = None  # its frames hold what the call had in memory
    if isinstance(error, MemoryError):
        return "memory", b"", trace, worn
    return "error", pack_error(error), trace, worn


def _confine(request: Request, used: float) -> None:
    kernel.limit(resource.RLIMIT_CPU, math.ceil(used + request.cpu_s))
    kernel.limit(resource.RLIMIT_AS, request.memory_bytes)


def _release() -> None:
    kernel.limit(resource.RLIMIT_AS, resource.RLIM_INFINITY)
    kernel.limit(resource.RLIMIT_CPU, resource.RLIM_INFINITY)


def _tidy(home: str) -> None:
    """Take back what an earlier call may have changed and this one's limits depend on."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 0)
    with suppress(OSError):
        os.chdir(home)


def _left_processes() -> bool:
    """True when the call left processes behind. Orphans count: this process adopts them."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass  # ended ones are only buried
    except ChildProcessError:
        return False
    return True


def _cpu_used() -> float:
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(sum(attrgetter("ru_utime", "ru_stime")(usage)) for usage in usages)


def _trace(error: BaseException) -> str:
    """Files, lines and names of where it happened. No messages: they can quote the document."""
    parts = []
    for cause in _chain(error):
        stack = traceback.extract_tb(cause.__traceback__, limit=-_FRAMES)
        frames = "".join(f"  {frame.filename}:{frame.lineno} {frame.name}\n" for frame in stack)
        parts.append(f"{type(cause).__name__} at\n{frames}")
    return "from ".join(parts)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        yield cause
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__


def _receive(channel: socket.socket) -> Request | None:
    header = _read(channel, HEADER.size)
    body = _read(channel, HEADER.unpack(header)[0]) if header else b""
    return Request(*pickle.loads(body)) if body else None


def _read(channel: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes, or none when the worker hung up."""
    data = bytearray()
    while len(data) < size:
        more = channel.recv(min(size - len(data), 1 << 20))
        if not more:
            return b""
        data += more
    return bytes(data)
