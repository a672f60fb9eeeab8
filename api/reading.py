"""Reading as the caller: row-level security decides what is seen."""

from __future__ import annotations

import json
from typing import Any

from api.house import House
from api.tokens import Caller
from tasks.db import Row, statement


def read(desk: House, caller: Caller, name: str, **arguments: Any) -> list[Row]:
    """Rows of one statement, run as the caller.

    Role and claims travel together with the statement: one round trip. What is sent together is one transaction, and
    role and claims are local to it, so nothing of them is left on the pooled connection.
    """
    with desk.pool.connection() as connection:
        with connection.pipeline():
            connection.execute(statement("act_as_user"), {"claims": json.dumps(caller.claims)})
            cursor = connection.execute(statement(name), arguments)
        return cursor.fetchall()


def read_one(desk: House, caller: Caller, name: str, **arguments: Any) -> Row | None:
    """The first row of a statement, or None."""
    rows = read(desk, caller, name, **arguments)
    return rows[0] if rows else None
