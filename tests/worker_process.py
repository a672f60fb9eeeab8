"""Real workers as processes of their own, to be watched, frozen and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import psycopg
from ledger_play import Play
from processes import descendants, ended
from psycopg.rows import dict_row
from tree import ROOT
from waiting import Follower, following, until

PACKAGES = ("sample_pipelines", "engine_pipelines")
_RUN = "import tasks.settings, tasks.worker; tasks.worker.run(tasks.settings.load())"
_OVER = ("completed", "failed", "cancelled")


class WorkerProcess:
    """A worker that was started, and what it wrote into its log."""

    def __init__(self, folder: Path, environment: dict[str, str], number: int) -> None:
        self.log = folder / f"worker-{number}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _RUN],
                env=environment,
                cwd=folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid = self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def says(self, text: str) -> bool:
        return text in self.log.read_text(errors="replace")

    def freeze(self) -> None:
        """Stop it in its tracks, and its children with it."""
        for pid in {self.pid, *descendants(self.pid)}:
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in {self.pid, *descendants(self.pid)}:
            os.kill(pid, signal.SIGCONT)

    def kill(self) -> None:
        """kill -9, and wait until it and its children are gone."""
        children = descendants(self.pid)
        self.process.kill()
        self.process.wait(20)
        until(lambda: all(ended(child) for child in children))

    def terminate(self) -> None:
        """Ask it to drain."""
        self.process.terminate()

    def end(self) -> int:
        """Wait until it has drained; its exit code."""
        return self.process.wait(30)


class House:
    """A database, a storage folder and any number of workers. Whoever plays here commits at once."""

    def __init__(self, url: str, folder: Path, play: Play, follower: Follower) -> None:
        self.url = url
        self.folder = folder
        self.play = play
        self.follower = follower
        self.workers: list[WorkerProcess] = []
        self._gates = 0

    def start(self, **settings: object) -> WorkerProcess:
        """Start a worker. `settings` by their names in the environment, in lower case."""
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
            "DATABASE_URL": self.url,
            "LINK_SECRET": "x" * 32,
            "PIPELINES": ",".join(PACKAGES),
            "STORAGE_PATH": str(self.folder / "storage"),
            "HEARTBEAT_S": "0.2",
            "LEASE_S": "1.5",
            "SWEEP_INTERVAL_S": "1",
            "DRAIN_TIMEOUT_S": "20",
        } | {name.upper(): str(value) for name, value in settings.items()}
        worker = WorkerProcess(self.folder, environment, len(self.workers))
        self.workers.append(worker)
        until(lambda: self.beats(worker) or not worker.alive)
        assert worker.alive, worker.log.read_text(errors="replace")
        return worker

    def beats(self, worker: WorkerProcess) -> bool:
        """Whether the ledger knows the worker."""
        return bool(self.play.all("select from ops.workers where pid = %s", worker.pid))

    def gate(self) -> Path:
        """A file that is not there yet, for steps that wait for it."""
        self._gates += 1
        return self.folder / f"gate-{self._gates}"

    def reached(self, gate: Path) -> list[list[int]]:
        """Process id and attempt of each time that a step has come to its gate."""
        path = gate.with_suffix(".reached")
        text = path.read_text() if path.exists() else ""
        return [[int(word) for word in line.split()] for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def is_over(self, *jobs: UUID) -> bool:
        return all(self.play.job(job)["status"] in _OVER for job in jobs)

    def finish(self, *jobs: UUID) -> list[str]:
        """Wait until jobs are over; their statuses."""
        self.follower.until(lambda: self.is_over(*jobs), within=60)
        return [self.play.job(job)["status"] for job in jobs]

    def assert_whole(self, *jobs: UUID) -> None:
        """Nothing drifts, nothing is left in the queue, histories have no gap, and effects are there once."""
        assert self.play.drift() == []
        until(lambda: self.play.queue() == [])
        for job in jobs:
            seqs = [event["seq"] for event in self.play.events(job)]
            assert seqs == list(range(1, self.play.job(job)["last_seq"] + 1))
            assert self.play.kinds(job).count("completed") == (self.play.job(job)["status"] == "completed")
            done = Counter(
                (one["step"], one["item"]) for one in self.play.events(job) if one["kind"] == "step_completed"
            )
            runs = {(run["step"], run["item"]): run["status"] for run in self.play.runs(job)}
            assert done == Counter(run for run, status in runs.items() if status == "completed")

    def close(self) -> None:
        """Kill what still runs."""
        for worker in self.workers:
            if worker.alive:
                worker.thaw()
                worker.kill()


@contextmanager
def open_house(url: str, folder: Path) -> Iterator[House]:
    """A house on a migrated database."""
    with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection, following(url) as follower:
        house = House(url, folder, Play(connection, PACKAGES), follower)
        try:
            yield house
        finally:
            house.close()
