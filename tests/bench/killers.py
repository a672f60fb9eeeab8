"""Documents for confined steps: an ordinary PDF, and a tiny one whose forms draw themselves until a parser dies."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
from bench.contenders import Place
from bench.pipelines import CRASHER
from bench.with_ledgerline import TENANT, USER
from made_documents import make_endless_pdf, make_pdf, set_lines
from psycopg.rows import dict_row

from tasks import ledger
from tasks.settings import load
from tasks.storage import LocalStorage

PAGES = 10
LINE = "She counted the lamps along the quay, and there was one more than yesterday."


def add_documents(place: Place) -> tuple[UUID, UUID, UUID]:
    """Put three into a ledger and its storage; their ids: an ordinary one, one whose forms draw without end, and one at
    which the step's process ends by a signal."""
    folder = place.servers.folder
    ordinary = [set_lines([LINE] * 30)] * PAGES
    return (
        _add(place, make_pdf(folder / "ordinary.pdf", ordinary)),
        _add(place, make_endless_pdf(folder / "endless.pdf")),
        _add(place, make_pdf(folder / CRASHER, ordinary)),
    )


@contextmanager
def shuffled(ordinary: UUID, killer: UUID, jobs: int, share: float) -> Iterator[None]:
    """Within this, jobs are submitted for these documents; a share of them, evenly mixed in, for the killer."""
    documents = [killer] * round(jobs * share) + [ordinary] * (jobs - round(jobs * share))
    random.Random(1).shuffle(documents)
    os.environ["BENCH_DOCUMENTS"] = " ".join(map(str, documents))
    try:
        yield
    finally:
        del os.environ["BENCH_DOCUMENTS"]


def _add(place: Place, path: Path) -> UUID:
    data = path.read_bytes()
    document = {
        "id": uuid4(), "tenant_id": TENANT, "user_id": USER, "title": path.stem, "filename": path.name, "kind": "pdf",
        "media_type": "application/pdf", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(),
    }  # fmt: skip
    LocalStorage(load()).put(TENANT, document["sha256"], path)
    with psycopg.connect(place.url, autocommit=True, row_factory=dict_row) as connection:
        ledger.add_document(connection, document)
    return document["id"]
