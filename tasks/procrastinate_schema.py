"""Procrastinate's schema as a migration of ours: everything in the schema `procrastinate`, closed to API roles.

Its own schema.sql names nothing with a schema, so tables land wherever search_path points and its functions find them
only where search_path points there again. Here every name it creates is qualified instead: the file runs the same
through the Supabase CLI (which splits it into statements) and through ours, and its triggers work for any caller.

    python -m tasks.procrastinate_schema        writes the migration for the installed version
"""

from __future__ import annotations

import re
from importlib import metadata, resources

from tasks.migrations import FOLDER

SCHEMA = "procrastinate"
MIGRATION = FOLDER / "20261101000000_procrastinate.sql"

_CREATED = re.compile(r"^CREATE (?:TYPE|TABLE|FUNCTION) (\w+)", re.M)
_EXTENSION = re.compile(r"^DO \$\$\nBEGIN\n    CREATE EXTENSION IF NOT EXISTS plpgsql.*?^\$\$;\n+", re.M | re.DOTALL)

_HEADER = """\
-- Made by `python -m tasks.procrastinate_schema` from Procrastinate {version}. Do not edit: make it again.
--
-- Changed from its schema.sql: every name is qualified with the schema, and plpgsql, which every Postgres has,
-- is not created. Its licence:
--
{licence}

create schema {schema};
-- Without usage of the schema nothing in it can be named, whatever rights its contents carry.
revoke all on schema {schema} from public, anon, authenticated;
"""

_FOOTER = """
-- Postgres lets everybody execute new functions: take that back too.
revoke all on all tables in schema {schema} from public, anon, authenticated;
revoke all on all sequences in schema {schema} from public, anon, authenticated;
revoke all on all functions in schema {schema} from public, anon, authenticated;
"""


def procrastinate_sql() -> str:
    """The text of the migration for the installed Procrastinate."""
    header = _HEADER.format(version=metadata.version("procrastinate"), licence=_licence(), schema=SCHEMA)
    body = resources.files("procrastinate.sql").joinpath("schema.sql").read_text(encoding="utf-8")
    return f"{header}\n{qualify(_EXTENSION.sub('', body)).strip()}\n{_FOOTER.format(schema=SCHEMA)}"


def qualify(text: str) -> str:
    """Put the schema before every mention of a type, table or function that `text` creates.

    Indexes, triggers and constraints stay bare: they live where their table lives. Strings and comments hold no names
    (channels of pg_notify look like them).
    """
    names = "|".join(sorted(set(_CREATED.findall(text)), key=len, reverse=True))
    return re.sub(rf"--.*|'[^']*'|(?<![\w.])(?:{names})(?!\w)", _qualified, text)


def _qualified(match: re.Match[str]) -> str:
    found = match[0]
    return found if found.startswith(("'", "--")) else f"{SCHEMA}.{found}"


def _licence() -> str:
    licence = next(file for file in metadata.files("procrastinate") or [] if file.name.startswith("LICENSE"))
    return "\n".join(f"-- {line}".rstrip() for line in licence.read_text(encoding="utf-8").strip().splitlines())


if __name__ == "__main__":
    MIGRATION.write_text(procrastinate_sql(), encoding="utf-8")
