"""Who asks: the user a token speaks for or the machine a key belongs to, and the member of a tenant it acts as."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from uuid import UUID

from flask import g, request

from api import key_secrets
from api.codes import refuse
from api.graphs import Graph
from api.house import House
from api.key_secrets import KeyHolder, recognise
from api.together import Entrance
from api.tokens import ROLE, Caller, read_bearer
from tasks.db import Row, statement
from tasks.errors import Refused

# Whoever comes with a token is known by it; whoever comes with a key, only when the database was asked.
Asker = Caller | KeyHolder

TENANT_HEADER = "X-Tenant-Id"
OWNERS = ("owner",)
WRITERS = (*OWNERS, "editor")
REVIEWERS = (*WRITERS, "reviewer")


@dataclass(frozen=True)
class Member:
    """A user or machine in a tenant. `graph`: the pipeline that the request wants to run, when it names one.
    `upload_bytes` and `requests_per_minute`: the tenant's own limits, where it has any. `recalled`: the database said
    so a moment ago, and is to prove the role before anything comes of it."""

    caller: Caller
    tenant_id: UUID
    role: str
    graph: Graph | None = None
    upload_bytes: int | None = None
    requests_per_minute: int | None = None
    recalled: bool = False

    @property
    def user_id(self) -> UUID:
        """The user."""
        return self.caller.user_id


def admit(desk: House, authorization: str | None) -> None:
    """Note who asks. Raises Refused (401, 403) unless the header holds a good token, or what may be a key: whether it
    is one is asked when somebody enters, together with what else has to be asked then.
    """
    g.asker = recognise(read_bearer(authorization)) or desk.tokens.verify(authorization)
    if isinstance(g.asker, Caller):
        g.caller = g.asker


class Outdated(Exception):
    """What was recalled of a member is no longer so."""


def enter(desk: House, asker: Asker, pipeline: str | None = None, recall: bool = False) -> Member:
    """The member somebody acts as, and the pipeline wanted, in one round trip, which for a key also says whose it is.

    With `recall` it takes none, when a user who may write asked for the same pipeline a moment ago. Raises Refused
    `key_invalid`, `key_expired`, `no_tenant`, `tenant_required`, `tenant_not_found`, and `unknown_pipeline`.
    """
    if recall and pipeline is not None and isinstance(asker, Caller):
        known = _recall(desk, asker, pipeline)
        if known is not None:
            return known
    caller, rows = _meet(desk, asker, pipeline)
    return _member_of(desk, caller, rows, pipeline)


def _recall(desk: House, caller: Caller, pipeline: str) -> Member | None:
    """The member, as far as what is remembered will do: for nothing that would be refused."""
    rows = desk.acquaintances.find(caller.user_id, pipeline)
    if rows is None or any(row["graph"] != desk.graphs.digest(pipeline) for row in rows):
        return None
    try:
        member = _member_of(desk, caller, rows, pipeline)
    except Refused:
        return None
    return replace(member, recalled=True) if member.role in WRITERS else None


def _member_of(desk: House, caller: Caller, rows: list[Row], pipeline: str | None) -> Member:
    # A ticket was made for one tenant, and where one is used, headers cannot be sent.
    row = _choose(rows, g.get("ticket_tenant") or request.headers.get(TENANT_HEADER))
    graph = desk.graphs.recall(pipeline, row) if pipeline is not None else None
    return Member(caller, row["tenant_id"], row["role"], graph, row["upload_bytes"], row["requests_per_minute"])


def identify(desk: House, asker: Asker) -> Caller:
    """Who it is, where no tenant is needed. Raises Refused `key_invalid` and `key_expired`."""
    return asker if isinstance(asker, Caller) else _meet(desk, asker)[0]


def memberships(desk: House, caller: Caller, pipeline: str | None = None) -> list[Row]:
    """The caller's tenants: tenant_id, name, role; and beside each the graph of the pipeline asked for."""
    rows = desk.entrances.ask(Entrance(caller.user_id, pipeline, desk.graphs.digest(pipeline)))
    if pipeline is not None:
        desk.acquaintances.note(caller.user_id, pipeline, rows)
    return rows


def _meet(desk: House, asker: Asker, pipeline: str | None = None) -> tuple[Caller, list[Row]]:
    if isinstance(asker, Caller):
        return asker, memberships(desk, asker, pipeline)
    asked = {"digest": asker.digest, "pipeline": pipeline, "known": desk.graphs.digest(pipeline)}
    with desk.pool.connection() as connection:
        rows = connection.execute(statement("api_enter_by_key"), asked).fetchall()
    if not rows:
        raise key_secrets.invalid()
    if rows[0]["expired"]:
        raise key_secrets.expired()
    # Noted at once: what is refused from here on is logged with who asked.
    g.caller = _machine(rows[0])
    return g.caller, rows


def _machine(row: Row) -> Caller:
    """A key as a caller. Its id is its user id: row-level security and the ledger see a member like any other."""
    return Caller(
        user_id=row["key_id"],
        email=None,
        expires_at=row["expires_at"].timestamp() if row["expires_at"] else math.inf,
        claims={"sub": str(row["key_id"]), "role": ROLE},
    )


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
