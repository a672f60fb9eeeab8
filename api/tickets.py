"""Stream tickets: who is it, where a browser's EventSource can send no header.

A ticket is good once, for a minute, and for streams only. What opens a door by standing in an address may be seen on
its way; one that was used is worth nothing. Only its digest is kept.
"""

from __future__ import annotations

import hashlib
import re
import secrets

from flask import g, request

from api.codes import refuse
from api.house import House
from api.people import Member
from api.tokens import Caller
from tasks import ledger
from tasks.db import Row
from tasks.errors import Refused

TICKET = "ticket"
TTL_S = 60
_LOOK = re.compile(r"[A-Za-z0-9_-]{43}")


def make_ticket(desk: House, member: Member) -> tuple[str, int]:
    """A new ticket for a member, and the seconds for which it is good: never longer than the token it is made with."""
    ticket = secrets.token_urlsafe(32)
    kept = {
        "digest": _digest(ticket),
        "user_id": member.user_id,
        "tenant_id": member.tenant_id,
        "claims": member.caller.claims,
        "session_ends": member.caller.expires_at,
        "ttl_s": TTL_S,
    }
    with desk.pool.connection() as connection:
        good_for_s = ledger.make_ticket(connection, kept)
    return ticket, int(good_for_s)


def admit_by_ticket(desk: House) -> bool:
    """Note who asks and in which tenant, if the address has a ticket and no header says who: a ticket is used up by it.
    Raises Refused `ticket_invalid` when it was used before, has expired or never was one.
    """
    ticket = request.args.get(TICKET)
    if ticket is None or "Authorization" in request.headers:
        return False
    row = _take(desk, ticket)
    if row is None:
        raise _invalid()
    claims = row["claims"]
    g.asker = g.caller = Caller(row["user_id"], claims.get("email"), row["session_ends"], claims)
    g.ticket_tenant = str(row["tenant_id"])
    return True


def _take(desk: House, ticket: str) -> Row | None:
    if not _LOOK.fullmatch(ticket):
        return None
    with desk.pool.connection() as connection:
        return ledger.take_ticket(connection, _digest(ticket))


def _digest(ticket: str) -> str:
    return hashlib.sha256(ticket.encode()).hexdigest()


def _invalid() -> Refused:
    error = refuse("ticket_invalid", "This stream ticket is not good any more. Please get another one.")
    error.headers = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
    return error
