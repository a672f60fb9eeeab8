"""The folder of one embedded database: what lies where, its lock, its password and its last address.

data/           the cluster; 0700, owned by the account Postgres runs as
socket/         where the Unix socket appears, when its path is short enough
lock            locked while any process of this server lives
password        0600
address.json    where the server listens, or last listened
postgres.log
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import socket
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from tasks.embedded.account import Account
from tasks.embedded.problems import EmbeddedPostgresError

# sockaddr_un holds 107 bytes and a terminator on Linux, 103 on macOS.
_SOCKET_PATH_BYTES = 103
_TEMPORARY = "ledgerline-socket-"
_LOG_BYTES = 10 * 1024 * 1024


@dataclass(frozen=True)
class Address:
    """Where a server listens: a port on 127.0.0.1 and the folder of its Unix socket."""

    port: int
    socket: str


class Folder:
    """Paths and small files of one embedded database."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.data = self.path / "data"
        self.log = self.path / "postgres.log"

    def make(self) -> None:
        """Create the folder, readable by the caller only. An existing one keeps its mode."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def try_lock(self) -> int | None:
        """An open file holding the lock, or None when another server has it.

        The lock belongs to the open file, not to a process: guardian and Postgres inherit it, so it is free
        again only when the last of them is gone, however they ended.
        """
        handle = self._open("lock", os.O_RDWR)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        return handle

    def password(self) -> str | None:
        """The superuser's password, or None before there is one."""
        try:
            return (self.path / "password").read_text(encoding="ascii").strip() or None
        except FileNotFoundError:
            return None

    def make_password(self) -> str:
        """The stored password, or a new one when there is no database yet. Call it under the lock."""
        known = self.password()
        if known is None and self.data.exists():
            message = f"The file {self.path / 'password'} is missing, so the database beside it cannot be opened."
            message = f"{message} Put it back, or remove the folder to start empty."
            raise EmbeddedPostgresError("postgres_no_password", message)
        if known is None:
            known = secrets.token_urlsafe(24)
            self._write("password", known + "\n")
        return known

    def address(self) -> Address | None:
        """Where the server was last seen, or None. It may have gone since."""
        try:
            return Address(**json.loads((self.path / "address.json").read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def remember(self, address: Address) -> None:
        """Publish where the server listens."""
        self._write("address.json", json.dumps(asdict(address)))

    def choose_port(self, avoid: int | None) -> int:
        """The port used last time if it is free and not `avoid`, else any free one."""
        last = self.address()
        wanted = last.port if last and last.port != avoid else 0
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", wanted))
            except OSError:
                trial.bind(("127.0.0.1", 0))
            return int(trial.getsockname()[1])

    def make_socket_folder(self, account: Account) -> Path:
        """A folder for the socket whose path fits into a socket address: a temporary one when ours is too long."""
        place = self.path / "socket"
        if len(os.fsencode(place / ".s.PGSQL.65535")) > _SOCKET_PATH_BYTES:
            place = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir="/tmp"))
        place.mkdir(mode=0o700, exist_ok=True)
        account.own(place)
        return place

    def open_log(self) -> int:
        """The log, opened to append; put aside when it has grown past 10 MiB."""
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        return self._open(self.log.name, os.O_WRONLY | os.O_APPEND)

    def forget_socket(self) -> None:
        """Remove a temporary socket folder that a killed guardian left behind. Call it under the lock."""
        last = self.address()
        if last and Path(last.socket).name.startswith(_TEMPORARY):
            shutil.rmtree(last.socket, ignore_errors=True)

    def _write(self, name: str, text: str) -> None:
        """Replace a small 0600 file so that readers see the old one or the new one, never half of it."""
        draft = self.path / f"{name}.new"
        draft.unlink(missing_ok=True)
        with open(self._open(draft.name, os.O_WRONLY | os.O_EXCL), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path / name)

    def _open(self, name: str, flags: int) -> int:
        """Open a file of ours, made 0600 when absent. What root makes in a user's folder stays that user's."""
        handle = os.open(self.path / name, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if os.geteuid() == 0:
            owner = self.path.stat()
            os.fchown(handle, owner.st_uid, owner.st_gid)
        return handle
