"""Bring a database to the schema this program was written for.

The files are supabase/migrations/<14 digits>_<name>.sql, applied in order, each in one transaction together with its
line in `supabase_migrations.schema_migrations`: the table of the Supabase CLI, so `supabase db push` and
`ledgerline migrate` can take turns. A plain Postgres first gets sql/bootstrap.sql.

Several may run at once. Each migration takes a transaction-level advisory lock and looks again under it, so the one
who comes second finds it done. No session state is used: a transaction pool serves as well as a direct connection.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.rows import dict_row

from tasks.db import ROOT, Row, statement
from tasks.errors import Refused, Unavailable

FOLDER = ROOT / "supabase" / "migrations"
BOOTSTRAP = ROOT / "sql" / "bootstrap.sql"

_FILENAME = re.compile(r"(?P<version>\d{14})_(?P<name>\w+)\.sql")


@dataclass(frozen=True)
class Migration:
    """One file: a version of 14 digits, a name, and where it lies."""

    version: str
    name: str
    path: Path

    def __str__(self) -> str:
        return f"{self.version}_{self.name}"


def migrate(url: str, folder: Path = FOLDER) -> list[str]:
    """Apply what the database lacks. Returns the names newly applied by this call, in order.

    Raises Refused `migration_unknown` when the database is ahead of this program, `migration_renamed` when it knows
    one of our versions by another name, `migration_failed` when a file fails (its transaction is undone, earlier
    files stay); Unavailable when the database cannot be reached.
    """
    migrations = list_migrations(folder)
    with _connect(url) as connection:
        _prepare(connection)
        _check(migrations, _applied(connection))
        return [str(migration) for migration in migrations if _apply(connection, migration)]


def pending(url: str, folder: Path = FOLDER) -> list[str]:
    """Names of the migrations the database lacks, in order. Empty means ready. Raises Unavailable."""
    with _connect(url) as connection:
        present = connection.execute(statement("migration_history_exists")).fetchone()
        known = connection.execute(statement("list_applied_versions")) if present and present["present"] else ()
        applied = {row["version"] for row in known}
    return [str(migration) for migration in list_migrations(folder) if migration.version not in applied]


def list_migrations(folder: Path = FOLDER) -> list[Migration]:
    """The migrations of a folder by version. Raises ValueError on a wrong file name or a version used twice."""
    found: dict[str, Migration] = {}
    for path in sorted(folder.glob("*.sql")):
        match = _FILENAME.fullmatch(path.name)
        if match is None:
            raise ValueError(f"{path.name} is not named <14 digits>_<name>.sql")
        if match["version"] in found:
            raise ValueError(f"{path.name} and {found[match['version']].path.name} have the same version")
        found[match["version"]] = Migration(match["version"], match["name"], path)
    return list(found.values())


@contextmanager
def _connect(url: str) -> Iterator[psycopg.Connection[Row]]:
    try:
        connection = psycopg.connect(url, row_factory=dict_row, autocommit=True, prepare_threshold=None)
    except psycopg.OperationalError as error:
        raise Unavailable("database_unavailable", "The database cannot be reached.", detail=str(error)) from error
    with connection:
        yield connection


@contextmanager
def _turn(connection: psycopg.Connection[Row]) -> Iterator[None]:
    """One transaction, alone among all who migrate this database."""
    with connection.transaction():
        connection.execute(statement("lift_migration_timeouts"))
        connection.execute(statement("lock_migrations"))
        yield


def _prepare(connection: psycopg.Connection[Row]) -> None:
    with _turn(connection):
        answer = connection.execute(statement("needs_bootstrap")).fetchone()
        if answer and answer["needed"]:
            _run_file(connection, BOOTSTRAP)
        connection.execute(statement("create_migration_history"))


def _applied(connection: psycopg.Connection[Row]) -> dict[str, str | None]:
    """Name by version of everything the database has."""
    return {row["version"]: row["name"] for row in connection.execute(statement("list_applied_migrations"))}


def _check(migrations: list[Migration], applied: dict[str, str | None]) -> None:
    ours = {migration.version: migration.name for migration in migrations}
    newest = max(ours, default="")
    ahead = sorted(version for version in applied if version not in ours and version > newest)
    if ahead:
        newest_there = _label(ahead[-1], applied[ahead[-1]])
        message = f"The database has migration {newest_there}, which this program does not know: the program is older."
        raise Refused("migration_unknown", f"{message} Deploy the version it belongs to, or a newer one.", status=409)
    for version, name in applied.items():
        if name and ours.get(version, name) != name:
            message = f"The database knows migration {version} as {name}; here it is called {ours[version]}."
            raise Refused("migration_renamed", f"{message} One of the two is not this program's.", status=409)


def _apply(connection: psycopg.Connection[Row], migration: Migration) -> bool:
    """Apply one migration unless it is there. Whether it was applied."""
    with _turn(connection):
        if migration.version in _applied(connection):
            return False
        text = _run_file(connection, migration.path)
        row = {"version": migration.version, "name": migration.name, "text": text}
        connection.execute(statement("record_migration"), row)
    return True


def _run_file(connection: psycopg.Connection[Row], path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    try:
        connection.execute(text)
    except psycopg.Error as error:
        reason = error.diag.message_primary or str(error)
        message = f"{path.name} failed{_line(text, error)}: {reason}"
        raise Refused("migration_failed", message, detail=str(error), status=500) from error
    return text


def _line(text: str, error: psycopg.Error) -> str:
    """Where in the file, when Postgres says so."""
    position = error.diag.statement_position
    return f" at line {text.count(chr(10), 0, int(position)) + 1}" if position else ""


def _label(version: str, name: str | None) -> str:
    return f"{version}_{name}" if name else version
