"""Worker processes for tests: started on a database, known to be alive, ended by signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 30

# On SIGUSR1 it writes down what each of its tasks is waiting for: a worker that hangs can be asked why.
_RUN = """
import asyncio, signal, sys, tasks.settings, tasks.worker

def tell(*_):
    for task in [task for task in asyncio.tasks._all_tasks if not task.done()]:
        print(task.get_name(), "cancelling" * task.cancelling(), "waits for", task._fut_waiter)
        coroutine = task.get_coro()
        while coroutine is not None:
            if frame := getattr(coroutine, "cr_frame", None):
                print(f"    {frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}")
            coroutine = getattr(coroutine, "cr_await", None)
    sys.stdout.flush()

signal.signal(signal.SIGUSR1, tell)
sys.exit(tasks.worker.run(tasks.settings.load()))
"""


def worker_environment(url: str, folder: Path, packages: str, **settings: object) -> dict[str, str]:
    """The environment of a worker on a database. `settings` by their names in small letters."""
    environment = {name: os.environ[name] for name in ("PATH", "LEDGERLINE_CORPORA") if name in os.environ}
    environment |= {"DATABASE_URL": url, "LINK_SECRET": "x" * 32, "STORAGE_PATH": str(folder / "storage")}
    environment |= {"PIPELINES": packages, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PYTHONDONTWRITEBYTECODE": "1"}
    return environment | {name.upper(): str(value) for name, value in settings.items()}


def start_worker(environment: dict[str, str], folder: Path, log: Path | None = None) -> subprocess.Popen[bytes]:
    """Start a worker in `folder`; what it says goes to `log`."""
    with (log or folder / "worker.log").open("ab") as said:
        return subprocess.Popen([sys.executable, "-c", _RUN], env=environment, cwd=folder, stdout=said, stderr=said)


def stop_worker(worker: subprocess.Popen[bytes]) -> int:
    """End a worker in good order; its exit code."""
    if worker.poll() is None:
        worker.send_signal(signal.SIGTERM)
    return worker.wait(PATIENCE_S)


@contextmanager
def running_worker(url: str, folder: Path, packages: str, **settings: object) -> Iterator[subprocess.Popen[bytes]]:
    """A worker while the block runs. It must end well."""
    folder.mkdir(exist_ok=True)
    worker = start_worker(worker_environment(url, folder, packages, **settings), folder)
    try:
        yield worker
        assert stop_worker(worker) == 0, (folder / "worker.log").read_text()
    finally:
        if worker.poll() is None:
            worker.kill()
            worker.wait()
