"""Migrations on real databases: what is applied, when it is refused, and that several at once do no harm."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fixtures_database import address_of

from tasks.embedded import EmbeddedPostgres
from tasks.errors import Refused, Unavailable
from tasks.migrations import FOLDER, list_migrations, migrate, pending

# Where Debian puts Postgres 15, the oldest version that plain Postgres users are likely to have.
DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")

OURS = [str(migration) for migration in list_migrations()]


def ask(url: str, question: str) -> list[Any]:
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute(question).fetchall()  # type: ignore[call-overload]
    return [row[0] if len(row) == 1 else row for row in rows]


def run(url: str, command: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(command)  # type: ignore[call-overload]


def history(url: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = ask(
        url, "select version, name from supabase_migrations.schema_migrations order by version"
    )
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two migrations of a made-up program."""
    write(tmp_path, "20260101000000_first", "create table public.first (id int);")
    write(
        tmp_path,
        "20260102000000_second",
        "create table public.second ();\nalter table public.first add note text;",
    )
    return tmp_path


def write(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.sql").write_text(text)


@pytest.fixture(scope="module")
def postgres_15(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not (DEBIAN_15 / "postgres").exists():
        pytest.skip(f"no Postgres 15 in {DEBIAN_15}")
    with EmbeddedPostgres(tmp_path_factory.mktemp("fifteen"), durable=False, binaries=DEBIAN_15) as postgres:
        yield postgres.url


@pytest.fixture(params=["16", "15"])
def plain_url(request: pytest.FixtureRequest) -> str:
    """An empty database of a plain Postgres, of each version at hand."""
    if request.param == "16":
        url: str = request.getfixturevalue("empty_database_url")
        return url
    server: str = request.getfixturevalue("postgres_15")
    run(server, "drop database if exists plain with (force)")
    run(server, "create database plain template template0")
    return address_of("plain", server)


# What is applied -----------------------------------------------------------------------------------


def test_all_migrations_are_applied_in_order_and_only_once(plain_url: str) -> None:
    assert pending(plain_url) == OURS
    assert migrate(plain_url) == OURS
    assert [f"{version}_{name}" for version, name in history(plain_url)] == OURS
    assert migrate(plain_url) == pending(plain_url) == []


def test_eight_at_once_apply_each_migration_once(plain_url: str) -> None:
    with ThreadPoolExecutor(8) as crowd:
        applied = list(crowd.map(migrate, [plain_url] * 8))
    assert sorted(name for names in applied for name in names) == OURS
    assert migrate(plain_url) == []


def test_eight_databases_of_one_server_are_migrated_at_once(postgres_url: str, folder: Path) -> None:
    # Roles belong to the whole server, and no lock in one database keeps another database from making them.
    names = [f"crowd_{number}" for number in range(8)]
    for name in names:
        run(postgres_url, f"create database {name} template template0")
    urls = [address_of(name, postgres_url) for name in names]
    try:
        with ThreadPoolExecutor(8) as crowd:
            applied = list(crowd.map(migrate, urls, [folder] * 8))
    finally:
        for name in names:
            run(postgres_url, f"drop database {name} with (force)")
    assert applied == [["20260101000000_first", "20260102000000_second"]] * 8


def test_the_history_keeps_the_text_that_ran(empty_database_url: str, folder: Path) -> None:
    migrate(empty_database_url, folder)
    kept = ask(empty_database_url, "select array_to_string(statements, ';') from supabase_migrations.schema_migrations")
    assert kept == [path.read_text() for path in sorted(folder.iterdir())]


def test_a_history_that_the_supabase_cli_began_is_continued(empty_database_url: str, folder: Path) -> None:
    run(empty_database_url, "create table public.first (id int)")
    run(empty_database_url, "create schema supabase_migrations")
    run(empty_database_url, "create table supabase_migrations.schema_migrations (version text not null primary key)")
    run(empty_database_url, "insert into supabase_migrations.schema_migrations values ('20260101000000')")
    assert pending(empty_database_url, folder) == ["20260102000000_second"]
    assert migrate(empty_database_url, folder) == ["20260102000000_second"]


def test_a_migration_that_arrives_late_is_still_applied(empty_database_url: str, folder: Path) -> None:
    migrate(empty_database_url, folder)
    write(folder, "20260101120000_between", "create table public.between_the_two ();")
    assert migrate(empty_database_url, folder) == ["20260101120000_between"]


# When it is refused --------------------------------------------------------------------------------


def refusal(attempt: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(Refused) as refused:
        attempt()
    return refused.value.code, refused.value.message


def test_a_failing_migration_is_undone_and_the_earlier_ones_stay(empty_database_url: str, folder: Path) -> None:
    write(folder, "20260103000000_third", "create table public.third ();\n\nselect missing from public.first;")
    code, message = refusal(lambda: migrate(empty_database_url, folder))
    assert code == "migration_failed"
    assert message == '20260103000000_third.sql failed at line 3: column "missing" does not exist'
    assert ask(empty_database_url, "select to_regclass('public.third'), to_regclass('public.second')::text") == [
        (None, "second")
    ]
    assert pending(empty_database_url, folder) == ["20260103000000_third"]


def test_a_database_ahead_of_the_program_is_refused(empty_database_url: str, folder: Path) -> None:
    migrate(empty_database_url, folder)
    (folder / "20260102000000_second.sql").unlink()
    code, message = refusal(lambda: migrate(empty_database_url, folder))
    assert code == "migration_unknown"
    assert "has migration 20260102000000_second, which this program does not know" in message
    assert pending(empty_database_url, folder) == []


def test_a_migration_known_by_another_name_is_refused(empty_database_url: str, folder: Path) -> None:
    migrate(empty_database_url, folder)
    (folder / "20260102000000_second.sql").rename(folder / "20260102000000_other.sql")
    write(folder, "20260104000000_fourth", "create table public.fourth ();")
    code, message = refusal(lambda: migrate(empty_database_url, folder))
    assert code == "migration_renamed"
    assert "knows migration 20260102000000 as second; here it is called other" in message
    assert ask(empty_database_url, "select to_regclass('public.fourth')") == [None]


def test_a_database_that_does_not_answer_is_unavailable() -> None:
    for attempt in (migrate, pending):
        with pytest.raises(Unavailable) as away:
            attempt("postgresql://nobody@127.0.0.1:1/none")
        assert away.value.code == "database_unavailable"


@pytest.mark.parametrize("name", ["2026_short", "20260101000000-dash", "20260101000000_first_again"])
def test_a_folder_with_a_wrong_file_is_refused_before_anything_runs(folder: Path, name: str) -> None:
    write(folder, name, "select 1;")
    with pytest.raises(ValueError, match=name):
        list_migrations(folder)


def test_a_migration_may_take_longer_than_requests_may(empty_database_url: str, folder: Path) -> None:
    write(folder, "20260103000000_slow", "select pg_sleep(0.2);")
    [name] = ask(empty_database_url, "select current_database()")
    run(empty_database_url, f"alter database {name} set statement_timeout = 100")
    assert "20260103000000_slow" in migrate(empty_database_url, folder)


# What a plain Postgres is given ----------------------------------------------------------------------


def test_a_plain_postgres_gets_roles_that_cannot_log_in(plain_url: str) -> None:
    migrate(plain_url)
    expected = ["anon", "authenticated", "authenticator", "service_role"]
    with psycopg.connect(plain_url) as connection:
        question = "select rolname, rolcanlogin, rolsuper from pg_roles where rolname = any(%s) order by 1"
        roles = connection.execute(question, [expected]).fetchall()
    assert roles == [(name, False, False) for name in expected]


def test_auth_functions_read_the_claims_of_the_transaction(plain_url: str) -> None:
    migrate(plain_url)
    user = "0198f2a0-0000-7000-8000-000000000001"
    claims = f'{{"sub": "{user}", "role": "authenticated", "email": "ada@example.org"}}'
    with psycopg.connect(plain_url) as connection:
        connection.execute("select set_config('request.jwt.claims', %s, true)", [claims])
        connection.execute("set local role authenticated")
        found = connection.execute(
            "select auth.uid()::text, auth.role(), auth.email(), auth.jwt() ->> 'sub'"
        ).fetchone()
        assert found == (user, "authenticated", "ada@example.org", user)
        connection.rollback()
        found = connection.execute("select auth.uid(), auth.role(), auth.email(), auth.jwt()").fetchone()
        assert found == (None, None, None, None)


def test_users_cannot_read_the_table_of_users(plain_url: str) -> None:
    migrate(plain_url)
    for role in ("anon", "authenticated"):
        with psycopg.connect(plain_url) as connection:
            connection.execute(f"set local role {role}")  # type: ignore[call-overload]
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("select * from auth.users")


def test_a_database_that_has_auth_is_left_as_it_is(empty_database_url: str, folder: Path) -> None:
    run(empty_database_url, "create schema auth")
    run(empty_database_url, "create function auth.uid() returns uuid language sql return null::uuid")
    migrate(empty_database_url, folder)
    assert ask(empty_database_url, "select to_regclass('auth.users'), to_regprocedure('auth.jwt()')") == [(None, None)]


def test_a_later_bootstrap_reaches_what_an_earlier_one_equipped(empty_database_url: str, folder: Path) -> None:
    migrate(empty_database_url, folder)
    run(empty_database_url, "drop function auth.email()")
    migrate(empty_database_url, folder)
    assert ask(empty_database_url, "select to_regprocedure('auth.email()') is not null") == [True]


# Without a superuser ---------------------------------------------------------------------------------


@pytest.fixture(params=[None, DEBIAN_15], ids=["16", "15"])
def fresh_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A server of this test alone, where no role was made yet."""
    if request.param and not (request.param / "postgres").exists():
        pytest.skip(f"no Postgres 15 in {request.param}")
    with EmbeddedPostgres(tmp_path / "server", durable=False, binaries=request.param) as postgres:
        yield postgres.url


def let_in(server: str, rights: str) -> str:
    """The address of a new database for its owner, who has these rights and is no superuser."""
    run(server, f"create role modest login {rights} password 'modest'")
    run(server, "create database theirs owner modest")
    return address_of("theirs", f"postgresql://modest:modest@{server.split('@')[1]}")


def test_an_owner_who_may_create_roles_needs_no_superuser(fresh_server: str) -> None:
    url = let_in(fresh_server, "createrole")
    assert migrate(url) == OURS
    assert migrate(url) == []
    with psycopg.connect(url) as connection:
        connection.execute("set local role authenticated")
        assert connection.execute("select auth.uid()").fetchone() == (None,)


def test_an_owner_who_may_not_create_roles_is_told_what_to_ask_for(fresh_server: str) -> None:
    url = let_in(fresh_server, "nocreaterole")
    code, message = refusal(lambda: migrate(url))
    assert code == "migration_failed"
    assert "anon is missing and modest may not create it. Have a superuser run sql/bootstrap.sql once." in message
    assert pending(url) == OURS


def test_an_owner_who_may_not_act_as_the_roles_is_told_what_to_ask_for(fresh_server: str) -> None:
    url = let_in(fresh_server, "nocreaterole")
    migrate(fresh_server)
    _, message = refusal(lambda: migrate(url))
    assert "modest may not act as the role anon. Have a superuser run: grant anon to modest" in message


def test_the_service_role_is_above_row_level_security(plain_url: str) -> None:
    migrate(plain_url)
    assert ask(plain_url, "select rolbypassrls from pg_roles where rolname = 'service_role'") == [True]


# For the Supabase CLI --------------------------------------------------------------------------------


def test_the_seed_runs_twice_on_a_migrated_database(database_url: str) -> None:
    for _ in range(2):
        run(database_url, (FOLDER.parent / "seed.sql").read_text())
    assert ask(database_url, "select name from public.tenants") == ["Try-out"]


def test_only_the_public_schema_is_served_by_supabase() -> None:
    config = tomllib.loads((FOLDER.parent / "config.toml").read_text())
    assert config["project_id"] == "ledgerline"
    assert config["api"]["schemas"] == ["public"]


def test_no_migration_ends_its_own_transaction() -> None:
    # Each runs in one transaction with its line in the history, here and in the CLI.
    for migration in list_migrations():
        text = migration.path.read_text()
        assert not re.search(r"^\s*(begin|commit|rollback|start transaction)\s*;", text, re.I | re.M), (
            migration.path.name
        )
