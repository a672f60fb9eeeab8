"""A real Postgres as a child process, for machines that have none. DATABASE_URL makes all of this unnecessary."""

from tasks.embedded.problems import EmbeddedPostgresError
from tasks.embedded.server import EmbeddedPostgres

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError"]
