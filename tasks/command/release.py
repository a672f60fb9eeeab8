"""The commands that a deploy runs: migrate, worker, settings."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import psycopg
from psycopg.rows import dict_row
from pydantic import SecretStr

from tasks.command.console import console, say, seconds, table
from tasks.command.environment import find_settings
from tasks.command.options import state_option
from tasks.command.state import StateFolder
from tasks.db import Row
from tasks.errors import Refused, Unavailable
from tasks.ledger import mend_positions, publish, release_settings
from tasks.migrations import migrate as apply_migrations
from tasks.pipeline import Pipeline, PipelineInvalid
from tasks.settings import Settings

_NOT_MIGRATED = (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName, psycopg.errors.UndefinedFunction)


@dataclass(frozen=True)
class Released:
    """What a release did: the migrations it applied and the pipelines that are now current."""

    migrations: list[str]
    pipelines: list[str]

    def __str__(self) -> str:
        count = len(self.migrations)
        done = f"{count} migration{'' if count == 1 else 's'} applied" if count else "up to date"
        return f"{done}; pipelines: {', '.join(sorted(self.pipelines)) or 'none'}"


def release(settings: Settings) -> Released:
    """Migrate and publish. Safe to run again and by several at once. Raises Refused and Unavailable."""
    pipelines = _declared(settings)
    applied = apply_migrations(settings.direct_url)
    with connect(settings) as connection:
        release_settings(connection, settings)
        mend_positions(connection)
        return Released(applied, publish(connection, pipelines.values(), settings.deploy))


def _declared(settings: Settings) -> dict[str, Pipeline]:
    # Loads every step and what it needs: nothing else in this module wants that.
    from tasks.pipelines import declared

    try:
        return declared(settings.pipeline_packages)
    except (PipelineInvalid, ImportError) as error:
        raise Refused("pipelines_invalid", f"The pipelines in {settings.pipelines} cannot be used: {error}.") from error


@contextmanager
def connect(settings: Settings) -> Iterator[psycopg.Connection[Row]]:
    """A direct autocommit connection with dict rows. Raises Unavailable, also when the database goes away meanwhile,
    and Refused `not_migrated` when it lacks what is asked for."""
    try:
        with psycopg.connect(settings.direct_url, row_factory=dict_row, autocommit=True, connect_timeout=10) as opened:
            yield opened
    except psycopg.OperationalError as error:
        message = "The database cannot be reached. Is it running, and is DATABASE_URL right?"
        raise Unavailable("database_unavailable", message, detail=str(error)) from error
    except _NOT_MIGRATED as error:
        message = "The database is not up to date. Run `ledgerline migrate`."
        raise Refused("not_migrated", message, detail=str(error)) from error


@click.command()
@state_option
def migrate(state: Path) -> None:
    """Bring the database up to date and publish the pipelines.

    Safe to run again, and by several at once.
    """
    began = time.monotonic()
    released = release(find_settings(StateFolder(state)))
    for name in released.migrations:
        say("applied", name)
    say("database", f"{released} ({seconds(time.monotonic() - began)})", "green")


@click.command()
@state_option
def worker(state: Path) -> int:
    """Run a worker until it is told to stop.

    SIGTERM or Ctrl-C lets running steps finish and gives the rest back.
    """
    settings = find_settings(StateFolder(state))
    # The engine: of all commands only this one needs it.
    from tasks.worker import run

    return run(settings)


@click.command()
@state_option
def settings(state: Path) -> None:
    """Show every setting, its meaning and its value.

    Secrets are not shown.
    """
    current = find_settings(StateFolder(state))
    shown = table("setting", "value", "meaning")
    for name, field in Settings.model_fields.items():
        shown.add_row(name.upper(), _show(getattr(current, name)), field.description or "")
    console().print(shown)


def _show(value: object) -> str:
    if isinstance(value, SecretStr):
        return "(secret)"
    return "" if value is None else str(value)
