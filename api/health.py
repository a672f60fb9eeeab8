"""Health: is the process alive, and would work that is sent here be done?"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
from psycopg_pool import PoolTimeout

from api.aside import aside
from api.contract import Access, Reply, Room
from api.house import House, house
from api.models.health import Alive, Check, CheckName, Readiness
from tasks.db import Row, statement
from tasks.errors import LedgerlineError
from tasks.migrations import pending
from tasks.settings import Settings

health = Room("health", "For load balancers and people on call. Both calls are also at the root: /healthz, /readyz.")

_PATIENCE_S = 3.0
_SWEEPS_MISSED = 3
_UNKNOWN = "Not known without the database."


@health.call("GET", "/healthz", "Is the process alive", access=Access.PUBLIC, gives=Alive)
def show_alive() -> Alive:
    """Asks nobody else: restart the process when this does not answer."""
    return Alive()


@health.call(
    "GET",
    "/readyz",
    "Is everything there",
    access=Access.PUBLIC,
    gives=Readiness,
    also={503: "The same answer, when a check failed."},
)
def show_ready() -> Reply:
    """Database, migrations, storage, a live worker for each queue that published pipelines use, and a sweep of the
    ledger that is not overdue. Work is accepted meanwhile, and waits.
    """
    checks = list(_check_all(house()))
    ready = all(check.ok for check in checks)
    return Reply(Readiness(ready=ready, checks=checks), status=200 if ready else 503)


def _check_all(desk: House) -> Iterator[Check]:
    database = _check("database", lambda: _check_database(desk))
    migrations = _check("migrations", lambda: _check_migrations(desk) if database.ok else _UNKNOWN)
    known = database.ok and migrations.ok
    yield database
    yield migrations
    yield _check("storage", lambda: _check_storage(desk))
    yield _check("workers", lambda: _check_workers(_look(desk)) if known else _UNKNOWN)
    yield _check("sweep", lambda: _check_sweep(_look(desk), desk.settings) if known else _UNKNOWN)


def _check(name: CheckName, ask: Callable[[], str]) -> Check:
    """The check of that name. `ask` gives the sentence that says what is wrong, or nothing."""
    try:
        message = ask()
    except LedgerlineError as error:
        message = error.message
    except (psycopg.Error, PoolTimeout):
        message = "The database cannot be reached."
    return Check(name=name, ok=not message, message=message)


def _check_database(desk: House) -> str:
    with desk.pool.connection(timeout=_PATIENCE_S) as connection:
        connection.execute(statement("api_ping"))
    return ""


def _check_migrations(desk: House) -> str:
    # What a database has, it keeps: once is enough.
    if not desk.schema_current:
        missing = pending(desk.settings.database_url.get_secret_value())
        if missing:
            return f"Migrations are missing: {', '.join(missing)}. Run `ledgerline migrate`."
        desk.schema_current = True
    return ""


def _check_storage(desk: House) -> str:
    aside(desk.storage.check)
    return ""


def _check_workers(row: Row) -> str:
    alone = sorted(set(row["used"]) - set(row["served"]))
    return f"No live worker serves: {', '.join(alone)}." if alone else ""


def _check_sweep(row: Row, settings: Settings) -> str:
    ago_s = row["swept_ago_s"]
    if ago_s is None:
        return "The ledger was never swept: no worker serves the queue `maintenance`."
    if ago_s > settings.sweep_interval_s * _SWEEPS_MISSED:
        return f"The ledger was last swept {ago_s:.0f} s ago, and it should be every {settings.sweep_interval_s:g} s."
    return ""


def _look(desk: House) -> Row:
    with desk.pool.connection(timeout=_PATIENCE_S) as connection:
        row = connection.execute(statement("api_readiness"), {"lease_s": desk.settings.lease_s}).fetchone()
    assert row is not None
    return row
