"""A worker's plans are made while its queue is empty, and used when it is deep, until the tables are analyzed again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from ledger_play import Play
from psycopg.rows import dict_row
from test_plans import Reading, assert_short, fill, rows_read

TABLES = ("public.jobs", "public.job_steps", "public.step_results", "procrastinate.procrastinate_jobs")


LOOK = "select access.look_at_job(%s, %s, 100) as look"


@pytest.fixture(scope="module")
def filled(module_database_url: str) -> Iterator[Play]:
    """Somebody who has submitted, looked, claimed and settled on an empty ledger, which then was filled by others."""
    with psycopg.connect(module_database_url, row_factory=dict_row, autocommit=True) as connection:
        play = Play(connection)
        connection.execute("select set_config('request.jwt.claims', %s, false)", [json.dumps({"sub": str(play.user)})])
        for table in TABLES:
            connection.execute("alter table " + table + " set (autovacuum_enabled = false)")
        # Two rows in a table: any plan is as good as any other.
        play.submit("line")
        play.submit("line")
        connection.execute("vacuum analyze")
        for _ in range(8):
            play.all(LOOK, play.submit("line"), play.tenant)
        play.finish_all()
        play.submit("line")
        assert play.run_on(play.begin())[0]["step"] == "second"
        assert play.claim(["media"]) == []
        with psycopg.connect(module_database_url) as others:
            fill(others)
        yield play


def rows_read_in_one(play: Play, act: Callable[[], Any]) -> Reading:
    """What several calls read, in a transaction that is rolled back: its counters are its own."""
    with play.connection.transaction(force_rollback=True):
        return rows_read(play, act, times=4)


def test_submitting_is_short(filled: Play) -> None:
    assert_short(rows_read_in_one(filled, lambda: filled.submit("line")))


def test_submitting_behind_ones_own_is_short(filled: Play) -> None:
    def submit_behind() -> None:
        filled.submit("line")
        filled.submit("line")

    assert_short(rows_read_in_one(filled, submit_behind))


def test_looking_at_what_waits_is_short(filled: Play) -> None:
    def submit_and_look() -> None:
        (row,) = filled.all(LOOK, filled.submit("line"), filled.tenant)
        assert row["look"]["waiting_for"]["reason"] == "no_worker"

    assert_short(rows_read_in_one(filled, submit_and_look))


def test_standing_at_the_end_of_a_queue_is_short(filled: Play) -> None:
    last = filled.one("select max(id) from procrastinate.procrastinate_jobs where queue_name = 'llm'")
    read = rows_read_in_one(filled, lambda: filled.one("select ledger.queue_ahead('llm', %s, 20)", last))
    assert_short(read)


@pytest.mark.parametrize("queues", [["llm"], ["media"], ["cpu", "llm", "media", "maintenance"]])
def test_claiming_is_short(filled: Play, queues: list[str]) -> None:
    assert_short(rows_read_in_one(filled, lambda: filled.claim(queues, 8)))


@pytest.mark.parametrize("end", ["complete", "run_on", "fail"])
def test_settling_is_short(filled: Play, end: str) -> None:
    works = filled.begin_all(8)
    assert_short(rows_read_in_one(filled, lambda: getattr(filled, end)(works.pop())))
