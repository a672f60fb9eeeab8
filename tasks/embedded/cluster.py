"""The data folder: made by initdb, and cleared of what a crash left in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tasks.embedded.account import Account
from tasks.embedded.binaries import Binaries
from tasks.embedded.folder import Folder
from tasks.embedded.problems import ELSEWHERE, EmbeddedPostgresError, explain_output

# Sort by bytes (fast, and the same everywhere) but know the letters of all languages, wherever the system can.
_CTYPES = ("C.UTF-8", "en_US.UTF-8", "C")
# Leaves room for the names Postgres appends.
_PATH_BYTES = 900


@contextmanager
def reachable(path: Path, account: Account) -> Iterator[tuple[str, tuple[int, ...]]]:
    """A name for `path` that a child running as `account` can use, and the open files the child must inherit.

    A borrowed user often cannot walk to the folder (/root is closed to others), and opening the user's parent folders
    is not ours to do; and Postgres takes no path longer than 1,023 bytes. On Linux an inherited open folder is a door
    that needs no walk and has a short name.
    """
    far = account.borrowed or len(os.fsencode(path)) > _PATH_BYTES
    if not (far and sys.platform == "linux"):
        yield str(path), ()
        return
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{handle}", (handle,)
    finally:
        os.close(handle)


def create_cluster(
    folder: Folder, binaries: Binaries, account: Account, password: str, lock: int, durable: bool
) -> None:
    """Run initdb into a folder beside, then rename: `data` exists completely or not at all."""
    draft = folder.data.with_name("data.new")
    for ctype in _CTYPES:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        account.own(draft)
        done = _run_initdb(draft, binaries, account, password, lock, ctype, durable)
        if done.returncode == 0:
            draft.rename(folder.data)
            return
        if "invalid locale" not in done.stderr:
            break
    shutil.rmtree(draft, ignore_errors=True)
    raise explain_output(done.stderr, "creating its data folder")


def _run_initdb(
    draft: Path, binaries: Binaries, account: Account, password: str, lock: int, ctype: str, durable: bool
) -> subprocess.CompletedProcess[str]:
    with reachable(draft, account) as (name, handles), tempfile.TemporaryFile() as secret:
        secret.write(password.encode())
        secret.seek(0)
        account.own(secret.fileno())
        command = [binaries.program("initdb"), "--pgdata", name, f"--pwfile=/dev/fd/{secret.fileno()}"]
        command += ["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
        command += [f"--lc-ctype={ctype}", "--data-checksums" if durable else "--no-sync"]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd="/",
            env={"PATH": "/usr/bin:/bin"},
            # The lock goes along: should we be killed now, nobody may start before this initdb is gone.
            pass_fds=(*handles, secret.fileno(), lock),
            check=False,
            **account.popen(),
        )


def check_version(folder: Folder, binaries: Binaries) -> None:
    """Refuse a data folder of another major version."""
    made_by = (folder.data / "PG_VERSION").read_text(encoding="ascii").strip()
    if made_by != str(binaries.major):
        message = f"The database in {folder.path} was made by Postgres {made_by}; this is Postgres {binaries.major}."
        raise EmbeddedPostgresError("postgres_version", f"{message} Dump and restore it. {ELSEWHERE}")


def clear_stale_pid_file(data: Path) -> None:
    """Remove a postmaster.pid whose number now belongs to an unrelated process. Call it under the lock.

    Postgres itself copes with a number nobody has, but takes any living process of its own user for a running
    server and refuses to start. Nothing is ever signalled here.
    """
    process = _process_of(data)
    if process is None:
        return
    if _serves(process, data):
        message = f"A Postgres that Ledgerline did not start (process {process.pid}) is using {data}. Stop it first."
        raise EmbeddedPostgresError("postgres_in_use", message)
    (data / "postmaster.pid").unlink(missing_ok=True)


def find_orphan(data: Path) -> psutil.Process | None:
    """The server of this very data folder when its guardian is gone, else None."""
    process = _process_of(data)
    return process if process and _serves(process, data) and not _is_guarded(process) else None


def says_ready(data: Path, port: int) -> bool:
    """Whether the pid file tells of a server on `port` that accepts connections. It may be a dead one's."""
    lines = _pid_file(data)
    return len(lines) >= 8 and lines[3] == str(port) and lines[7] == "ready"


def _process_of(data: Path) -> psutil.Process | None:
    try:
        return psutil.Process(int(_pid_file(data)[0]))
    except (ValueError, IndexError, psutil.Error):
        return None


def _pid_file(data: Path) -> list[str]:
    """Process id, data folder, start time, port, socket folder, address, shared memory, status."""
    try:
        return [line.strip() for line in (data / "postmaster.pid").read_text(errors="replace").splitlines()]
    except FileNotFoundError:
        return []


def _is_guarded(process: psutil.Process) -> bool:
    try:
        parent = process.parent()
        return parent is None or any(part.endswith("guardian.py") for part in parent.cmdline())
    except psutil.Error:
        # What cannot be seen is left alone.
        return True


def _serves(process: psutil.Process, data: Path) -> bool:
    """A postmaster works inside its data folder; no other process has a reason to."""
    try:
        return process.name().startswith(("postgres", "postmaster")) and os.path.samefile(process.cwd(), data)
    except (OSError, psutil.Error):
        return False
