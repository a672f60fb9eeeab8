"""A worker's plans are made while its queue is empty, and used when it is deep, until the tables are analyzed again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from ledger_play import Play
from psycopg.rows import dict_row
from test_plans import FILL, Reading, assert_short, rows_read

TABLES = ("public.jobs", "public.job_steps", "public.step_results", "procrastinate.procrastinate_jobs")


@pytest.fixture(scope="module")
def filled(module_database_url: str) -> Iterator[Play]:
    """Somebody who has submitted, claimed and settled on an empty ledger, which then was filled by others."""
    with psycopg.connect(module_database_url, row_factory=dict_row, autocommit=True) as connection:
        play = Play(connection)
        for table in TABLES:
            connection.execute("alter table " + table + " set (autovacuum_enabled = false)")
        connection.execute("vacuum analyze")
        for _ in range(8):
            play.submit("line")
            play.finish_all()
        connection.execute("vacuum analyze")
        for _ in range(8):
            play.submit("line")
            play.finish_all()
            assert play.claim(["media"]) == []
        with psycopg.connect(module_database_url) as others:
            others.execute(FILL)
        yield play


def rows_read_in_one(play: Play, act: Callable[[], Any]) -> Reading:
    """What several calls read, in a transaction that is rolled back: its counters are its own."""
    with play.connection.transaction(force_rollback=True):
        return rows_read(play, act, times=4)


def test_submitting_is_short(filled: Play) -> None:
    assert_short(rows_read_in_one(filled, lambda: filled.submit("line")))


@pytest.mark.parametrize("queues", [["llm"], ["media"], ["cpu", "llm", "media", "maintenance"]])
def test_claiming_is_short(filled: Play, queues: list[str]) -> None:
    assert_short(rows_read_in_one(filled, lambda: filled.claim(queues, 8)))


@pytest.mark.parametrize("end", ["complete", "fail"])
def test_settling_is_short(filled: Play, end: str) -> None:
    works = filled.begin_all(8)
    assert_short(rows_read_in_one(filled, lambda: getattr(filled, end)(works.pop())))
