"""What the catalog says about access, so that a table or function that is added later cannot be forgotten."""

from __future__ import annotations

from typing import LiteralString, cast

import psycopg
import pytest
from ledger_play import Play

from tasks.migrations import migrate


def catalog_problems(play: Play) -> list[str]:
    return [row["problem"] for row in play.all(cast(LiteralString, CATALOG))]


CATALOG = """
select format('%s has no row-level security', c.oid::regclass) as problem from pg_class c
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relrowsecurity
union all
select format('%s has no policy', c.oid::regclass) from pg_class c
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
  and not exists (select from pg_policy p where p.polrelid = c.oid)
union all
select format('policy %s of %s is for more than reading, or for more than signed-in users', p.polname, c.oid::regclass)
from pg_policy p join pg_class c on c.oid = p.polrelid where c.relnamespace = 'public'::regnamespace
  and (p.polcmd <> 'r' or p.polroles <> array['authenticated'::regrole::oid])
union all
select format('view %s runs with the rights of its owner', c.oid::regclass) from pg_class c
where c.relnamespace = 'public'::regnamespace and c.relkind = 'v'
  and coalesce(c.reloptions::text, '') !~ 'security_invoker=(true|on)'
union all
select format('%s may %s %s', r.rolname, x.privilege, c.oid::regclass)
from pg_class c, pg_roles r, unnest('{insert,update,delete,truncate,references,trigger}'::text[]) x(privilege)
where c.relnamespace::regnamespace::text in ('public', 'access', 'ledger', 'ops', 'procrastinate')
  and c.relkind in ('r', 'p', 'v') and r.rolname in ('anon', 'authenticated')
  and has_table_privilege(r.oid, c.oid, x.privilege)
union all
select format('%s may select %s', r.rolname, c.oid::regclass) from pg_class c, pg_roles r
where c.relkind in ('r', 'p', 'v', 'm') and has_table_privilege(r.oid, c.oid, 'select')
  and (c.relnamespace::regnamespace::text in ('access', 'ledger', 'ops', 'procrastinate')
         and r.rolname in ('anon', 'authenticated')
       or c.relnamespace::regnamespace::text = 'public' and r.rolname = 'anon')
union all
select format('%s may use the sequence %s', r.rolname, c.oid::regclass) from pg_class c, pg_roles r
where c.relkind = 'S' and c.relnamespace::regnamespace::text in ('public', 'ledger', 'ops', 'procrastinate')
  and r.rolname in ('anon', 'authenticated') and has_sequence_privilege(r.oid, c.oid, 'usage, select, update')
union all
select format('%s may use the schema %s', r.rolname, n.nspname) from pg_namespace n, pg_roles r
where n.nspname in ('ledger', 'ops', 'procrastinate') and r.rolname in ('anon', 'authenticated')
  and has_schema_privilege(r.oid, n.oid, 'usage, create')
union all
select format('%s may execute %s', r.rolname, f.oid::regprocedure) from pg_proc f, pg_roles r
where r.rolname in ('anon', 'authenticated') and has_function_privilege(r.oid, f.oid, 'execute')
  and (f.pronamespace::regnamespace::text in ('ledger', 'ops', 'procrastinate')
       or f.pronamespace = 'access'::regnamespace and r.rolname = 'anon')
union all
select format('%s may execute %s, which may write', r.rolname, f.oid::regprocedure) from pg_proc f, pg_roles r
where f.pronamespace::regnamespace::text in ('public', 'access') and f.provolatile = 'v'
  and r.rolname in ('anon', 'authenticated') and has_function_privilege(r.oid, f.oid, 'execute')
  and not exists (select from pg_depend d where d.objid = f.oid and d.deptype = 'e')
union all
select format('%s runs as its owner without a search_path of its own', f.oid::regprocedure) from pg_proc f
where f.prosecdef and f.pronamespace::regnamespace::text in ('public', 'access', 'ledger', 'ops', 'procrastinate')
  and not coalesce(f.proconfig::text, '') ~ 'search_path='
union all
select format('the function %s is served to everybody', f.oid::regprocedure) from pg_proc f
where f.pronamespace = 'public'::regnamespace
  and not exists (select from pg_depend d where d.objid = f.oid and d.deptype = 'e')
"""


def test_the_catalog_holds_no_open_door(play: Play) -> None:
    assert catalog_problems(play) == []


@pytest.mark.parametrize(
    ("door", "problem"),
    [
        ("create table public.open (id int)", "open has no row-level security"),
        ("alter table jobs disable row level security", "jobs has no row-level security"),
        ("grant update on jobs to authenticated", "authenticated may update jobs"),
        ("grant select on jobs to public", "anon may select jobs"),
        ("grant select on ops.failures to authenticated", "authenticated may select ops.failures"),
        ("grant select on access.key_digests to authenticated", "authenticated may select access.key_digests"),
        ("grant usage on schema ledger to authenticated", "authenticated may use the schema ledger"),
        ("create function ledger.f() returns int language sql as 'select 1'", "anon may execute ledger.f()"),
        (
            "create function access.f() returns int language sql security definer as 'select 1'",
            "access.f() runs as its owner without a search_path of its own",
        ),
        (
            "create function access.f() returns int language sql as 'select 1'",
            "authenticated may execute access.f(), which may write",
        ),
        (
            'create policy "all" on jobs for all to authenticated using (true)',
            "policy all of jobs is for more than reading, or for more than signed-in users",
        ),
    ],
)
def test_the_look_into_the_catalog_finds_a_door_that_was_left_open(
    play: Play, door: LiteralString, problem: str
) -> None:
    play.connection.execute(door)
    assert problem in catalog_problems(play)


def test_default_privileges_of_a_hosted_project_open_no_door(empty_database_url: str, template_database: str) -> None:
    """A hosted project grants everything on new tables and functions of `public` to these roles."""
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        for kind in ("tables", "sequences", "functions"):
            for scope in ("in schema public", ""):
                connection.execute(f"alter default privileges {scope} grant all on {kind} to anon, authenticated")  # type: ignore[arg-type]
    migrate(empty_database_url)
    with psycopg.connect(empty_database_url, row_factory=psycopg.rows.dict_row) as connection:
        assert [row["problem"] for row in connection.execute(cast(LiteralString, CATALOG))] == []
