"""Whom Postgres runs as. Postgres refuses to run as root, so root lends it another user's id."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.embedded.problems import ELSEWHERE, EmbeddedPostgresError

# In order of preference. `nobody` comes last: other programs put untrusted work there, and it should own no files.
_CANDIDATES = ("postgres", "daemon", "nobody")


@dataclass(frozen=True)
class Account:
    """The user and group ids Postgres gets. `borrowed` when they are not the caller's own."""

    uid: int
    gid: int
    borrowed: bool

    def popen(self) -> dict[str, Any]:
        """Arguments for subprocess that make the child run as this account."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.borrowed else {}

    def own(self, target: Path | int) -> None:
        """Give a path or an open file to this account."""
        if self.borrowed:
            os.chown(target, self.uid, self.gid)


def choose_account(data: Path) -> Account:
    """The owner of an existing data folder, else the caller, else (for root) an unprivileged user of this machine."""
    owner = _owner(data)
    if os.geteuid() != 0:
        if owner is not None and owner.uid != os.geteuid():
            raise _belongs_to(data, owner.uid)
        return Account(os.geteuid(), os.getegid(), borrowed=False)
    return owner if owner is not None and owner.uid != 0 else _unprivileged()


def _owner(data: Path) -> Account | None:
    try:
        status = data.stat()
    except FileNotFoundError:
        return None
    return Account(status.st_uid, status.st_gid, borrowed=True)


def _unprivileged() -> Account:
    # initdb looks its user up by id, so an id without an entry in the user database does not do.
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(entry.pw_uid, entry.pw_gid, borrowed=True)
    message = f"Postgres refuses to run as root and this machine has none of the users {', '.join(_CANDIDATES)}."
    raise EmbeddedPostgresError("postgres_no_user", f"{message} Run as an ordinary user. {ELSEWHERE}")


def _belongs_to(data: Path, uid: int) -> EmbeddedPostgresError:
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    message = f"The database in {data} belongs to the user {name}. Run as whoever made it, or choose another folder."
    return EmbeddedPostgresError("postgres_folder_denied", message)
