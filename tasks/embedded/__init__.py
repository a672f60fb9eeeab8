"""A real Postgres as a child process, for machines that have none. DATABASE_URL makes all of this unnecessary."""

import sys

from tasks.embedded.problems import ELSEWHERE, EmbeddedPostgresError

if sys.platform == "win32":
    raise EmbeddedPostgresError("postgres_missing", f"The embedded Postgres runs on Linux and macOS only. {ELSEWHERE}")

from tasks.embedded.server import EmbeddedPostgres

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError"]
