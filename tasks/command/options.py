"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from tasks.command.state import DEFAULT

Command = TypeVar("Command", bound=Callable[..., Any])

state_option = click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT,
    envvar="LEDGERLINE_STATE",
    show_default=True,
    help="Folder in which `up` keeps everything.",
)


def api_options(command: Command) -> Command:
    """--url, --token and --state: which API to talk to, as whom."""
    url = click.option("--url", envvar="LEDGERLINE_URL", help="Base URL of the API. Default: the running `up`.")
    token = click.option(
        "--token",
        envvar="LEDGERLINE_TOKEN",
        help="Access token; better set LEDGERLINE_TOKEN. Default: that of `up`.",
    )
    return url(token(state_option(command)))
