"""Somebody to play at the ledger, in a transaction that is rolled back or on a database of its own; and a house with
real workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ledger_play import Play
from psycopg.rows import dict_row
from worker_process import House, open_house


@pytest.fixture
def play(connection: psycopg.Connection[dict[str, Any]]) -> Play:
    """Plays in a transaction that is rolled back."""
    return Play(connection)


@pytest.fixture
def real_play(database_url: str) -> Iterator[Play]:
    """Plays for all to see, on a database of this test alone: every call is a transaction."""
    with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as connection:
        yield Play(connection)


@pytest.fixture
def house(database_url: str, tmp_path: Path) -> Iterator[House]:
    """A database and a folder of this test alone, for workers that are real processes."""
    with open_house(database_url, tmp_path) as house:
        yield house
