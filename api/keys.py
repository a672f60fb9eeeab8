"""API keys: how machines come in. Made, listed and revoked by owners, who are people."""

from __future__ import annotations

from uuid import UUID

from api.contract import Access, Reply, Room
from api.house import house
from api.key_secrets import digest_of, make_secret, shown_part
from api.models.keys import Key, Keys, KeysPage, MadeKey, NewKey
from api.paging import cut, read_cursor
from api.people import Member
from api.reading import read
from tasks import keys as ledger_keys

keys = Room("keys", "How machines come in. A key is a member of its tenant, with a role. Owners make and revoke them.")


@keys.call("GET", "/keys", "List API keys", access=Access.OWN, query=KeysPage, gives=Keys, errors=("cursor_invalid",))
def list_keys(member: Member, query: KeysPage) -> Keys:
    """The tenant's keys, newest first, revoked and expired ones included."""
    page = {"before": read_cursor(query.cursor), "most": query.limit + 1}
    rows = read(house(), member.caller, "api_keys", tenant_id=member.tenant_id, **page)
    rows, cursor = cut(rows, query.limit)
    return Keys(keys=[Key(**row) for row in rows], next_cursor=cursor)


@keys.call(
    "POST",
    "/keys",
    "Make an API key",
    access=Access.OWN,
    body=NewKey,
    gives=MadeKey,
    status=201,
    errors=("too_many_keys",),
)
def make_key(member: Member, body: NewKey) -> Reply:
    """The answer holds the secret, and nothing else ever will: only its sha256 is kept. Send it as `Authorization:
    Bearer`; a key belongs to this tenant and needs no `X-Tenant-Id`.
    """
    secret = make_secret()
    with house().pool.connection() as connection:
        row = ledger_keys.create(
            connection,
            member.tenant_id,
            member.user_id,
            prefix=shown_part(secret),
            digest=digest_of(secret),
            **body.model_dump(),
        )
    return Reply(MadeKey(**row, secret=secret))


@keys.call(
    "DELETE", "/keys/<uuid:key_id>", "Revoke an API key", access=Access.OWN, gives=Key, errors=("key_not_found",)
)
def revoke_key(member: Member, key_id: UUID) -> Key:
    """From this answer on the key is refused. What it started goes on. A second time changes nothing."""
    with house().pool.connection() as connection:
        return Key(**ledger_keys.revoke(connection, key_id, member.tenant_id, member.user_id))
