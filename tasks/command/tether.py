"""Become another program that ends when its parent ends. A script: `python -I -S tether.py PARENT PROGRAM ARGUMENT...`.

On Linux the kernel sends SIGKILL when the parent is gone, however it went; the request survives exec. Not SIGTERM: the
database goes with the same parent, and a worker that drains without one would stay for long. Elsewhere a process whose
parent was killed with -9 stays, and has to be ended by hand.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask the kernel for the signal, then become the program."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have ended before the request was made.
    if os.getppid() != parent:
        sys.exit(1)
    os.execv(program[0], program)  # noqa: S606 - no shell, and the arguments are our own


if __name__ == "__main__":
    main()
