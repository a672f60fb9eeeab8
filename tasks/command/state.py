"""The state folder: what `ledgerline up` keeps on this machine, and what other commands find there.

postgres/       the embedded database
storage/        the bytes of documents and artifacts
logs/           api.log and worker.log
reports/        the artifacts that `up --sample` saved, by job
secrets.json    0600; development secrets, made once
key             0600; the development user's access token
settings.json   0600; the settings that the running processes were given
up.json         where the API of the running `up` is
up.lock         locked for as long as `up` lives, however it ends
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tasks.errors import Refused, Unavailable

DEFAULT = Path(".ledgerline")
_LOCK_TRIES = 20
_LOCK_WAIT_S = 0.05


@dataclass(frozen=True)
class Running:
    """An `up` that is running: where its API is, and its process."""

    url: str
    pid: int


class StateFolder:
    """Paths and small files of one state folder."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.postgres = self.path / "postgres"
        self.storage = self.path / "storage"
        self.logs = self.path / "logs"
        self.reports = self.path / "reports"
        self.key = self.path / "key"

    def make(self) -> None:
        """Create the folder and its subfolders. Raises Unavailable when that is not allowed."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self.storage, self.logs, self.reports):
                folder.mkdir(exist_ok=True)
        except OSError as error:
            message = f"The state folder {self.path} cannot be made or written: {error.strerror}."
            raise Unavailable("state_unwritable", message, detail=str(error)) from error

    def lock(self) -> int:
        """Take the folder for this process; an open file that must stay open. Raises Refused `already_running`."""
        handle = os.open(self.path / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        for _ in range(_LOCK_TRIES):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return handle
            except BlockingIOError:
                # A command that only looks whether `up` runs holds it for an instant.
                time.sleep(_LOCK_WAIT_S)
        os.close(handle)
        raise self._already_running()

    def running(self) -> Running | None:
        """The `up` that runs in this folder, or None. It may still be starting: then None too."""
        if not self._locked():
            return None
        return self._read_running()

    def announce(self, running: Running) -> None:
        """Say where the API is."""
        self._write("up.json", json.dumps(asdict(running)))

    def withdraw(self) -> None:
        """The API is no longer there."""
        (self.path / "up.json").unlink(missing_ok=True)

    def secrets(self) -> dict[str, str]:
        """JWT_SECRET and LINK_SECRET for development, made at the first call and kept."""
        known = self._read_json("secrets.json")
        wanted = {name: secrets.token_urlsafe(48) for name in ("JWT_SECRET", "LINK_SECRET") if not known.get(name)}
        if wanted:
            known |= wanted
            self._write("secrets.json", json.dumps(known, indent=2) + "\n")
        return known

    def read_key(self) -> str | None:
        """The development user's token, or None when there is none."""
        try:
            return self.key.read_text(encoding="ascii").strip() or None
        except (OSError, ValueError):
            return None

    def write_key(self, token: str) -> None:
        """Keep the development user's token."""
        self._write("key", token + "\n")

    def read_settings(self) -> dict[str, str]:
        """The settings the running processes were given, by name of the environment variable."""
        return self._read_json("settings.json")

    def write_settings(self, settings: dict[str, str]) -> None:
        """Keep the settings that the processes are given."""
        self._write("settings.json", json.dumps(settings, indent=2) + "\n")

    def _locked(self) -> bool:
        try:
            handle = os.open(self.path / "up.lock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def _already_running(self) -> Refused:
        running = self._read_running()
        where = f"at {running.url} (process {running.pid})" if running else "and is still starting or stopping"
        message = f"Ledgerline already runs in {self.path}, {where}. Stop that one first, or choose another --state."
        return Refused("already_running", message)

    def _read_running(self) -> Running | None:
        try:
            return Running(**json.loads((self.path / "up.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def _read_json(self, name: str) -> dict[str, str]:
        try:
            return dict(json.loads((self.path / name).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            message = f"The file {self.path / name} cannot be read. Remove it to have it made again."
            raise Unavailable("state_unreadable", message, detail=str(error)) from error

    def _write(self, name: str, text: str) -> None:
        """Replace a small 0600 file; a reader sees the old one or the new one."""
        draft = self.path / f"{name}.new"
        draft.unlink(missing_ok=True)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
        draft.replace(self.path / name)
