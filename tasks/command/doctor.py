"""The command `doctor`: one line for each thing that has to work, with what to do when it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click
import psycopg

from tasks.command.console import console, nearby, seconds
from tasks.command.environment import find_settings, given
from tasks.command.options import state_option
from tasks.command.release import connect
from tasks.command.state import StateFolder
from tasks.db import Row, statement
from tasks.errors import LedgerlineError
from tasks.migrations import pending
from tasks.pipeline import QUEUES
from tasks.settings import Settings, SettingsInvalid
from tasks.storage import open_storage

_LISTEN_S = 3.0
_MARKS = {"good": ("✓", "green"), "mind": ("!", "yellow"), "bad": ("✗", "red")}


@dataclass(frozen=True)
class Finding:
    """What one check found. `mind` is worth knowing and not wrong; `action` is what to do about it."""

    verdict: Literal["good", "mind", "bad"]
    text: str
    action: str = ""


Connection = psycopg.Connection[Row]


@click.command()
@state_option
def doctor(state: Path) -> int:
    """Check that everything works, and say what to do if not.

    Exit code 1 when something is wrong.
    """
    findings = []
    for finding in examine(StateFolder(state)):
        print_finding(finding)
        findings.append(finding)
    wrong = sum(finding.verdict == "bad" for finding in findings)
    done = "Everything works." if not wrong else f"{wrong} thing{' is' if wrong == 1 else 's are'} wrong."
    console().print(f"\n{done}", style="red" if wrong else "green")
    return 1 if wrong else 0


def print_finding(finding: Finding) -> None:
    """One line, and a second one for what to do."""
    mark, style = _MARKS[finding.verdict]
    console().print(f"{mark} {finding.text}", style=style, markup=False)
    if finding.action:
        console().print(f"  → {finding.action}", markup=False)


def examine(state: StateFolder) -> Iterator[Finding]:
    """Every check in order. What cannot be checked because something below it is broken is left out."""
    try:
        settings = find_settings(state)
    except SettingsInvalid as error:
        for line in str(error).splitlines():
            yield Finding("bad", f"setting {line}", "Set it in the environment or in .env, or start `ledgerline up`.")
        return
    yield Finding("good", "the settings are valid")
    yield _check_place(state)
    yield _check_storage(settings)
    try:
        with connect(settings) as connection:
            yield from _examine_database(settings, connection)
    except LedgerlineError as error:
        yield Finding("bad", error.message, f"Postgres says: {_first_line(error.detail)}")


def _examine_database(settings: Settings, connection: Connection) -> Iterator[Finding]:
    row = _ask(connection, "doctor_version")
    yield Finding("good", f"the database answers: Postgres {row['version'].split()[0]}")
    if not row["durable"]:
        yield Finding("mind", "the database may lose what it confirmed when the machine fails", "Set fsync to on.")
    missing = pending(settings.direct_url)
    if missing:
        yield Finding("bad", f"migrations are missing: {', '.join(missing)}", "Run `ledgerline migrate`.")
        return
    yield Finding("good", "all migrations are applied")
    checks: list[Callable[[Settings, Connection], Iterator[Finding]]] = [
        _check_pipelines, _check_drift, _check_listen, _check_queues, _check_sweep,
    ]  # fmt: skip
    for check in checks:
        yield from check(settings, connection)


def _check_place(state: StateFolder) -> Finding:
    if "DATABASE_URL" in given():
        return Finding("good", "the database is the one in DATABASE_URL; the embedded Postgres is not used")
    return Finding("good", f"the database is that of the running `ledgerline up`, in {nearby(state.path)}")


def _check_storage(settings: Settings) -> Finding:
    try:
        open_storage(settings).check()
    except (LedgerlineError, OSError) as error:
        detail = error.detail if isinstance(error, LedgerlineError) else str(error)
        return Finding("bad", f"files cannot be stored: {detail}", "Check STORAGE_PATH, its rights and free space.")
    if settings.storage == "local":
        text = f"files are stored in {nearby(settings.storage_path.absolute())}, on this machine only"
        return Finding("mind", text, "With workers on other machines use STORAGE=supabase.")
    return Finding("good", f"files are stored in the bucket {settings.storage_bucket}")


def _check_pipelines(settings: Settings, connection: Connection) -> Iterator[Finding]:
    names = _ask(connection, "doctor_pipelines")["names"]
    if names:
        yield Finding("good", f"pipelines are published: {', '.join(names)}")
    else:
        yield Finding("bad", "no pipeline is published, so no job can be submitted", "Run `ledgerline migrate`.")


def _check_drift(settings: Settings, connection: Connection) -> Iterator[Finding]:
    row = _ask(connection, "doctor_drift")
    if row["rows"]:
        text = f"the ledger and the queue disagree in {row['rows']} places, for example: {row['problem']}"
        yield Finding("bad", text, "Look at sql/inspect/drift.sql. A sweep repairs it; tell us how it came about.")
    else:
        yield Finding("good", "the ledger and the queue agree")


def _check_listen(settings: Settings, connection: Connection) -> Iterator[Finding]:
    connection.execute(statement("doctor_listen"))
    with connect(settings) as other:
        other.execute(statement("doctor_notify"))
    if any(connection.notifies(timeout=_LISTEN_S, stop_after=1)):
        yield Finding("good", "the database wakes its listeners")
    else:
        action = "Give workers a direct or session connection in DATABASE_DIRECT_URL."
        yield Finding("bad", "notifications do not arrive: workers would start late", action)


def _check_queues(settings: Settings, connection: Connection) -> Iterator[Finding]:
    arguments = {"queues": list(QUEUES), "lease_s": settings.lease_s}
    rows = connection.execute(statement("doctor_queues"), arguments).fetchall()
    if not any(row["workers"] for row in rows):
        waiting = sum(row["waiting"] for row in rows)
        yield Finding("bad", f"no worker is alive; step runs waiting: {waiting}", "Start `ledgerline worker`.")
        return
    for row in rows:
        workers = f"{row['workers']} worker{'' if row['workers'] == 1 else 's'}"
        waiting = f"{row['waiting']} waiting"
        if row["waiting"]:
            waiting += f", the oldest for {seconds(row['oldest_s'])}"
        if row["workers"]:
            yield Finding("good", f"queue {row['name']}: {workers}, {waiting}")
        else:
            action = "No worker serves it: look at WORKER_QUEUES."
            yield Finding("bad", f"queue {row['name']}: no live worker, {waiting}", action)


def _check_sweep(settings: Settings, connection: Connection) -> Iterator[Finding]:
    age = _ask(connection, "doctor_sweep")["age_s"]
    limit = 3 * settings.sweep_interval_s
    if age is None:
        yield Finding("bad", "no worker has ever swept the ledger", "Start `ledgerline worker`.")
    elif age > limit:
        text = f"the last sweep was {seconds(age)} ago; it should be at most {seconds(limit)}"
        yield Finding("bad", text, "Start `ledgerline worker`, or read what the running ones log.")
    else:
        yield Finding("good", f"the ledger was swept {seconds(max(0.0, age))} ago")


def _ask(connection: Connection, name: str) -> Row:
    row = connection.execute(statement(name)).fetchone()
    assert row is not None, name
    return row


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or ["nothing"])[0]
