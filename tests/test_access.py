"""Row-level security, as the people it is for: members of two tenants, a stranger, and one who is not signed in."""

from __future__ import annotations

import json
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest
from access_play import PUBLISHED, acting, fill, relations, rows_of
from ledger_play import Play
from psycopg import sql


@pytest.fixture
def other(play: Play) -> UUID:
    """Both tenants have rows of every kind; the user of the other one."""
    other = uuid4()
    for tenant in (play.tenant, play.add_tenant(other)):
        fill(play, tenant)
    return other


def test_every_table_is_filled_for_both_tenants_by_this_test(play: Play, other: UUID) -> None:
    owned = [relation for relation in relations(play) if relation not in PUBLISHED]
    counts = {relation: len({_tenant_of(row) for row in rows_of(play, relation)}) for relation in owned}
    assert {relation for relation, count in counts.items() if count < 2} == set()


def _tenant_of(row: dict[str, Any]) -> Any:
    return row.get("tenant_id", row.get("id"))


def test_a_member_sees_the_rows_of_the_own_tenant_and_no_others(play: Play, other: UUID) -> None:
    whole = {relation: rows_of(play, relation) for relation in relations(play) if relation not in PUBLISHED}
    tenants = {play.user: play.tenant}
    tenants[other] = play.one("select tenant_id from members where user_id = %s", other)
    for user, tenant in tenants.items():
        with acting(play, "authenticated", user):
            for relation, rows in whole.items():
                own = [row for row in rows if _tenant_of(row) == tenant]
                assert _sorted(rows_of(play, relation)) == _sorted(own), relation


def _sorted(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(str(row) for row in rows)


def test_a_member_of_both_tenants_sees_both(play: Play, other: UUID) -> None:
    play.connection.execute(
        "insert into members select tenant_id, %s, 'viewer' from members where user_id = %s", [play.user, other]
    )
    with acting(play, "authenticated", play.user):
        assert len({row["tenant_id"] for row in rows_of(play, "jobs")}) == 2


def test_a_stranger_and_a_token_without_a_user_see_no_row(play: Play, other: UUID) -> None:
    for user in (uuid4(), None):
        with acting(play, "authenticated", user):
            seen = {relation for relation in relations(play) if rows_of(play, relation)}
        assert seen <= PUBLISHED


def test_a_member_who_was_removed_sees_nothing_any_more(play: Play, other: UUID) -> None:
    play.connection.execute("delete from members where user_id = %s", [play.user])
    with acting(play, "authenticated", play.user):
        assert rows_of(play, "jobs") == rows_of(play, "tenants") == []


def test_claims_that_the_user_can_edit_give_no_tenant(play: Play, other: UUID) -> None:
    claims = {"role": "authenticated", "sub": str(other), "tenant_id": str(play.tenant)}
    claims["user_metadata"] = claims["app_metadata"] = {"tenant_id": str(play.tenant), "role": "service_role"}  # type: ignore[assignment]
    with play.connection.transaction(force_rollback=True):
        play.all(
            "select set_config('role', 'authenticated', true), set_config('request.jwt.claims', %s, true)",
            json.dumps(claims),
        )
        assert play.all("select from jobs where tenant_id = %s", play.tenant) == []


def test_who_is_not_signed_in_can_read_nothing(play: Play, other: UUID) -> None:
    for relation in relations(play):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), acting(play, "anon"):
            rows_of(play, relation)


@pytest.mark.parametrize("role", ["authenticated", "anon"])
@pytest.mark.parametrize(
    "verb", ["insert into {} default values", "update {} set {} = {}", "delete from {}", "truncate {}"]
)
def test_nobody_but_the_service_writes(play: Play, other: UUID, role: str, verb: LiteralString) -> None:
    for relation in relations(play):
        column = play.one(
            "select attname from pg_attribute where attrelid = %s::regclass and attnum = 1", f"public.{relation}"
        )
        names = (
            [sql.Identifier(relation)] * 2
            if "insert" in verb
            else [sql.Identifier(n) for n in (relation, column, column)]
        )
        with pytest.raises(psycopg.errors.InsufficientPrivilege), acting(play, role, play.user):
            play.connection.execute(sql.SQL(verb).format(*names[: verb.count("{}")]))


@pytest.mark.parametrize("role", ["authenticated", "anon"])
@pytest.mark.parametrize(
    "statement",
    [
        "select ledger.cancel(gen_random_uuid(), gen_random_uuid(), null)",
        "select * from ledger.claim('{llm}', gen_random_uuid(), null, 1)",
        "select * from ops.drift",
        "select * from ops.failures",
        "select * from ops.workers",
        "select * from procrastinate.procrastinate_jobs",
        "select procrastinate.procrastinate_register_worker_v1()",
        "select * from supabase_migrations.schema_migrations",
        "alter table public.jobs disable row level security",
        "create table public.mine (id int)",
        "create function public.f() returns int language sql as 'select 1'",
    ],
)
def test_users_cannot_reach_behind_the_tables(play: Play, other: UUID, role: str, statement: LiteralString) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege), acting(play, role, play.user):
        play.all(statement)


def test_a_user_learns_the_own_tenants_only(play: Play, other: UUID) -> None:
    with acting(play, "authenticated", play.user):
        assert play.one("select access.tenants()") == play.tenant


def test_an_open_function_tells_nothing_of_another_tenants_job(play: Play, other: UUID) -> None:
    jobs = play.all("select id, tenant_id from jobs where status = 'awaiting_review'")
    with acting(play, "authenticated", play.user):
        answers = {job["tenant_id"]: play.one("select access.waiting_for(%s)", job["id"]) for job in jobs}
    own = answers.pop(play.tenant)
    assert own["reason"] == "review"
    assert list(answers.values()) == [None]


def test_a_search_path_of_the_caller_does_not_mislead_the_policies(play: Play, other: UUID) -> None:
    """Objects of the caller's own making, found first, would decide about rows if names were not qualified."""
    play.connection.execute(
        "create temp view members as select tenant_id, '00000000-0000-0000-0000-000000000001'::uuid as user_id"
        " from public.members; grant select on pg_temp.members to authenticated"
    )
    with acting(play, "authenticated", UUID(int=1)):
        play.all("select set_config('search_path', 'pg_temp, public', true)")
        assert play.all("select * from public.jobs") == []
        assert play.all("select access.tenants()") == []
