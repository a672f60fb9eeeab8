"""The option that says where `up` keeps everything."""

from __future__ import annotations

from pathlib import Path

import click

from tasks.command.state import DEFAULT

state_option = click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT,
    envvar="LEDGERLINE_STATE",
    show_default=True,
    help="Folder in which `up` keeps everything.",
)
