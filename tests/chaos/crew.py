"""The processes of a chaos run: Postgres, workers and the API, kept alive whatever is done to them."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psycopg
from psycopg.rows import dict_row
from workers import ROOT, start_worker, worker_environment

from tasks.embedded import EmbeddedPostgres, EmbeddedPostgresError

T = TypeVar("T")
Row = dict[str, Any]

LEASE_S = 1.5
PATIENCE_S = 90.0
_STOP_S = 30
AWAY = (psycopg.OperationalError, psycopg.InterfaceError)
SETTINGS: dict[str, object] = {
    "lease_s": LEASE_S,
    "heartbeat_s": 0.3,
    "sweep_interval_s": 1,
    "drain_timeout_s": 2,
    "worker_children": 1,
    "worker_queues": "cpu,llm",
    "database_pool_size": 6,
    "queue_timeout_s": 600,
    # Losing workers is what happens here; being quarantined for it has tests of its own.
    "max_losses": 100,
}


class Line:
    """A connection to the database that is made again whenever it broke."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._connection: psycopg.Connection[Row] | None = None

    def ask(self, what: Callable[[psycopg.Connection[Row]], T], patience: float = PATIENCE_S) -> T:
        """Do it on a connection that works; again after each loss, so what is done must bear that."""
        deadline = time.monotonic() + patience
        while True:
            try:
                if self._connection is None:
                    self._connection = self._crew.connect()
                return what(self._connection)
            except AWAY:
                self.hang_up()
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    def rows(self, query: str, *arguments: Any) -> list[Row]:
        return self.ask(lambda connection: connection.execute(query, arguments or None).fetchall())  # type: ignore[arg-type]

    def hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@dataclass
class Worker:
    """One place in the crew, and the process that has it now."""

    number: int
    process: subprocess.Popen[bytes]
    told: bool = False
    frozen: bool = False


class Crew:
    """Starts everything, and starts again what ended. `fell`: workers that ended although nobody told them to."""

    def __init__(self, folder: Path, workers: int, *, api: bool) -> None:
        self.folder = folder
        self.secret = secrets.token_hex(16)
        self.postgres = EmbeddedPostgres(folder / "postgres", durable=True)
        self.api_port = _free_port() if api else 0
        self.workers: list[Worker] = []
        self.fell: list[str] = []
        self.exits: list[int] = []
        self._size = workers
        self._api: subprocess.Popen[bytes] | None = None
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    def connect(self) -> psycopg.Connection[Row]:
        return psycopg.connect(self.postgres.url, autocommit=True, row_factory=dict_row, connect_timeout=5)

    def start(self) -> None:
        """Start workers and API on a database that has been migrated."""
        self.workers = [Worker(number, self._start_worker(number)) for number in range(self._size)]
        if self.api_port:
            self.start_api()
        self._keeper.start()

    def start_api(self) -> None:
        """Start the API and wait until it answers."""
        environment = worker_environment(self.postgres.url, self.folder, "chaos.pipelines") | {
            "HOST": "127.0.0.1", "PORT": str(self.api_port), "JWT_SECRET": self.secret,
            "JWT_ISSUER": "http://127.0.0.1/auth/v1",
        }  # fmt: skip
        command = [sys.executable, "-m", "gunicorn", "--config", "api/gunicorn.py", "api:create_app()"]
        with (self.folder / "api.log").open("ab") as said:
            self._api = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=said, stderr=said, start_new_session=True
            )
        deadline = time.monotonic() + PATIENCE_S
        while not self._api_answers():
            assert time.monotonic() < deadline, "the API does not answer; see api.log"
            time.sleep(0.05)

    def kill_api(self) -> None:
        """End the API at once, with the processes it has made."""
        if self._api is not None and self._api.poll() is None:
            os.killpg(self._api.pid, signal.SIGKILL)
            self._api.wait()

    def kill_postgres(self) -> None:
        """End Postgres at once, and start it again where it was."""
        url = self.postgres.url
        os.kill(int((self.folder / "postgres" / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE_S
        while not self.postgres.running:
            assert time.monotonic() < deadline, "Postgres does not come back"
            try:
                self.postgres.start()
            except EmbeddedPostgresError:
                time.sleep(0.05)
        assert self.postgres.url == url, "somebody took the port of Postgres; run it again"

    def stop(self) -> None:
        """End all in good order. Workers' exit codes are in `exits`."""
        self._over.set()
        if self._keeper.is_alive():
            self._keeper.join()
        for worker in self.workers:
            worker.process.send_signal(signal.SIGCONT)
            worker.process.terminate()
        for worker in self.workers:
            try:
                self.exits.append(worker.process.wait(_STOP_S))
            except subprocess.TimeoutExpired:
                self.fell.append(
                    f"worker {worker.number} did not stop within {_STOP_S} s; see what it waits for in its log"
                )
                worker.process.send_signal(signal.SIGUSR1)
                time.sleep(1)
                worker.process.kill()
                worker.process.wait()

    def close(self) -> None:
        """Leave nothing running."""
        self._over.set()
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()
        self.kill_api()
        self.postgres.stop()

    def _keep(self) -> None:
        """Do what a supervisor does: start again what ended."""
        while not self._over.wait(0.1):
            for worker in self.workers:
                code = worker.process.poll()
                if code is None:
                    continue
                # SIGTERM ends a worker at once that has not come to listen for it yet.
                if not worker.told or code not in (0, -signal.SIGKILL, -signal.SIGTERM):
                    self.fell.append(f"worker {worker.number} ended with {code}")
                worker.told = worker.frozen = False
                worker.process = self._start_worker(worker.number)

    def _start_worker(self, number: int) -> subprocess.Popen[bytes]:
        environment = worker_environment(self.postgres.url, self.folder, "chaos.pipelines", **SETTINGS)
        return start_worker(environment, self.folder, self.folder / f"worker-{number}.log")

    def _api_answers(self) -> bool:
        try:
            return httpx.get(f"{self.api_url}/healthz", timeout=2).status_code == 200
        except httpx.TransportError:
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
