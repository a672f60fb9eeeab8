"""What belongs to one tenant, asked for in SQL by another's member: of every table, view and function there is.

All of it is found in the catalog, so that a table or a function that is added is asked too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, LiteralString, cast
from uuid import UUID, uuid4

import psycopg
import pytest
from access_play import PUBLISHED, acting, fill
from ledger_play import Play, Row
from psycopg import sql

OURS = ["public", "access", "ledger", "ops", "procrastinate", "supabase_migrations"]
# What tells rows of one tenant from another's.
_MARK = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b[0-9a-f]{64}\b")

RELATIONS: LiteralString = """
select c.oid::regclass::text as name, c.relnamespace::regnamespace::text as schema,
  array(select a.attname::text from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        and has_column_privilege(%(role)s, c.oid, a.attnum, 'select') order by a.attnum) as columns
from pg_class c
where c.relkind in ('r', 'p', 'v', 'm', 'f') and c.relnamespace::regnamespace::text !~ '^pg_(toast|temp)'
  and has_schema_privilege(%(role)s, c.relnamespace, 'usage')
order by 1
"""

FUNCTIONS: LiteralString = """
select p.oid::regprocedure::text as name, p.oid::regproc::text as called,
  array(select format_type(t, null) from unnest(p.proargtypes) with ordinality a(t, nr) order by nr) as takes
from pg_proc p
where p.pronamespace::regnamespace::text not in ('pg_catalog', 'information_schema')
  and has_schema_privilege(%(role)s, p.pronamespace, 'usage') and has_function_privilege(%(role)s, p.oid, 'execute')
  and p.prorettype <> 'trigger'::regtype
  and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
order by 1
"""

# What is given for parameters that carry no id. An id may travel as text, too.
SAMPLES: dict[str, Any] = {
    "uuid": None, "text": None, "boolean": True, "integer": 50, "bigint": 50, "double precision": 1.0, "jsonb": None,
    "timestamp with time zone": None, "interval": None, "text[]": None, "uuid[]": None,
}  # fmt: skip
CARRIERS = ("uuid", "text")


@pytest.fixture
def other(play: Play) -> UUID:
    """The other tenant. Both have rows of every kind, and the statistics have samples of them."""
    other = play.add_tenant(uuid4())
    for tenant in (play.tenant, other):
        fill(play, tenant)
    play.connection.execute("analyze")
    return other


def ask(play: Play, query: LiteralString, role: str) -> list[Row]:
    return play.connection.execute(query, {"role": role}).fetchall()


def marks_of(play: Play, tenant: UUID, without: UUID) -> set[str]:
    """Every id and digest in a tenant's rows, in any schema of ours, that stands in no row of another tenant."""
    published = {mark for name in PUBLISHED for text in texts(play, name) for mark in _MARK.findall(text)}
    return marks_in_rows(play, tenant) - marks_in_rows(play, without) - published


def marks_in_rows(play: Play, tenant: UUID) -> set[str]:
    found = {str(tenant)}
    for relation in ask(play, RELATIONS, "postgres"):
        key = {"tenant_id", "job_id"} & set(relation["columns"]) if relation["schema"] in OURS else set()
        if key:
            whose = (
                "tenant_id = %s"
                if "tenant_id" in key
                else "job_id::text in (select id::text from jobs where tenant_id = %s)"
            )
            for text in texts(play, relation["name"], where=whose, whose=tenant):
                found |= set(_MARK.findall(text))
    return found


def texts(play: Play, relation: str, columns: str = "t", where: str = "true", whose: UUID | None = None) -> list[str]:
    """Rows as text."""
    query = f"select ({columns})::text as row from {relation} t where {where}"
    arguments = [whose] if whose else None
    return [row["row"] for row in play.connection.execute(cast(LiteralString, query), arguments)]


def readable(play: Play, role: str) -> Iterator[tuple[str, list[str]]]:
    """Every relation of which the role may read a column, with its rows as text."""
    for relation in ask(play, RELATIONS, role):
        columns = ", ".join(f't."{column}"' for column in relation["columns"])
        try:
            with play.connection.transaction():
                yield relation["name"], texts(play, relation["name"], f"row({columns})") if columns else []
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ObjectNotInPrerequisiteState):
            continue  # one of the system's own, over what is not to be read or not there


def shown(play: Play, role: str, marks: set[str]) -> dict[str, set[str]]:
    """Which of the marks are to be seen, by relation."""
    seen = {name: {mark for text in rows for mark in _MARK.findall(text)} for name, rows in readable(play, role)}
    return {name: found & marks for name, found in seen.items() if found & marks}


# Reading -------------------------------------------------------------------------------------------


def test_no_table_or_view_shows_a_member_anything_of_another_tenant(play: Play, other: UUID) -> None:
    marks, own = marks_of(play, other, play.tenant), marks_of(play, play.tenant, other)
    assert len(marks) > 20
    with acting(play, "authenticated", play.user):
        assert shown(play, "authenticated", marks) == {}
        assert {"tenants", "jobs", "job_events", "artifacts", "api_keys"} <= set(shown(play, "authenticated", own))


@pytest.mark.parametrize("role", ["authenticated", "anon"])
def test_no_table_or_view_shows_a_stranger_anything_of_any_tenant(play: Play, other: UUID, role: str) -> None:
    marks = marks_of(play, other, play.tenant) | marks_of(play, play.tenant, other)
    with acting(play, role, uuid4()):
        assert shown(play, role, marks) == {}


@pytest.mark.parametrize(
    ("role", "doors", "relations"),
    [
        (
            "authenticated",
            "create policy open on jobs for select to authenticated using (true);"
            "alter table artifacts disable row level security",
            {"jobs", "artifacts"},
        ),
        (
            "anon",
            "create view look with (security_barrier) as select * from reviews; grant select on look to anon;"
            "grant usage on schema ops to anon; grant select (job_id) on ops.failures to anon",
            {"look", "ops.failures"},
        ),
    ],
)
def test_the_look_at_everything_finds_doors_that_were_left_open(
    play: Play, other: UUID, role: str, doors: LiteralString, relations: set[str]
) -> None:
    marks = marks_of(play, other, play.tenant)
    play.connection.execute(doors)
    with acting(play, role, play.user):
        assert set(shown(play, role, marks)) >= relations


# Functions -----------------------------------------------------------------------------------------


def answer(play: Play, function: Row, arguments: list[Any]) -> str:
    """What a function says, an error included."""
    places = ", ".join(f"%s::{kind}" for kind in function["takes"])
    query = cast(LiteralString, f"select array_agg(f::text) as said from {function['called']}({places}) f")
    try:
        with play.connection.transaction():
            return str(play.connection.execute(query, arguments).fetchone())
    except psycopg.Error as error:
        return f"{error.sqlstate} {error.diag.message_primary} {error.diag.message_detail}"


def questions(play: Play, function: Row, mark: str) -> Iterator[list[Any]]:
    """Arguments that carry a mark: in each place alone, with our own tenant in the others, and in all places."""
    takes = function["takes"]
    unknown = sorted(set(takes) - set(SAMPLES))
    assert unknown == [], f"{function['name']} takes what SAMPLES has no value for: {unknown}"
    places = [place for place, kind in enumerate(takes) if kind in CARRIERS and (len(mark) == 36 or kind == "text")]
    for chosen in [*([place] for place in places), *([places] if len(places) > 1 else [])]:
        for ours in (play.tenant, None):
            rest = [ours if kind == "uuid" else SAMPLES[kind] for kind in takes]
            yield [mark if place in chosen else value for place, value in enumerate(rest)]


def neighbour(mark: str) -> str:
    """An id or digest that does not exist, and sorts where this one does."""
    return mark[:-1] + ("0" if mark[-1] == "f" else f"{int(mark[-1], 16) + 1:x}")


def told(play: Play, role: str, marks: set[str]) -> list[str]:
    """What functions say of marks that they do not say of what does not exist."""
    found = []
    for function in ask(play, FUNCTIONS, role):
        for mark in sorted(marks):
            for real, invented in zip(
                questions(play, function, mark), questions(play, function, neighbour(mark)), strict=True
            ):
                said = answer(play, function, real).replace(mark, "MARK")
                if said != answer(play, function, invented).replace(neighbour(mark), "MARK"):
                    found.append(f"{function['name']} of {real}: {said}")
    return found


@pytest.mark.parametrize("role", ["authenticated", "anon"])
def test_no_function_tells_anything_of_what_belongs_to_another_tenant(play: Play, other: UUID, role: str) -> None:
    marks = marks_of(play, other, play.tenant)
    assert len(ask(play, FUNCTIONS, role)) >= 4, "those of Supabase are among them"
    with acting(play, role, play.user):
        assert told(play, role, marks) == []


def test_the_look_at_functions_finds_one_that_tells(play: Play, other: UUID) -> None:
    marks = marks_of(play, other, play.tenant)
    play.connection.execute(
        "create function access.known(anything text) returns boolean stable security definer language sql as"
        " $$select exists (select from public.jobs j where j.id::text = anything)$$"
    )
    with acting(play, "authenticated", play.user):
        problems = told(play, "authenticated", marks)
    assert {problem.split("(")[0] for problem in problems} == {"access.known"}


def test_a_function_that_takes_something_new_is_not_passed_over(play: Play, other: UUID) -> None:
    play.connection.execute("create function access.near(place point) returns int stable language sql as 'select 1'")
    with acting(play, "authenticated", play.user), pytest.raises(AssertionError, match="SAMPLES has no value for"):
        told(play, "authenticated", {str(uuid4())})


# Writing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["authenticated", "anon"])
@pytest.mark.parametrize("verb", ["insert into {0} default values", "update {0} set {1} = {1}", "delete from {0}"])
def test_no_relation_of_ours_can_be_written_to(play: Play, other: UUID, role: str, verb: str) -> None:
    relations = [one for one in ask(play, RELATIONS, "postgres") if one["schema"] in OURS]
    assert {one["schema"] for one in relations} >= set(OURS) - {"ledger"}
    for relation in relations:
        statement = verb.format(relation["name"], sql.Identifier(relation["columns"][0]).as_string())
        with pytest.raises(psycopg.errors.InsufficientPrivilege), acting(play, role, play.user):
            play.connection.execute(cast(LiteralString, statement))
