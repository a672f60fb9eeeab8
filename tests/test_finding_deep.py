"""Finding reads few rows through an index, however many there are; and letters find, where there is pg_trgm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest
from fixtures_database import address_of
from ledger_play import Play
from psycopg.rows import dict_row
from test_migrations import DEBIAN_15
from test_plans import NARROWED, Reading, rows_read, sign_in

from tasks.db import statement
from tasks.embedded import EmbeddedPostgres
from tasks.migrations import migrate

MANY = 50_000

# Triggers would file each document by itself; here all are filed at once, in the same words.
FILL: LiteralString = """
set session_replication_role = replica;
create temp table bulk as
select n, t.id as tenant, timestamptz '2026-01-01' + n * interval '1 minute' as born, n %% 1000 as mark
from generate_series(1, %(most)s) n
join (values (%(one)s::uuid, 0), (%(other)s::uuid, 1)) t(id, nr) on t.nr = (n %% 5 = 0)::int;
insert into documents (id, tenant_id, uploaded_by, title, filename, kind, media_type, bytes, sha256, status, keywords,
                       categories, created_at, finalised_at)
select id, tenant, %(user)s, 'Harbour story ' || mark, 'story.txt', case when mark = 7 then 'odt' else 'txt' end,
       'text/plain', 1, repeat('a', 64), case when mark = 8 then 'finalised' else 'uploaded' end,
       array['keyword' || mark],
       jsonb_build_object('form', 'form' || mark), born, case when mark = 8 then born end
from (select *, overlay(ledger.first_id(born)::text placing lpad(to_hex(n), 12, '0') from 25 for 12)::uuid as id
      from bulk) b;
insert into document_words (document_id, tenant_id, labels, words)
select d.id, d.tenant_id, w.labels, w.labels || array_to_tsvector(array['t:' || d.tenant_id, 'k:' || d.keywords[1],
       'c:form=' || (d.categories ->> 'form')])
from documents d, lateral (select ledger.label_words(d.title, d.filename, '', d.keywords, d.categories) as labels) w;
set session_replication_role = origin;
"""


def fill(url: str, most: int) -> None:
    """Documents of two tenants, the same words in both; the first has four of five."""
    with psycopg.connect(url, row_factory=dict_row, autocommit=True) as connection:
        play = Play(connection)
        given = {"most": most, "one": play.tenant, "other": play.add_tenant(), "user": play.user}
        cursor = psycopg.ClientCursor(connection)
        cursor.execute(FILL, given)
        connection.execute("vacuum analyze documents")
        connection.execute("vacuum analyze document_words")


@pytest.fixture(scope="module")
def deep(module_database_url: str) -> str:
    fill(module_database_url, MANY)
    return module_database_url


@pytest.fixture(scope="module")
def lettered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with pg_trgm."""
    extension = Path("/usr/share/postgresql/15/extension/pg_trgm.control")
    if not (DEBIAN_15 / "postgres").exists() or not extension.exists():
        pytest.skip("no Postgres 15 with pg_trgm here")
    with EmbeddedPostgres(tmp_path_factory.mktemp("lettered"), durable=False, binaries=DEBIAN_15) as postgres:
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute("create database lettered template template0")
        url = address_of("lettered", postgres.url)
        migrate(url)
        fill(url, MANY // 5)
        yield url


def asked(**narrowed: Any) -> dict[str, Any]:
    return dict.fromkeys(NARROWED) | {"by_relevance": "q" in narrowed, "last_relevance": 0, "most": 20} | narrowed


def find(play: Play, tenant: UUID, **narrowed: Any) -> list[dict[str, Any]]:
    return play.connection.execute(statement("api_documents"), asked(**narrowed) | {"tenant_id": tenant}).fetchall()


def largest(play: Play) -> UUID:
    return UUID(str(play.one("select tenant_id from documents group by 1 order by count(*) desc limit 1")))


def assert_by_index(reading: Reading, fetched: int) -> None:
    tables = {"documents", "document_words"}
    assert {table: rows for table, rows in reading.scanned.items() if rows and table in tables} == {}
    assert max(rows for table, rows in reading.fetched.items() if table in tables) <= fetched, reading


QUESTIONS: list[tuple[dict[str, Any], int]] = [
    ({}, 60),
    ({"last_id": UUID("01900000-0000-7000-8000-000000000000")}, 60),
    ({"status": "finalised"}, 60),
    ({"kind": "odt"}, 60),
    ({"uploaded_by": UUID(int=9)}, 60),
    ({"created_after": "2026-06-20T00:00:00Z"}, 60),
    ({"created_before": "2026-01-02T00:00:00Z"}, 100),
    ({"created_after": "2026-03-01T00:00:00Z", "created_before": "2026-03-01T01:00:00Z"}, 100),
    ({"keyword": "Keyword9"}, 1_000),
    ({"category_name": "form", "category_value": "form9"}, 1_000),
    ({"keyword": "keyword9", "category_name": "form", "category_value": "form8"}, 1_000),
    ({"q": "harbour 9"}, 1_000),
    ({"q": "harbour 9", "by_relevance": False}, 1_000),
    ({"q": "harbour form9", "status": "finalised"}, 1_000),
    ({"q": "nowhere"}, 60),
]


@pytest.mark.parametrize(("question", "fetched"), QUESTIONS, ids=lambda one: str(one)[:60])
def test_every_question_is_answered_from_an_index(deep: str, question: dict[str, Any], fetched: int) -> None:
    with psycopg.connect(deep, row_factory=dict_row) as connection:
        play = Play(connection)
        tenant = largest(play)
        sign_in(play, tenant)
        assert_by_index(rows_read(play, lambda: find(play, tenant, **question), times=7), fetched)
        connection.rollback()


def test_a_word_that_every_document_has_is_found_in_the_tenants_own_alone(deep: str) -> None:
    with psycopg.connect(deep, row_factory=dict_row) as connection:
        play = Play(connection)
        tenant = play.one("select tenant_id from documents group by 1 order by count(*) limit 1")
        sign_in(play, tenant)
        reading = rows_read(play, lambda: find(play, tenant, q="harbour"), times=1)
        assert reading.fetched["document_words"] <= 2 * MANY // 5 + 100
        connection.rollback()


# Letters -------------------------------------------------------------------------------------------


@pytest.fixture
def reader(lettered: str) -> Iterator[Play]:
    with psycopg.connect(lettered, row_factory=dict_row) as connection:
        yield Play(connection)
        connection.rollback()


def add(play: Play, title: str, filename: str = "a.txt") -> UUID:
    id = play.add_document(title)
    play.all("update documents set title = %s, filename = %s where id = %s returning id", title, filename, id)
    return id


def test_a_slip_of_the_pen_finds_titles_and_names(reader: Play) -> None:
    lamp = add(reader, "The Lamplighter's Ledger")
    tide = add(reader, "Untitled", "tide_tables_final.docx")
    sign_in(reader, reader.tenant)
    assert [row["id"] for row in find(reader, reader.tenant, q="lamplihgter")] == [lamp]
    assert [row["id"] for row in find(reader, reader.tenant, q="tide tabels")] == [tide]
    assert find(reader, reader.tenant, q="lamplihgter -ledger") == []
    assert find(reader, reader.tenant, q="lamplihgter", keyword="none") == []
    assert find(reader, reader.tenant, q="zzzzzz") == []


def test_the_exact_title_comes_before_its_like(reader: Play) -> None:
    like, exact = add(reader, "Lamplighting for all"), add(reader, "Lamplighter")
    sign_in(reader, reader.tenant)
    assert [row["id"] for row in find(reader, reader.tenant, q="lamplighter")] == [exact, like]


def test_likeness_is_looked_up_in_an_index(reader: Play) -> None:
    tenant = largest(reader)
    add(reader, "Lamplighter")
    sign_in(reader, tenant)
    assert_by_index(rows_read(reader, lambda: find(reader, tenant, q="lamplihgter"), times=3), 1_000)


def test_without_letters_words_are_found_all_the_same(play: Play) -> None:
    lamp = add(play, "The Lamplighter's Ledger")
    claims = json.dumps({"sub": str(play.user)})
    play.all("select set_config('role', 'authenticated', true), set_config('request.jwt.claims', %s, true)", claims)
    assert [row["id"] for row in find(play, play.tenant, q="lamplighter")] == [lamp]
    assert find(play, play.tenant, q="lamplihgter") == []
