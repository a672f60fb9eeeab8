"""The process between Ledgerline and its Postgres: it starts Postgres, and ends it when its owner is gone.

Run as a script by tasks.embedded.server, with the standard library only: the interpreter may be one that the user
Postgres runs as cannot read, and a start should cost milliseconds. Standard input is a pipe held by the owner:
a byte or its end means stop, so kill -9 of the owner is noticed at once. Should the guardian itself be killed, the
kernel (on Linux) sends Postgres a fast shutdown.

argv[1] is JSON: command, account (arguments for Popen), handles (open files to pass on), owner (process id),
temporary (a folder to remove at the end, or null).
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1
_OWNER_CHECK_S = 1.0
# Fast shutdown; then drop everything and recover at the next start; then the last resort.
_FAREWELLS = ((signal.SIGINT, 20), (signal.SIGQUIT, 10), (signal.SIGKILL, 5))


def main() -> int:
    """Keep Postgres for as long as the owner wants it. Returns Postgres's exit code."""
    order = json.loads(sys.argv[1])
    wake = watch_signals()
    try:
        child = launch(order)
    except OSError as error:
        print(f"FATAL: cannot run Postgres: {error}", file=sys.stderr, flush=True)
        return 1
    wait_for_a_reason(child, wake, order["owner"])
    end(child)
    if order["temporary"]:
        shutil.rmtree(order["temporary"], ignore_errors=True)
    return child.returncode


def watch_signals() -> int:
    """A file that becomes readable when a child ends or when someone asks this process to end."""
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return readable


def launch(order: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Start Postgres so that it cannot outlive this process."""
    here = os.getpid()
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def tie_to_guardian() -> None:
        # After the change of user: changing it clears the request.
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != here:
            os._exit(1)

    return subprocess.Popen(
        order["command"],
        stdin=subprocess.DEVNULL,
        cwd="/",
        pass_fds=order["handles"],
        preexec_fn=tie_to_guardian,
        **order["account"],
    )


def wait_for_a_reason(child: subprocess.Popen[bytes], wake: int, owner: int) -> None:
    """Return when Postgres ended by itself, the owner says stop, the owner is gone, or a signal asks to end."""
    while child.poll() is None:
        readable, _, _ = select.select([sys.stdin.fileno(), wake], [], [], _OWNER_CHECK_S)
        if sys.stdin.fileno() in readable:
            return
        if wake in readable and set(os.read(wake, 64)) - {signal.SIGCHLD}:
            return
        # A forked child of the owner may hold the pipe open after the owner's death.
        if os.getppid() != owner:
            return


def end(child: subprocess.Popen[bytes]) -> None:
    """Shut Postgres down, politely first."""
    for number, patience in _FAREWELLS:
        if child.poll() is not None:
            return
        child.send_signal(number)
        try:
            child.wait(patience)
        except subprocess.TimeoutExpired:
            continue


if __name__ == "__main__":
    sys.exit(main())
