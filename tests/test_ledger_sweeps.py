"""Sweeps compare the ledger and the queue in windows: a few rows a time, and so all of them."""

from __future__ import annotations

import psycopg
from ledger_play import Play, items
from psycopg.rows import dict_row


def repaired_by(play: Play, function: str, times: int) -> list[int]:
    """How many each of these sweeps repaired."""
    return [play.one(f"select ledger.{function}") for _ in range(times)]


def test_sweeps_look_at_a_few_step_runs_at_a_time_and_so_at_all(play: Play) -> None:
    for _ in range(5):
        play.submit("line")
    assert repaired_by(play, "requeue_orphans(null, 2)", 3) == [0, 0, 0]  # and back at the beginning
    play.connection.execute("delete from procrastinate.procrastinate_jobs")
    assert repaired_by(play, "requeue_orphans(null, 2)", 4) == [2, 2, 1, 0]
    assert play.drift() == []


def open_a_map(play: Play, width: int) -> None:
    """A job of whose map so many items are queued."""
    play.submit("fan")
    play.complete(play.begin(), items=items(width))


def test_a_job_with_more_step_runs_than_a_window_is_looked_at_whole(play: Play) -> None:
    open_a_map(play, 5)
    play.submit("line")
    play.connection.execute("delete from procrastinate.procrastinate_jobs")
    assert repaired_by(play, "requeue_orphans(null, 2)", 2) == [5, 1]
    assert play.drift() == []


def test_sweeps_look_at_a_few_queue_jobs_at_a_time_and_so_at_all(play: Play) -> None:
    for _ in range(5):
        play.submit("line")
    assert repaired_by(play, "withdraw_strays(2)", 3) == [0, 0, 0]
    play.connection.execute(
        "update procrastinate.procrastinate_jobs set args = args || jsonb_build_object('step_run', ledger.uuid7())"
    )
    assert repaired_by(play, "withdraw_strays(2)", 4) == [2, 2, 1, 0]
    assert play.queue() == []


def test_a_sweep_of_one_job_leaves_the_windows_where_they_are(play: Play) -> None:
    jobs = [play.submit("line") for _ in range(3)]
    play.one("select ledger.requeue_orphans(null, 2)")
    play.connection.execute("delete from procrastinate.procrastinate_jobs")
    assert play.one("select ledger.requeue_orphans(%s)", jobs[0]) == 1
    assert repaired_by(play, "requeue_orphans(null, 2)", 2) == [2, 0]


def test_more_orphans_than_are_repaired_at_a_time_are_gone_on_with(play: Play) -> None:
    open_a_map(play, 1_001)
    play.connection.execute("delete from procrastinate.procrastinate_jobs")
    assert repaired_by(play, "requeue_orphans()", 2) == [1000, 1]


def test_while_one_sweep_has_the_windows_another_leaves_them(real_play: Play, database_url: str) -> None:
    real_play.submit("line")
    real_play.connection.execute("delete from procrastinate.procrastinate_jobs")
    with psycopg.connect(database_url, row_factory=dict_row) as other:
        assert repaired_by(real_play.on(other), "requeue_orphans()", 1) == [1]
        assert repaired_by(real_play, "requeue_orphans()", 1) == [0]
        assert repaired_by(real_play, "withdraw_strays()", 1) == [0]
        other.commit()
    assert repaired_by(real_play, "requeue_orphans()", 1) == [0]
    assert real_play.drift() == []
