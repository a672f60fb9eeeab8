"""Where a command's settings come from: the environment, `.env`, and else the `up` that runs in the state folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

from tasks.command.development import ISSUER
from tasks.command.state import StateFolder
from tasks.settings import Settings, SettingsInvalid, load

_NAMES = frozenset(name.upper() for name in Settings.model_fields)


@dataclass(frozen=True)
class Completed:
    """The settings `up` gives to its processes.

    ours: the names that `up` filled in, because nobody had set them. JWT_SECRET among them means that the
    signing secret is our own, so a development user can be made.
    """

    values: dict[str, str]
    ours: frozenset[str]

    def load(self) -> Settings:
        """Check them. Raises SettingsInvalid."""
        return load(**{name.lower(): value for name, value in self.values.items()})


def given() -> dict[str, str]:
    """The settings that the environment and `.env` hold, by upper-case name; empty ones count as absent."""
    found: dict[str, str] = {}
    for source in (dotenv_values(Path(".env")), os.environ):
        found |= {name.upper(): value for name, value in source.items() if value and name.upper() in _NAMES}
    return found


def complete(state: StateFolder, overrides: dict[str, str]) -> Completed:
    """What is given, what `up` adds where nothing is given, and `overrides`, which win over both."""
    known = given()
    made = state.secrets()
    extra = {"STORAGE_PATH": str(state.storage)}
    if known.get("STORAGE", "local") == "local":
        extra["LINK_SECRET"] = made["LINK_SECRET"]
    if not known.get("JWT_SECRET") and not known.get("JWKS_URL"):
        extra["JWT_SECRET"] = made["JWT_SECRET"]
        extra["JWT_ISSUER"] = f"{known['SUPABASE_URL'].rstrip('/')}/auth/v1" if "SUPABASE_URL" in known else ISSUER
    return Completed(extra | known | overrides, frozenset(extra.keys() - known.keys()))


def find_settings(state: StateFolder) -> Settings:
    """The settings of this place: given ones, else those of the running `up`. Raises SettingsInvalid."""
    known = given()
    if "DATABASE_URL" not in known and state.running():
        known = state.read_settings() | known
    try:
        return load(**{name.lower(): value for name, value in known.items()})
    except SettingsInvalid as error:
        if "DATABASE_URL" in known:
            raise
        hint = f"DATABASE_URL: not set, and no `ledgerline up` runs in {state.path}"
        others = [line for line in str(error).splitlines() if not line.startswith("DATABASE_URL:")]
        raise SettingsInvalid("\n".join([hint, *others])) from None


def has_database(state: StateFolder) -> bool:
    """Whether a database is known here: given, or that of a running `up`."""
    return "DATABASE_URL" in given() or state.running() is not None
