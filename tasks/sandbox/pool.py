"""The slots of the sandbox: who runs next, in which child, and what becomes of that child."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
from collections.abc import Sequence
from types import TracebackType

from tasks.sandbox.child import Child, Death, Unstarted
from tasks.sandbox.nursery import Nursery
from tasks.sandbox.outcomes import Confined, CpuExceeded, Crashed, Limits, OutOfMemory, Result, TimedOut
from tasks.sandbox.wire import OUT_OF_MEMORY, Reply, Request, open_error, open_value, pack

_STARTS = 3
# How native code ends when an allocation fails, if it was close to its limit then.
_OUT_OF_MEMORY_SIGNALS = {signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGTRAP}
_CLOSE_TO_LIMIT = 0.8


class Sandbox:
    """A pool of warm child processes, used from one event loop.

    `max_tasks`: calls a child serves before it is replaced. `preload`: modules that the forkserver imports once, so
    that every child has them from birth. Processes start at the first call, or with start().
    """

    def __init__(self, children: int, *, max_tasks: int = 500, preload: Sequence[str] = ()) -> None:
        if children < 1 or max_tasks < 1:
            raise ValueError("children and max_tasks must be at least 1")
        self._children = children
        self._max_tasks = max_tasks
        self._preload = tuple(preload)
        self._slots = asyncio.Semaphore(children)  # first come, first served
        self._idle: list[Child] = []
        self._nursery: Nursery | None = None
        self._closed = False

    async def start(self) -> None:
        """Have all children ready. RuntimeError when a module of `preload` cannot be imported."""
        await asyncio.gather(*(self._warm_up() for _ in range(self._children)))

    async def run(self, target: str, *args: object, limits: Limits) -> Result:
        """Call `package.module:function` with `args` in a child.

        Waits for a free child in order of calling; the limits count from when the child begins. Raises what the
        function raises, with the child's stack as a note; Confined when the child was stopped or stopped itself;
        RuntimeError when the sandbox is closed. Cancelling kills the child before CancelledError comes out.
        """
        if ":" not in target:
            raise ValueError(f"{target!r} is not of the form package.module:function")
        arguments = pickle.dumps(args, pickle.HIGHEST_PROTOCOL)
        request = pack(Request(target, arguments, limits.cpu_s, limits.memory_bytes))
        async with self._slots:
            for _ in range(_STARTS):
                try:
                    return await self._use(await self._take(), request, limits)
                except Unstarted:
                    continue  # nothing of it has run
        raise Crashed("no child process could be started")

    def close(self) -> None:
        """End all children. Calls in flight raise Crashed. Blocks for three seconds at most."""
        self._closed = True
        self._idle.clear()
        if self._nursery is not None:
            self._nursery.close()

    async def aclose(self) -> None:
        """close() that leaves the event loop free."""
        self._closed = True
        self._idle.clear()
        if self._nursery is not None:
            await self._nursery.aclose()

    async def __aenter__(self) -> Sandbox:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _warm_up(self) -> None:
        async with self._slots:
            for _ in range(_STARTS):
                try:
                    return self._idle.append(await self._take())
                except Unstarted:
                    continue
        raise Crashed("no child process could be started")

    async def _take(self) -> Child:
        if self._closed:
            raise RuntimeError("the sandbox is closed")
        while self._idle:
            child = self._idle.pop()
            if not child.death.done():
                return child
        if self._nursery is None or not self._nursery.alive:
            self._nursery = Nursery(self._preload)
        return await self._nursery.fork()

    async def _use(self, child: Child, request: bytes, limits: Limits) -> Result:
        try:
            await child.begin(request)
            reply = await _await_reply(child, limits)
        except BaseException:
            child.kill()
            await child.buried()  # so that nothing of this call happens after it has raised
            raise
        if reply.worn or reply.task_number >= self._max_tasks or self._closed:
            child.kill()
        else:
            self._idle.append(child)
        return _open(reply, child.pid)


async def _await_reply(child: Child, limits: Limits) -> Reply:
    try:
        async with asyncio.timeout(limits.wall_s):
            return await child.reply()
    except TimeoutError:
        child.kill()
        peak = (await child.buried()).peak_memory_bytes
        message = f"stopped after {limits.wall_s:g} s of wall clock"
        raise TimedOut(message, child_pid=child.pid, peak_memory_bytes=peak) from None
    except (EOFError, OSError):
        raise _judge(child, await child.buried(), limits) from None


def _open(reply: Reply, pid: int) -> Result:
    if reply.kind == "memory":
        message = "an allocation failed at the memory limit"
        raise OutOfMemory(message, child_pid=pid, peak_memory_bytes=reply.peak_memory_bytes, detail=reply.trace)
    if reply.kind == "error":
        error = open_error(reply.body)
        error.add_note(f"in child {pid}: {reply.trace}")
        raise error
    value = open_value(reply.body)
    return Result(value, reply.peak_memory_bytes, reply.cpu_s, pid, reply.task_number)


def _judge(child: Child, death: Death, limits: Limits) -> Confined:
    """What a death means. `detail` is the stack of the crash, if the child could still write it."""
    pid, peak, where = child.pid, death.peak_memory_bytes, child.faults
    if death.status is None:
        return Crashed("the child was lost", child_pid=pid, detail=where)
    code = os.waitstatus_to_exitcode(death.status)
    if -code == signal.SIGXCPU:
        return CpuExceeded(f"stopped after {limits.cpu_s:g} s of CPU", child_pid=pid, peak_memory_bytes=peak)
    if death.cause == "oom" or code == OUT_OF_MEMORY or _died_at_limit(-code, death, limits):
        return OutOfMemory("ended by lack of memory", child_pid=pid, peak_memory_bytes=peak, detail=where)
    sign, exit_code = (-code, None) if code < 0 else (None, code)
    message = f"ended by {signal.Signals(-code).name}" if sign else f"ended itself with exit code {code}"
    if death.cause == "crowd":
        message = "stopped for starting too many processes"
    return Crashed(message, signal=sign, exit_code=exit_code, child_pid=pid, peak_memory_bytes=peak, detail=where)


def _died_at_limit(sign: int, death: Death, limits: Limits) -> bool:
    return sign in _OUT_OF_MEMORY_SIGNALS and death.peak_memory_bytes >= _CLOSE_TO_LIMIT * limits.memory_bytes
