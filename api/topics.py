"""The topics under which a job is followed besides its own: its tenant and its document. Remembered, because a
notification names the job and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

import psycopg

from tasks.db import statement

Connection = psycopg.Connection[tuple[UUID, ...]]

# Some 4 MB.
_MOST = 10_000


class Topics:
    """Asks once about each job, and about all that are new in a burst together."""

    def __init__(self) -> None:
        self._known: dict[UUID, tuple[UUID, ...]] = {}

    def find(self, jobs: Iterable[UUID], connection: Connection) -> set[UUID]:
        """The tenants and documents of these jobs."""
        jobs = set(jobs)
        unknown = list(jobs - self._known.keys())
        if len(self._known) + len(unknown) > _MOST:
            self._known.clear()
            unknown = list(jobs)
        if unknown:
            for job_id, *topics in connection.execute(statement("api_topics"), {"jobs": unknown}):
                self._known[job_id] = tuple(topic for topic in topics if topic is not None)
        return {topic for job_id in jobs for topic in self._known.get(job_id, ())}
