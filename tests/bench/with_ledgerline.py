"""Ledgerline, with all it keeps: step runs, events, progress, results, fences, fairness."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import psycopg
from bench.contenders import Place
from psycopg.rows import dict_row

from api.together import open_submission_rounds
from tasks import ledger
from tasks.db import open_pool
from tasks.migrations import migrate
from tasks.pipelines import declared

TENANT = UUID(int=1)
USER = UUID(int=2)
CLAIMS = {"sub": str(USER), "role": "authenticated"}
PIPELINES = "bench.pipelines"


def prepare(url: str) -> None:
    migrate(url)
    with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:
        connection.execute("insert into tenants (id, name) values (%s, 'bench')", [TENANT])
        ledger.publish(connection, declared((PIPELINES,)).values(), "bench")


def environment(place: Place) -> dict[str, str]:
    storage: Path = place.servers.folder / f"storage-{place.name}"
    return {
        "DATABASE_URL": place.url,
        "LINK_SECRET": "x" * 32,
        "STORAGE_PATH": str(storage),
        "PIPELINES": PIPELINES,
        "WORKER_QUEUES": "cpu,llm",
        "WORKER_CONCURRENCY": "100",
        "LOG_LEVEL": "ERROR",
    }


def command() -> list[str]:
    return [sys.executable, "-m", "tasks.command", "worker"]


@contextmanager
def submitter(shape: str, width: int) -> Iterator[Callable[[str], None]]:
    """As the API does it: threads that submit at the same moment share a call. The user is no member, and so is shown
    nothing of the job: what the others submit is not looked at either. `front.py` measures an answer that shows it."""
    pool = open_pool(os.environ["BENCH_URL"], 8)
    documents = [UUID(text) for text in os.environ.get("BENCH_DOCUMENTS", "").split()]

    def submit(mark: str) -> None:
        document = documents.pop() if documents else None
        params = {"mark": mark, "width": width}
        submission = ledger.Submission(TENANT, USER, shape, document_id=document, params=params)
        rounds.ask(ledger.Order(submission, CLAIMS, most_ahead=100))

    pool.wait()
    rounds = open_submission_rounds(pool)
    yield submit
    pool.close()
