"""The faults of a chaos run, each as it happens in life."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from contextlib import suppress

import psycopg
from chaos.crew import AWAY, LEASE_S, Crew, Line, Worker
from chaos.plan import Fault

_BACKENDS = "select pid from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"
_CUT_OTHERS = _BACKENDS + " and pid %% 2 = 0 and pid <> all(%s) and pg_terminate_backend(pid)"
_MOST_CONNECTIONS = 300


class Saboteur:
    """Makes faults, and remembers what was made."""

    def __init__(self, crew: Crew) -> None:
        self.made: Counter[str] = Counter()
        self._crew = crew
        self._line = Line(crew)
        self._timers: list[threading.Timer] = []

    def make(self, fault: Fault) -> None:
        """Make one fault. Returns when it is made and the database answers; some of it may still go on."""
        chance = random.Random(fault.chance)
        getattr(self, "_" + fault.kind.replace(" ", "_"))(chance)
        self.made[fault.kind] += 1
        self._line.rows("select 1")

    def end(self) -> None:
        """Wait until no fault goes on any more."""
        for timer in self._timers:
            timer.join()
        self._line.hang_up()

    def _kill_worker(self, chance: random.Random) -> None:
        victim = self._choose(chance)
        victim.told = True
        victim.process.kill()

    def _stop_worker(self, chance: random.Random) -> None:
        victim = self._choose(chance)
        victim.told = True
        victim.process.terminate()

    def _freeze_worker(self, chance: random.Random) -> None:
        """Stopped for longer than its lease, then going on as if nothing had been."""
        victim = self._choose(chance)
        victim.frozen = True
        victim.process.send_signal(signal.SIGSTOP)
        self._later(LEASE_S * (1.2 + chance.random()), lambda: _thaw(victim))

    def _drop_connections(self, chance: random.Random) -> None:
        pids = [row["pid"] for row in self._line.rows(_BACKENDS)]
        for pid in chance.sample(pids, len(pids) // 2):
            self._line.rows("select pg_terminate_backend(%s)", pid)

    def _hold_rows(self, chance: random.Random) -> None:
        """Somebody locks rows of live jobs and takes their time."""
        with suppress(*AWAY):
            holder = self._crew.connect()
            holder.execute("begin")
            holder.execute(
                "select from jobs where finished_at is null order by random() limit 5 for update skip locked"
            )
            self._later(0.2 + chance.random(), holder.close)

    def _fill_connections(self, chance: random.Random) -> None:
        """No connection is left when everybody needs a new one."""
        taken: list[psycopg.Connection[dict[str, object]]] = []
        with suppress(*AWAY):
            while len(taken) < _MOST_CONNECTIONS:
                taken.append(self._crew.connect())
        assert len(taken) < _MOST_CONNECTIONS, "Postgres takes more connections than this fault opens"
        own = [connection.info.backend_pid for connection in taken]
        with suppress(*AWAY, IndexError):
            taken[0].execute(_CUT_OTHERS, [own])
        time.sleep(0.3 + chance.random() / 2)
        for connection in taken:
            connection.close()

    def _crash_backend(self, chance: random.Random) -> None:
        """One server process dies: Postgres ends all others and recovers from its log."""
        pids = [row["pid"] for row in self._line.rows(_BACKENDS)]
        if pids:
            with suppress(ProcessLookupError):
                os.kill(chance.choice(pids), signal.SIGKILL)

    def _kill_postgres(self, chance: random.Random) -> None:
        self._crew.kill_postgres()

    def _kill_api(self, chance: random.Random) -> None:
        self._crew.kill_api()
        self._crew.start_api()

    def _choose(self, chance: random.Random) -> Worker:
        """A worker that can be hit: at least one other is left to go on."""
        while True:
            up = [w for w in self._crew.workers if not w.frozen and not w.told and w.process.poll() is None]
            if len(up) > 1 or (up and len(self._crew.workers) == 1):
                return chance.choice(up)
            time.sleep(0.05)

    def _later(self, seconds: float, do: object) -> None:
        timer = threading.Timer(seconds, do)  # type: ignore[arg-type]
        timer.start()
        self._timers.append(timer)


def _thaw(worker: Worker) -> None:
    if worker.process.poll() is None:
        worker.process.send_signal(signal.SIGCONT)
    worker.frozen = False
