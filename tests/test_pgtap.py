"""The tests that `supabase test db` runs, run here where Postgres has pgTAP and pg_prove is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from tree import ROOT

from tasks.embedded import EmbeddedPostgres
from tasks.migrations import migrate

TESTS = sorted((ROOT / "supabase" / "tests" / "database").glob("*.sql"))


def _binaries() -> Path:
    """Programs of an installed Postgres that has pgTAP; the embedded one brings no extensions."""
    for extension in sorted(Path("/usr/share/postgresql").glob("*/extension/pgtap.control"), reverse=True):
        programs = Path("/usr/lib/postgresql") / extension.parent.parent.name / "bin"
        if (programs / "postgres").exists():
            return programs
    pytest.skip("needs an installed Postgres with pgTAP")


def test_there_are_pgtap_tests() -> None:
    assert TESTS


def test_the_pgtap_tests_pass(tmp_path: Path) -> None:
    prove = shutil.which("pg_prove")
    if prove is None:
        pytest.skip("needs pg_prove")
    with EmbeddedPostgres(tmp_path / "postgres", durable=False, binaries=_binaries()) as postgres:
        migrate(postgres.url)
        where = urlsplit(postgres.url)
        login = {"PGHOST": where.hostname, "PGPORT": str(where.port), "PGUSER": where.username}
        login |= {"PGPASSWORD": unquote(where.password or ""), "PGDATABASE": "postgres", "PATH": "/usr/bin:/bin"}
        run = subprocess.run([prove, "--verbose", *map(str, TESTS)], env=login, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Result: PASS" in run.stdout
