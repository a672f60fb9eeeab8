"""An API for tests: `front` in this process, for the fine grain; `served` by gunicorn, for what only a server shows.

Both use one database for a whole module; what a test left in it is gone before the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from api_play import Front, Served, make_settings, serve
from flask import Flask
from ledger_play import Play
from psycopg import sql
from psycopg.rows import dict_row

from api import create_app
from api.house import house_of
from tasks.settings import Settings


@pytest.fixture(scope="module")
def api_settings(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of the module's API."""
    return make_settings(module_database_url, tmp_path_factory.mktemp("storage"), max_upload_bytes=2 * 1024 * 1024)


@pytest.fixture(scope="module")
def app(api_settings: Settings) -> Iterator[Flask]:
    """The API in this process."""
    made = create_app(api_settings)
    yield made
    house_of(made).close()


@pytest.fixture(scope="module")
def served(api_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The API as a process of its own."""
    with serve(api_settings, tmp_path_factory.mktemp("served") / "api.log") as running:
        yield running


@pytest.fixture
def front(app: Flask, api_settings: Settings) -> Iterator[Front]:
    """A tenant at the door. Everything in the ledger and in storage goes when the test does."""
    url = api_settings.database_url.get_secret_value()
    with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:
        front = Front(app, api_settings, Play(connection))
        yield front
        _wipe(connection)
        for path in front.stored:
            path.unlink()


def _wipe(connection: psycopg.Connection[dict[str, Any]]) -> None:
    connection.execute("delete from tenants")
    connection.execute("delete from procrastinate.procrastinate_jobs")
    for row in connection.execute("select tablename from pg_tables where schemaname = 'ops'").fetchall():
        connection.execute(sql.SQL("delete from ops.{}").format(sql.Identifier(row["tablename"])))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where a server of this test alone logs."""
    return tmp_path / "api.log"
