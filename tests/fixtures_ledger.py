"""Somebody to play at the ledger, in a transaction that is rolled back or on a database of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from ledger_play import Play
from psycopg.rows import dict_row


@pytest.fixture
def play(connection: psycopg.Connection[dict[str, Any]]) -> Play:
    """Plays in a transaction that is rolled back."""
    return Play(connection)


@pytest.fixture
def real_play(database_url: str) -> Iterator[Play]:
    """Plays for all to see, on a database of this test alone: every call is a transaction."""
    with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as connection:
        yield Play(connection)
