"""SQL lies in files: named once, explained, used, and nowhere in Python."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, LiteralString, cast

import psycopg
import pytest
from tree import read, strings, under

from tasks.db import statement
from tasks.pipeline import QUEUES
from tasks.settings import Settings

SQL = re.compile(
    r"\bselect\b[^;]{1,400}\bfrom\s+[a-z_]|\binsert\s+into\s+[a-z_]|\bupdate\s+[a-z_.]+\s+set\s|\bdelete\s+from\s+[a-z_]",
    re.IGNORECASE | re.DOTALL,
)
NAME = re.compile(r"^-- name: *(\S+) *$", re.MULTILINE)
QUERIES = under("sql/queries", suffix=".sql")
INSPECT = under("sql/inspect", suffix=".sql")


def test_statements_are_named_once() -> None:
    names = Counter(name for path in QUERIES for name in NAME.findall(read(path)))
    assert names
    assert [name for name, times in names.items() if times > 1] == []


@pytest.mark.parametrize("path", QUERIES)
def test_every_statement_says_in_one_line_what_it_is_for(path: str) -> None:
    before, *blocks = re.split(r"^(?=-- name:)", read(path), flags=re.MULTILINE)
    assert [line for line in before.splitlines() if line.strip() and not line.startswith("--")] == []
    assert [block.splitlines()[0] for block in blocks if not re.match(r"-- name: *\w+ *\n-- \S.+\n\S", block)] == []


def test_every_statement_is_used_and_every_used_one_exists() -> None:
    defined = {name for path in QUERIES for name in NAME.findall(read(path))}
    code = [(path, read(path)) for path in under("api", "tasks", suffix=".py")]
    asked = {name for _, text in code for name in re.findall(r"\bstatement\(\s*\"(\w+)\"", text)}
    mentioned = {text for path, _ in code for _, text in strings(path)}
    assert asked - defined == set()
    assert defined - mentioned == set()


def test_statements_are_loaded_by_name() -> None:
    assert "ledger.submit(" in statement("ledger_submit")
    with pytest.raises(KeyError):
        statement("there_is_no_such_statement")


def test_python_holds_no_sql_text() -> None:
    found = [
        f"{path}:{line} {text[:60]!r}"
        for path in under("api", "tasks", suffix=".py")
        for line, text in strings(path)
        if SQL.search(text)
    ]
    assert found == []


@pytest.mark.parametrize(
    "text", ["select 1 from jobs", "INSERT INTO jobs", "update public.jobs set x", "delete from jobs"]
)
def test_the_look_for_sql_text_would_find_it(text: str) -> None:
    assert SQL.search(text)


@pytest.mark.parametrize("path", INSPECT)
def test_every_question_for_operators_can_be_asked(path: str, connection: psycopg.Connection[dict[str, Any]]) -> None:
    text = read(path)
    assert text.startswith("-- ")
    connection.execute("set transaction read only")
    assert connection.execute(cast(LiteralString, text)).fetchall() is not None


def test_the_page_for_operators_lists_every_question() -> None:
    listed = re.findall(r"^\| `(\w+\.sql)` \|", read("docs/operations.md"), re.MULTILINE)
    assert sorted(listed) == [path.rsplit("/", 1)[1] for path in INSPECT]


def test_code_settings_and_tables_know_the_same_queues() -> None:
    tables = "".join(read(path) for path in under("supabase/migrations", suffix=".sql"))
    checked = re.search(r"create table public\.pipeline_steps.*?queue in \(([^)]+)\)", tables, re.DOTALL)
    assert checked is not None
    assert tuple(re.findall(r"'(\w+)'", checked[1])) == QUEUES
    assert tuple(Settings.model_fields["worker_queues"].default.split(",")) == QUEUES
    asked = re.search(r"unnest\(array\[([^\]]+)\]", read("sql/inspect/queues.sql"))
    assert asked is not None
    assert tuple(re.findall(r"'(\w+)'", asked[1])) == QUEUES
