"""Who asks: the user a token speaks for, and the member of a tenant that this user acts as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from flask import request

from api.codes import refuse
from api.graphs import Graph
from api.house import House
from api.tokens import Caller
from tasks.db import Row, statement

TENANT_HEADER = "X-Tenant-Id"
OWNERS = ("owner",)
WRITERS = (*OWNERS, "editor")
REVIEWERS = (*WRITERS, "reviewer")


@dataclass(frozen=True)
class Member:
    """A user in a tenant. `graph`: the pipeline that the request wants to run, when it names one."""

    caller: Caller
    tenant_id: UUID
    role: str
    graph: Graph | None = None

    @property
    def user_id(self) -> UUID:
        """The user."""
        return self.caller.user_id


def enter(desk: House, caller: Caller, pipeline: str | None = None) -> Member:
    """The member the caller acts as, and the pipeline wanted, in one round trip.

    Raises Refused `no_tenant`, `tenant_required`, `tenant_not_found`, and `unknown_pipeline` for a wrong name.
    """
    row = _choose(memberships(desk, caller, pipeline), request.headers.get(TENANT_HEADER))
    graph = desk.graphs.recall(pipeline, row) if pipeline is not None else None
    return Member(caller, row["tenant_id"], row["role"], graph)


def memberships(desk: House, caller: Caller, pipeline: str | None = None) -> list[Row]:
    """The caller's tenants: tenant_id, name, role; and beside each the graph of the pipeline asked for."""
    asked: dict[str, Any] = {
        "user_id": caller.user_id,
        "pipeline": pipeline,
        "known": desk.graphs.digest(pipeline),
    }
    with desk.pool.connection() as connection:
        return connection.execute(statement("api_enter"), asked).fetchall()


def require_writer(member: Member) -> None:
    """Raise Refused `role_not_allowed` unless the member may start and stop work."""
    _require(member, WRITERS, "Starting and stopping work takes an editor or an owner.")


def require_reviewer(member: Member) -> None:
    """Raise Refused `role_not_allowed` unless the member may decide what waits for a person."""
    _require(member, REVIEWERS, "Deciding takes a reviewer, an editor or an owner.")


def require_owner(member: Member) -> None:
    """Raise Refused `role_not_allowed` unless the member may change how the tenant is set up."""
    _require(member, OWNERS, "Changing how a tenant is set up takes an owner.")


def _require(member: Member, roles: tuple[str, ...], rule: str) -> None:
    if member.role not in roles:
        message = f"Your role here is {member.role}. {rule}"
        raise refuse("role_not_allowed", message, role=member.role, allowed=list(roles))


def _choose(rows: list[Row], wanted: str | None) -> Row:
    if not rows:
        raise refuse("no_tenant", "You are not a member of any tenant yet. Ask an owner to add you.")
    if wanted is not None:
        return _find(rows, wanted.strip().lower())
    if len(rows) > 1:
        message = f"You are a member of several tenants. Say which one in the header {TENANT_HEADER}."
        tenants = [{"id": str(row["tenant_id"]), "name": row["name"]} for row in rows]
        raise refuse("tenant_required", message, tenants=tenants)
    return rows[0]


def _find(rows: list[Row], wanted: str) -> Row:
    for row in rows:
        if str(row["tenant_id"]) == wanted:
            return row
    raise refuse("tenant_not_found", "There is no such tenant.")
