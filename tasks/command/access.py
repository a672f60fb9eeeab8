"""How a command comes to talk to an API: the options it takes for that, and the client it gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click

from tasks.command.client import Client, Endpoint
from tasks.command.options import state_option
from tasks.command.state import StateFolder
from tasks.errors import Refused

Command = Callable[..., Any]


@dataclass(frozen=True)
class Access:
    """What the user said about the API; None for what was not said."""

    state: StateFolder
    url: str | None = None
    token: str | None = None
    tenant: str | None = None

    def open(self) -> Client:
        """A client for it. Raises Refused `api_unknown`, `token_missing` or `url_invalid`."""
        return Client(self.find())

    def find(self) -> Endpoint:
        """The API that was named, else the one of the running `up`. Raises Refused `api_unknown` or `token_missing`."""
        running = self.state.running()
        if self.url is None and running is None:
            message = f"No `ledgerline up` runs in {self.state.path}."
            raise Refused("api_unknown", f"{message} Start it, or set LEDGERLINE_URL and LEDGERLINE_TOKEN.")
        url = (self.url or (running.url if running else "")).rstrip("/")
        # The development key is for the API that runs here, and is not shown to anybody else.
        token = self.token or (self.state.read_key() if running and url == running.url else None)
        if not token:
            message = "There is no access token. Set LEDGERLINE_TOKEN to that of a signed-in user."
            raise Refused("token_missing", message)
        return Endpoint(url, token, self.tenant)


def api_options(command: Command) -> Command:
    """--url, --token, --tenant and --state, given to the command as one argument `access`."""

    @wraps(command)
    def call(url: str | None, token: str | None, tenant: str | None, state: Path, **others: Any) -> Any:
        return command(access=Access(StateFolder(state), url, token, tenant), **others)

    options = (
        click.option("--url", envvar="LEDGERLINE_URL", help="Base URL of the API. Default: the running `up`."),
        click.option(
            "--token",
            envvar="LEDGERLINE_TOKEN",
            help="Access token; LEDGERLINE_TOKEN is safer.",
        ),
        click.option(
            "--tenant",
            envvar="LEDGERLINE_TENANT",
            help="Id of the tenant, for members of several.",
        ),
        state_option,
    )
    decorated: Command = call
    for option in reversed(options):
        decorated = option(decorated)
    return decorated
