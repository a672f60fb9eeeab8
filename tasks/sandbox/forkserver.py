"""Runs in the forkserver: one thread that imports the heavy modules once, forks children, buries them, and reports.

Lines of JSON over one socket. From the worker: `[number]` with two descriptors, "fork a child that has these".
To the worker: ["broken", text], ["born", number, pid], ["unborn", number], and
["died", number, status, peak_memory_bytes, cause] with a wait status and "oom", "crowd" or "" as cause.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from tasks.sandbox import kernel
from tasks.sandbox.confinement import serve

_TICK_S = 0.25
_PATIENCE_S = 2.0
_OPEN_FILES = 1024
_MAX_PROCESSES = 64  # that one child may have started: RLIMIT_NPROC counts per user and spares root


def main(control_fd: int, preload: Sequence[str]) -> NoReturn:
    """The life of a forkserver: it ends when the worker's end of the socket closes."""
    kernel.call_process("sandbox-fork")
    kernel.die_with_parent()
    control = socket.socket(fileno=control_fd)
    try:
        for name in preload:
            importlib.import_module(name)
    except BaseException:
        control.sendall(json.dumps(["broken", traceback.format_exc(limit=-5)]).encode() + b"\n")
        os._exit(1)
    # From here on the closing of the socket tells it: that leaves time to take the children's families along, and
    # the thread that started this process may end.
    kernel.die_with_parent(0)
    _settle()
    Forkserver(control).run()


def _settle() -> None:
    """What every child inherits."""
    for sign in (signal.SIGTERM, signal.SIGINT):
        # A service manager signals the whole group, but a draining worker still needs its children: it ends them.
        signal.signal(sign, signal.SIG_IGN)
    kernel.adopt_orphans()
    kernel.give_up_privileges()
    kernel.limit(resource.RLIMIT_CORE, 0)
    kernel.limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    gc.collect()
    gc.freeze()  # the collector would otherwise touch, and so copy, the pages shared with the children


class Forkserver:
    """The children by pid, and the one loop that looks after them."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.numbers: dict[int, int] = {}
        self.crowds: set[int] = set()
        self.kept = kernel.children_of(os.getpid())  # processes that a preloaded module started
        self.oom_kills = kernel.count_oom_kills()
        self.bell, self.rope = os.pipe()
        os.set_blocking(self.rope, False)
        os.set_blocking(self.bell, False)
        signal.set_wakeup_fd(self.rope, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self) -> NoReturn:
        with suppress(OSError):
            while self.step():
                pass
        self.end_all()
        os._exit(0)

    def step(self) -> bool:
        """Wait for an order, a death or the next look round. False when the worker is gone."""
        orders = self.control.fileno()
        ready, _, _ = select.select([orders, self.bell], [], [], _TICK_S)
        if self.bell in ready:
            os.read(self.bell, 4096)
        self.bury()
        self.break_up_crowds()
        return self.obey() if orders in ready else True

    def obey(self) -> bool:
        # One read never crosses a message with descriptors, so there is at most one order in it.
        line, descriptors, _, _ = socket.recv_fds(self.control, 4096, 2)
        if not line:
            return False
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        self.fork(json.loads(line)[0], *descriptors)
        return True

    def fork(self, number: int, channel: int, faults: int) -> None:
        try:
            pid = os.fork()
        except OSError:
            self.tell("unborn", number)
        else:
            if pid == 0:
                self.become_child(channel, faults)
            self.numbers[pid] = number
            self.tell("born", number, pid)
        os.close(channel)
        os.close(faults)

    def become_child(self, channel: int, faults: int) -> NoReturn:
        try:
            os.setsid()
            kernel.die_with_parent()
            kernel.adopt_orphans()
            kernel.volunteer_for_oom_killer()
            kernel.call_process("sandbox-child")
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self.control.close()
            os.close(self.bell)
            os.close(self.rope)
            serve(socket.socket(fileno=channel), faults)
        finally:
            os._exit(1)  # a child must never fall back into the forkserver's loop

    def bury(self) -> None:
        """Take every ended child off, with all that it left behind."""
        buried = False
        with suppress(ChildProcessError):
            while True:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
                if not pid:
                    break
                buried = True
                if pid in self.numbers:
                    self.report(pid, status, usage)
        if buried:
            self.kill_strays()

    def report(self, pid: int, status: int, usage: resource.struct_rusage) -> None:
        kernel.kill_family(pid)
        self.tell("died", self.numbers.pop(pid), status, kernel.peak_of(usage), self.cause(pid, status))

    def cause(self, pid: int, status: int) -> str:
        if pid in self.crowds:
            self.crowds.discard(pid)
            return "crowd"
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            return ""
        before, self.oom_kills = self.oom_kills, kernel.count_oom_kills()
        return "oom" if self.oom_kills > before else ""

    def kill_strays(self) -> None:
        """Kill what ended children left to us: processes that had left their group."""
        for pid in kernel.children_of(os.getpid()) - self.numbers.keys() - self.kept:
            kernel.kill_family(pid)

    def break_up_crowds(self) -> None:
        for pid in self.numbers:
            if len(kernel.children_of(pid)) > _MAX_PROCESSES:
                self.crowds.add(pid)
                kernel.kill_family(pid)

    def end_all(self) -> None:
        """Kill all children and their families, and wait until none is left."""
        deadline = time.monotonic() + _PATIENCE_S
        self.kept.clear()
        for pid in self.numbers:
            kernel.kill_family(pid)
        with suppress(ChildProcessError):
            while time.monotonic() < deadline:
                if not os.waitpid(-1, os.WNOHANG)[0]:
                    select.select([self.bell], [], [], 0.01)
                self.kill_strays()

    def tell(self, *message: object) -> None:
        self.control.sendall(json.dumps(message).encode() + b"\n")
