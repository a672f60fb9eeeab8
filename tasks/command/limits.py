"""The command with which operators see and change what one tenant may have. It needs the database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tasks.command.console import console, table
from tasks.command.environment import find_settings
from tasks.command.options import state_option
from tasks.command.pauses import find_tenant
from tasks.command.release import connect
from tasks.command.state import StateFolder
from tasks.ledger import TENANT_LIMITS, limit_tenant
from tasks.settings import Settings

DEFAULT = "default"
# The setting that holds where a tenant has no limit of its own.
_SETTINGS = {
    "active_jobs": "max_active_jobs",
    "stored_bytes": "max_stored_bytes",
    "upload_bytes": "max_upload_bytes",
    "requests_per_minute": "requests_per_minute",
}


def _read(context: click.Context, option: click.Parameter, text: str | None) -> int | str | None:
    """A number of at least 1; `default` stays a word, because None means that nothing was said."""
    if text is None or text == DEFAULT:
        return text
    if not text.isdecimal() or int(text) < 1:
        raise click.BadParameter(f"{text} is neither a number of at least 1 nor `{DEFAULT}`.", context, option)
    return int(text)


def _name_setting(limit: str) -> str:
    return _SETTINGS[limit].upper()


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for name in reversed(TENANT_LIMITS):
        option = click.option(
            f"--{name.replace('_', '-')}",
            metavar=f"NUMBER|{DEFAULT}",
            callback=_read,
            help=f"Instead of {_name_setting(name)}.",
        )
        command = option(command)
    return command


@click.command()
@click.argument("tenant")
@_options
@state_option
def limits(tenant: str, state: Path, **given: int | str | None) -> None:
    """Show or change what one tenant may have.

    TENANT is its id or name. `default` takes a limit of its own back: the setting holds again.
    """
    settings = find_settings(StateFolder(state))
    changed = {name: value if isinstance(value, int) else None for name, value in given.items() if value is not None}
    with connect(settings) as connection:
        tenant_id, shown = find_tenant(connection, tenant)
        held = limit_tenant(connection, tenant_id, changed)
    console().print(f"{shown} may have:", markup=False)
    console().print(_list(settings, held))


def _list(settings: Settings, held: dict[str, Any]) -> Any:
    lines = table("limit", "value", "from")
    for name in TENANT_LIMITS:
        own = held[name]
        value = getattr(settings, _SETTINGS[name]) if own is None else own
        lines.add_row(name, str(value), _name_setting(name) if own is None else "its own")
    return lines
