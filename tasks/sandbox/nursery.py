"""The worker's view of the forkserver: it starts it, orders children from it, and hears of their births and deaths."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

from tasks.sandbox import kernel
from tasks.sandbox.child import Child, Death, Unstarted

_CLOSE_S = 3.0
_KEPT = ("PATH", "HOME", "LANG", "TZ")
_KEPT_PREFIXES = ("LC_", "PYTHON")

# The module path is set first: nothing of ours could be imported without it.
_BOOT = """
import json, sys
path, control, preload = json.loads(sys.argv.pop())
sys.path[:] = path
from tasks.sandbox.forkserver import main
main(control, preload)
"""


class Nursery:
    """One forkserver and its children, used from the event loop it was made in."""

    def __init__(self, preload: Sequence[str]) -> None:
        self.alive = True
        self._problem = ""
        self._heard = b""
        self._children: dict[int, Child] = {}
        self._numbers = itertools.count(1)
        self._loop = asyncio.get_running_loop()
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = _start(theirs.fileno(), preload)
        self._control.setblocking(False)
        self._loop.add_reader(self._control, self._listen)

    @property
    def pid(self) -> int:
        """Process id of the forkserver."""
        return self._process.pid

    async def fork(self) -> Child:
        """A new child. Unstarted when the forkserver is gone; RuntimeError when it could not import its modules."""
        number = next(self._numbers)
        child = await self._order(number)
        try:
            await child.appeared()
        except BaseException:
            child.kill()
            raise
        if not child.born.done() and not child.death.done():
            self.end()  # a forkserver that forks nothing for a minute is of no use
        if child.death.done():
            raise RuntimeError(self._problem) if self._problem else Unstarted
        return child

    async def _order(self, number: int) -> Child:
        ours, theirs = socket.socketpair()
        faults, theirs_too = os.pipe()
        child = self._children[number] = Child(faults)
        try:
            socket.send_fds(self._control, [json.dumps([number]).encode()], [theirs.fileno(), theirs_too])
        except OSError:
            self.end()
        finally:
            theirs.close()
            os.close(theirs_too)
        await child.connect(ours)
        return child

    def _listen(self) -> None:
        try:
            heard = self._control.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            heard = b""
        if not heard:
            return self.end()
        *lines, self._heard = (self._heard + heard).split(b"\n")
        for line in lines:
            self._learn(*json.loads(line))

    def _learn(self, what: str, *news: object) -> None:
        match what, news:
            case "broken", (str(text),):
                self._problem = text
            case "born", (int(number), int(pid)):
                self._children[number].learn_birth(pid)
            case "unborn", (int(number),):
                self._children.pop(number).learn_death(Death(None))
            case "died", (int(number), int(status), int(peak), str(cause)):
                self._children.pop(number).learn_death(Death(status, peak, cause))

    def end(self) -> None:
        """End the forkserver and all its children now. Also the answer to its own death."""
        self._hang_up()
        self._process.kill()
        self._process.wait()
        self._mourn()

    def close(self) -> None:
        """Let the forkserver end its children and itself; after three seconds, end both."""
        self._hang_up()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_CLOSE_S)
        self.end()

    async def aclose(self) -> None:
        """close() that leaves the event loop free."""
        self._hang_up()
        with suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, _CLOSE_S)
        self.end()

    def _hang_up(self) -> None:
        if self.alive:
            self.alive = False
            if not self._loop.is_closed():
                self._loop.remove_reader(self._control)
            self._control.close()

    def _mourn(self) -> None:
        # A killed forkserver takes its children along (they die with their parent), but not what those had started.
        for child in self._children.values():
            if child.pid:
                kernel.kill_family(child.pid)
            child.learn_death(Death(None))
        self._children.clear()


def _start(control: int, preload: Sequence[str]) -> subprocess.Popen[bytes]:
    path = [os.path.abspath(entry) for entry in sys.path]  # "" stands for the working directory
    # Nothing a child prints may reach a log: it can quote the manuscript.
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _BOOT, json.dumps([path, control, list(preload)])],
        env=clean_environment(os.environ),
        pass_fds=[control],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What children may know of the worker's environment: no addresses, no keys."""
    return {name: value for name, value in environment.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)}
