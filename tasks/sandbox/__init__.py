"""Confined child processes: warm, limited per call, and really killable.

    worker (asyncio)             forkserver (one thread)          child (one per slot)
    Sandbox ── Nursery ─ fork ─▶ imports `preload` once ─ fork ─▶ runs one call after another
       └──────────────── request, reply: a socket of their own ───────┘

- pool        the slots: who runs next, in which child, and what becomes of the child
- nursery     the worker's view of the forkserver; child: its view of one child
- forkserver  runs in the forkserver: forks, buries, reports
- confinement runs in a child: applies the limits, calls the function, measures
- wire        what is said between worker and child
- kernel      what only the kernel can do
- outcomes    what a caller gives and gets: Limits, Result and the errors

Why not a pool from a library: with pebble 5.2 one error that cannot be unpickled ends the whole pool, so does the
death of the forkserver, a child that ignores SIGTERM lives for three seconds, and all children share one pipe.

A child leads its own session, so a kill takes everything it started with it. Linux is needed for the whole
promise; elsewhere the memory limit and the cleaning up after a killed forkserver are best effort.
"""

from tasks.sandbox.outcomes import Confined, CpuExceeded, Crashed, Limits, OutOfMemory, Result, TimedOut
from tasks.sandbox.pool import Sandbox

__all__ = ["Confined", "CpuExceeded", "Crashed", "Limits", "OutOfMemory", "Result", "Sandbox", "TimedOut"]
