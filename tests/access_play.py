"""Two tenants with rows of every kind, and acting in SQL as those who may have a token."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, LiteralString
from uuid import UUID

from ledger_play import Play, digest, items
from psycopg import sql
from webhook_play import hook

from tasks import ledger

FILE = {"name": "a.txt", "media_type": "text/plain", "bytes": 1, "sha256": digest("a")}
# What is about pipelines is shown to every user.
PUBLISHED = {"pipelines", "pipeline_graphs", "pipeline_steps"}


@contextmanager
def acting(play: Play, role: str, user: UUID | None = None) -> Iterator[Play]:
    """Act as PostgREST would for a token: role and claims for one transaction, which is rolled back."""
    claims = json.dumps({"role": role} | ({"sub": str(user)} if user else {}))
    with play.connection.transaction(force_rollback=True):
        play.all("select set_config('role', %s, true), set_config('request.jwt.claims', %s, true)", role, claims)
        yield play


def relations(play: Play) -> list[str]:
    """Every table and view that the data API could serve."""
    query: LiteralString = (
        "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r','p','v','m','f')"
    )
    return [row["relname"] for row in play.all(query)]


def rows_of(play: Play, relation: str) -> list[dict[str, Any]]:
    return play.connection.execute(sql.SQL("select * from public.{}").format(sql.Identifier(relation))).fetchall()


def fill(play: Play, tenant: UUID) -> None:
    """A row of every kind for a tenant: jobs reviewed, mapped and failed, artifacts, a document, an upload, a
    batch, a key, and a webhook with its deliveries.
    """
    play.add_key(tenant)
    play.add_upload(tenant)
    play.add_batch({}, tenant=tenant)
    hook(play, tenant=tenant)
    ledger.limit_tenant(play.connection, tenant, {"active_jobs": 1000})
    document = play.add_document(str(tenant), tenant=tenant)
    play.submit("reading", tenant_id=tenant, document_id=document, params={})
    play.complete(play.begin(), artifacts=[FILE])
    play.fail(play.begin())
    play.submit("fan", tenant_id=tenant)
    play.complete(play.begin(), items=items(2))
    play.begin_all()
    play.submit("reviewed", tenant_id=tenant)
    play.complete(play.begin())
