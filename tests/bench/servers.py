"""What every contender runs on: one durable Postgres with a database for each, and one Redis for Celery.

Redis is started as its Debian package configures it, which is also its own default: `appendonly no`, snapshots now and
then. So Celery is measured as most people run it, with a broker that may lose the last minutes in a crash, against
contenders whose every commit is on disk. BENCH_APPENDONLY=always measures it with an equal promise.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
from psycopg import sql

from tasks.embedded import EmbeddedPostgres


@dataclass(frozen=True)
class Servers:
    """Where Postgres and Redis are. `folder`: room for files, gone afterwards."""

    postgres: str
    postmaster: int
    redis: str | None
    redis_process: int | None
    folder: Path

    def make_database(self, name: str) -> str:
        """A new, empty database; its address."""
        with psycopg.connect(self.postgres, autocommit=True) as connection:
            connection.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
        return urlsplit(self.postgres)._replace(path=f"/{name}").geturl()

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds that each server has used up to now, ended backends included."""
        used = {"postgres": _tree_cpu_s(self.postmaster)}
        return used | ({"redis": _tree_cpu_s(self.redis_process)} if self.redis_process else {})


@contextmanager
def start_servers(*, with_redis: bool) -> Iterator[Servers]:
    """Postgres (fsync on), and Redis when it is asked for; both end with the context."""
    with tempfile.TemporaryDirectory(prefix="ledgerline-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        with EmbeddedPostgres(folder / "postgres", durable=True) as postgres, _redis(folder, with_redis) as redis:
            postmaster = int((folder / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
            yield Servers(postgres.url, postmaster, *redis, folder)


@contextmanager
def _redis(folder: Path, wanted: bool) -> Iterator[tuple[str | None, int | None]]:
    if not wanted:
        yield None, None
        return
    program = shutil.which("redis-server")
    if program is None:
        raise SystemExit("Celery needs Redis: apt-get install redis-server (or choose contenders with PEERS=)")
    home = folder / "redis"
    home.mkdir()
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(home), "--logfile", str(home / "log")]
    if appendonly := os.environ.get("BENCH_APPENDONLY"):
        options += ["--appendonly", "yes", "--appendfsync", appendonly]
    process = subprocess.Popen([program, *options])
    try:
        _wait_for_port(port)
        yield f"redis://127.0.0.1:{port}", process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def _tree_cpu_s(root: int) -> float:
    """A process and its children, those that ended and were waited for included."""
    total = 0.0
    top = psutil.Process(root)
    for process in [top, *top.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def tree_cpu_s(roots: list[int]) -> float:
    """CPU seconds of several process trees."""
    return sum(_tree_cpu_s(root) for root in roots if psutil.pid_exists(root))
