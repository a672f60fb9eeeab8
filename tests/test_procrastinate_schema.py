"""Procrastinate in a schema of its own: the generated migration, and that nothing leaks out or in."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import procrastinate
import psycopg
import pytest

from tasks.migrations import migrate
from tasks.procrastinate_schema import MIGRATION, procrastinate_sql, qualify

# Every object a database can hold, as "kind schema.name", with what hangs on a table named by its table.
CATALOG = """
    select 'schema', nspname::text, '' from pg_namespace where nspname !~ '^pg_'
    union all select 'relation', relnamespace::regnamespace::text, relname from pg_class
        where relnamespace::regnamespace::text !~ '^(pg_|information_schema)'
    union all select 'function', pronamespace::regnamespace::text, proname from pg_proc
        where pronamespace::regnamespace::text !~ '^(pg_|information_schema)'
    union all select 'type', typnamespace::regnamespace::text, typname from pg_type
        where typnamespace::regnamespace::text !~ '^(pg_|information_schema)'
    union all select 'constraint', connamespace::regnamespace::text, conname from pg_constraint
        where connamespace::regnamespace::text !~ '^(pg_|information_schema)'
    union all select 'trigger', c.relnamespace::regnamespace::text, tgname
        from pg_trigger t join pg_class c on c.oid = t.tgrelid
    union all select 'extension', extnamespace::regnamespace::text, extname from pg_extension
    union all select 'role', '', rolname from pg_roles
    union all select 'default rights', coalesce(nullif(defaclnamespace, 0)::regnamespace::text, ''), defaclacl::text
        from pg_default_acl
    union all select 'rights on schema', nspname::text, nspacl::text from pg_namespace
"""


def objects(url: str) -> set[tuple[str, str, str]]:
    with psycopg.connect(url) as connection:
        return set(connection.execute(CATALOG).fetchall())


@pytest.fixture
def equipped_url(empty_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with roles and history, and no migration yet."""
    migrate(empty_database_url, tmp_path_factory.mktemp("none"))
    return empty_database_url


def test_the_migration_is_the_generated_one_for_the_installed_version() -> None:
    assert MIGRATION.read_text(encoding="utf-8") == procrastinate_sql()


def test_nothing_of_procrastinate_lies_outside_its_schema(equipped_url: str) -> None:
    before = objects(equipped_url)
    with psycopg.connect(equipped_url, autocommit=True) as connection:
        connection.execute(procrastinate_sql())  # type: ignore[call-overload]
    added = objects(equipped_url) - before
    assert {schema for _, schema, _ in added} == {"procrastinate"}
    assert ("function", "procrastinate", "procrastinate_fetch_job_v2") in added
    assert before - objects(equipped_url) == set()


def test_names_in_literals_and_comments_stay_as_they_are() -> None:
    text = "CREATE TABLE jobs (a text);\n-- jobs don't move\nselect 'jobs' from jobs, my_jobs, x.jobs, jobs_idx;"
    assert qualify(text) == (
        "CREATE TABLE procrastinate.jobs (a text);\n-- jobs don't move\n"
        "select 'jobs' from procrastinate.jobs, my_jobs, x.jobs, jobs_idx;"
    )


def test_no_function_names_anything_without_its_schema(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        names = {name for _, schema, name in objects(database_url) if schema == "procrastinate"}
        bodies = connection.execute(
            "select proname, prosrc from pg_proc where pronamespace = 'procrastinate'::regnamespace"
            " and proname like 'procrastinate%'"
        ).fetchall()
    assert len(bodies) > 15
    for function, body in bodies:
        bare = set(re.findall(r"(?<![\w.])procrastinate_\w+", re.sub(r"'[^']*'", "", body)))
        assert bare & names == set(), function


def test_a_job_lives_its_whole_life_whatever_the_callers_search_path(connection: psycopg.Connection[Any]) -> None:
    connection.execute("set local search_path = ''")

    def call(expression: str, *values: object) -> Any:
        row = connection.execute(f"select procrastinate.procrastinate_{expression} as answer", values).fetchone()  # type: ignore[call-overload]
        return row and row["answer"]

    job = "array[row('cpu', 'step', 0, null, null, '{}', null)]::procrastinate.procrastinate_job_to_defer_v1[]"
    kept, cancelled = call(f"defer_jobs_v1({job} || {job})")
    worker = connection.execute("select worker_id from procrastinate.procrastinate_register_worker_v1()").fetchone()
    connection.execute("select procrastinate.procrastinate_fetch_job_v2(array['cpu'], %(worker_id)s)", worker)
    call("retry_job_v2(%s, now(), 1, 'cpu', null)", kept)
    connection.execute("select procrastinate.procrastinate_fetch_job_v2(null, %(worker_id)s)", worker)
    call("finish_job_v1(%s, 'succeeded', false)", kept)
    call("cancel_job_v1(%s, true, false)", cancelled)
    periodic = call("defer_periodic_job_v2('cpu', null, null, 'chore', 0, 'id', 1, '{}')")
    call("cancel_job_v1(%s, false, true)", periodic)
    call("prune_stalled_workers_v1(0)")

    left = connection.execute(
        "select id, status::text, attempts from procrastinate.procrastinate_jobs where id = any(%s) order by id",
        [[kept, cancelled, periodic]],
    ).fetchall()
    assert [(job["id"], job["status"], job["attempts"]) for job in left] == [
        (kept, "succeeded", 2),
        (cancelled, "cancelled", 0),
    ]


def test_procrastinate_itself_works_with_the_schema(database_url: str) -> None:
    done: list[int] = []

    async def defer_and_work() -> None:
        path = {"options": "-c search_path=procrastinate"}
        connector = procrastinate.PsycopgConnector(conninfo=database_url, kwargs=path)
        app = procrastinate.App(connector=connector)

        @app.task(name="note")
        def note(number: int) -> None:
            done.append(number)

        async with app.open_async():
            await note.defer_async(number=7)
            await app.run_worker_async(wait=False, install_signal_handlers=False)

    asyncio.run(defer_and_work())
    assert done == [7]


@pytest.mark.parametrize("role", ["anon", "authenticated"])
def test_users_of_the_api_can_neither_read_nor_run_anything(connection: psycopg.Connection[Any], role: str) -> None:
    open_to_them = connection.execute(
        """
        select relname from pg_class where relnamespace = 'procrastinate'::regnamespace and case relkind
            when 'r' then has_table_privilege(%(role)s, oid, 'select, insert, update, delete, truncate')
            when 'S' then has_sequence_privilege(%(role)s, oid, 'usage, select, update') end
        union all select proname from pg_proc where pronamespace = 'procrastinate'::regnamespace
            and has_function_privilege(%(role)s, oid, 'execute')
        """,
        {"role": role},
    ).fetchall()
    assert open_to_them == []
    connection.execute(f"set local role {role}")  # type: ignore[call-overload]
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="schema procrastinate"):
        connection.execute("select procrastinate.procrastinate_register_worker_v1()")
