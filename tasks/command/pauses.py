"""The commands with which operators hold work back and let it go on. They need the database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import click
import psycopg

from tasks.command.console import console
from tasks.command.environment import find_settings
from tasks.command.options import state_option
from tasks.command.release import connect
from tasks.command.state import StateFolder
from tasks.db import Row, statement
from tasks.errors import Refused
from tasks.ledger import pause as pause_in_ledger
from tasks.ledger import resume as resume_in_ledger
from tasks.pipeline import QUEUES

Scope = Literal["queue", "tenant"]
Connection = psycopg.Connection[Row]


def _named(command: Callable[..., Any]) -> Callable[..., Any]:
    """What is meant: `queue llm`, or `tenant` and its id or name."""
    scope = click.argument("scope", type=click.Choice(["queue", "tenant"]), metavar="queue|tenant")
    return scope(click.argument("name")(command))


@click.command()
@_named
@click.option("--reason", default="", help="A sentence that those who wait are shown.")
@state_option
def pause(scope: Scope, name: str, reason: str, state: Path) -> None:
    """Begin nothing more of a queue or of a tenant.

    What runs goes on, and what waits says why. NAME is a queue, or the id or name of a tenant.
    """
    with connect(find_settings(StateFolder(state))) as connection:
        found, shown = _find(connection, scope, name)
        pause_in_ledger(connection, scope, found, reason)
    console().print(f"{shown} is paused. What runs goes on, and nothing more is begun.", markup=False)


@click.command()
@_named
@state_option
def resume(scope: Scope, name: str, state: Path) -> None:
    """Go on with a queue or a tenant that was paused.

    NAME is a queue, or the id or name of a tenant.
    """
    with connect(find_settings(StateFolder(state))) as connection:
        found, shown = _find(connection, scope, name)
        was_paused = resume_in_ledger(connection, scope, found)
    console().print(f"{shown} goes on." if was_paused else f"{shown} was not paused.", markup=False)


def _find(connection: Connection, scope: Scope, name: str) -> tuple[str, str]:
    """The name as the ledger has it, and as people are shown it. Raises Refused."""
    if scope == "queue":
        if name not in QUEUES:
            raise Refused("queue_unknown", f"There is no queue {name}. There are: {', '.join(QUEUES)}.")
        return name, f"Queue {name}"
    tenant_id, shown = find_tenant(connection, name)
    return str(tenant_id), shown


def find_tenant(connection: Connection, name: str) -> tuple[UUID, str]:
    """The tenant of that id or name, and what people are shown. Raises Refused."""
    rows = connection.execute(statement("find_tenants"), {"name": name}).fetchall()
    if len(rows) != 1:
        message = f"Several tenants are named {name}: say its id." if rows else f"There is no tenant {name}."
        raise Refused("tenant_ambiguous" if rows else "tenant_not_found", message)
    return rows[0]["id"], f"Tenant {rows[0]['name']} ({rows[0]['id']})"
