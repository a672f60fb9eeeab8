"""Databases for tests: one server per run, one migrated template, a fresh clone for whoever asks.

TEST_DATABASE_URL (a superuser's, or one that may create databases and roles) replaces the embedded server.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from tasks.embedded import EmbeddedPostgres
from tasks.migrations import migrate

_numbers = count(1)


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running server, fast and forgetful. Its database `postgres` is nobody's: use `database_url`."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield given
        return
    folder: Path = tmp_path_factory.mktemp("postgres")
    with EmbeddedPostgres(folder, durable=False) as postgres:
        yield postgres.url


@pytest.fixture(scope="session")
def template_database(postgres_url: str) -> Iterator[str]:
    """Name of a migrated database that nobody connects to, for cloning."""
    with _database(postgres_url) as url:
        migrate(url)
        yield urlsplit(url).path.lstrip("/")


@pytest.fixture
def database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """A migrated database of this test alone."""
    with _database(postgres_url, template_database) as url:
        yield url


@pytest.fixture(scope="module")
def module_database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """A migrated database shared by the tests of one module."""
    with _database(postgres_url, template_database) as url:
        yield url


@pytest.fixture(scope="session")
def session_database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """A migrated database for tests that leave nothing behind: see `connection`."""
    with _database(postgres_url, template_database) as url:
        yield url


@pytest.fixture
def empty_database_url(postgres_url: str) -> Iterator[str]:
    """A database without any migration, of this test alone."""
    with _database(postgres_url) as url:
        yield url


@pytest.fixture
def connection(session_database_url: str) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """A connection in a transaction that is rolled back. Rows are dicts. Do not commit: others use the database."""
    with psycopg.connect(session_database_url, row_factory=dict_row) as opened:
        yield opened
        opened.rollback()


def address_of(database: str, server: str) -> str:
    """The address of a database on the server that the address `server` leads to."""
    return urlsplit(server)._replace(path=f"/{database}").geturl()


@contextmanager
def _database(server: str, template: str = "template0") -> Iterator[str]:
    name = f"test_{os.getpid()}_{next(_numbers)}"
    _run(server, "create database {} template {}", name, template)
    try:
        yield address_of(name, server)
    finally:
        _run(server, "drop database if exists {} with (force)", name)


def _run(server: str, command: str, *names: str) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL(command).format(*map(sql.Identifier, names)))  # type: ignore[arg-type]
