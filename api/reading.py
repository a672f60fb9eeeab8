"""Reading as the caller: row-level security decides what is seen."""

from __future__ import annotations

import json
from typing import Any

from api.house import House
from api.tokens import Caller
from tasks.db import Row, statement


def read(desk: House, caller: Caller, name: str, **arguments: Any) -> list[Row]:
    """Rows of one statement, run as the caller.

    Begin, role and claims, the statement and commit travel together: one round trip, and nothing is left behind on a
    pooled connection, because role and claims are local to the transaction.
    """
    with desk.pool.connection() as connection:
        with connection.pipeline(), connection.transaction():
            connection.execute(statement("act_as_user"), {"claims": json.dumps(caller.claims)})
            cursor = connection.execute(statement(name), arguments)
        return cursor.fetchall()


def read_one(desk: House, caller: Caller, name: str, **arguments: Any) -> Row | None:
    """The first row of a statement, or None."""
    rows = read(desk, caller, name, **arguments)
    return rows[0] if rows else None
