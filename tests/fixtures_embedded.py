"""Embedded servers for tests: databases to start from, people to start them, and watching what runs."""

from __future__ import annotations

import json
import os
import pwd
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from tasks.embedded import EmbeddedPostgres

ROOT = Path(__file__).resolve().parent.parent
SITE_PACKAGES = Path(psycopg.__file__).resolve().parent.parent
PATIENCE_S = 20

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root borrows another user")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells of a parent's death on Linux only")


def ask(url: str, question: str) -> Any:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(question)  # type: ignore[call-overload]
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def postmaster(folder: Path) -> psutil.Process:
    return psutil.Process(int((folder / "data" / "postmaster.pid").read_text().splitlines()[0]))


def wait_for_end(*processes: psutil.Process) -> None:
    for process in processes:
        assert _ends(process), f"{process} is still running"


def _ends(process: psutil.Process) -> bool:
    if sys.platform != "linux":
        return not psutil.wait_procs([process], timeout=PATIENCE_S)[1]
    # Tells of the end itself; psutil waits until a corpse is buried, and whoever inherited it may take a second.
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    with open(handle, "rb") as file:
        return bool(select.select([file], [], [], PATIENCE_S)[0])


def processes_of(folder: Path) -> list[psutil.Process]:
    """Postmaster, guardian and all backends of the server in `folder`."""
    main = postmaster(folder)
    guardian = main.parent()
    assert guardian is not None
    assert "guardian.py" in " ".join(guardian.cmdline())
    return [guardian, main, *main.children(recursive=True)]


@pytest.fixture
def new_folder(tmp_path: Path) -> Path:
    """Where a database may be made. The folder above is closed to other users."""
    return tmp_path / "postgres"


@pytest.fixture(scope="module")
def stopped_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stopped database holding the note "kept"."""
    folder = tmp_path_factory.mktemp("made") / "postgres"
    with EmbeddedPostgres(folder, durable=False) as postgres:
        ask(postgres.url, "create table notes as select 'kept'::text as note")
    return folder


@pytest.fixture
def database_copy(stopped_database: Path, new_folder: Path) -> Path:
    """A copy of `stopped_database` for one test: a start without initdb."""
    subprocess.run(["cp", "-a", stopped_database, new_folder], check=True)
    return new_folder


@dataclass
class Person:
    """Someone who can own a server: an interpreter, the user it runs as, and a folder of theirs."""

    python: str
    home: Path
    popen: dict[str, Any] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def receive(self, made: Path) -> Path:
        """A copy of a database, in this person's folder and owned by them."""
        folder = self.home / "postgres"
        subprocess.run(["cp", "-a", made, folder], check=True)
        if self.popen:
            subprocess.run(["chown", "-R", str(self.popen["user"]), folder], check=True)
        return folder

    def start(self, folder: Path, *options: str) -> subprocess.Popen[str]:
        owner = subprocess.Popen(
            [self.python, str(ROOT / "tests" / "embedded_owner.py"), str(folder), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            env=environment(),
            **self.popen,
        )
        self.started.append(owner)
        return owner


def environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{SITE_PACKAGES}", "PYTHONDONTWRITEBYTECODE": "1"}


def answer_of(owner: subprocess.Popen[str]) -> dict[str, Any]:
    assert owner.stdout is not None
    answer: dict[str, Any] = json.loads(owner.stdout.readline())
    return answer


def stop(owner: subprocess.Popen[str]) -> None:
    out, _ = owner.communicate(timeout=PATIENCE_S)
    assert out == "stopped\n"


@pytest.fixture(params=["caller", "ordinary user"])
def person(request: pytest.FixtureRequest) -> Iterator[Person]:
    home = Path(tempfile.mkdtemp(prefix="ledgerline-test-"))
    someone = Person(sys.executable, home) if request.param == "caller" else ordinary_person(home)
    yield someone
    for owner in someone.started:
        if owner.stdin is not None:
            owner.stdin.close()
        owner.wait(PATIENCE_S)
    shutil.rmtree(home)


def ordinary_person(home: Path) -> Person:
    if os.geteuid() != 0:
        pytest.skip("the caller is an ordinary user")
    entry = pwd.getpwnam("nobody")
    popen = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, shutil.which(version, path="/usr/local/bin:/usr/bin")):
        if python and can_run_us(python, popen):
            os.chown(home, entry.pw_uid, entry.pw_gid)
            return Person(python, home, popen)
    pytest.skip("no interpreter of this version, with our packages, that an ordinary user can run")


def can_run_us(python: str, popen: dict[str, Any]) -> bool:
    try:
        tried = subprocess.run([python, "-c", "import tasks.embedded"], cwd="/", env=environment(), **popen)
    except OSError:
        return False
    return tried.returncode == 0
