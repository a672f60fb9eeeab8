"""Settling many attempts in one transaction: each ends as it would alone, and groups do not lock each other out."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, LiteralString

import psycopg
from ledger_play import Play, Work, digest, items
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from waiting import until


def settle(play: Play, *outcomes: dict[str, Any]) -> list[bool]:
    accepted: list[bool] = play.one("select ledger.settle(%s::jsonb[])", [Jsonb(outcome) for outcome in outcomes])
    return accepted


def outcome(verb: str, work: Work, **more: Any) -> dict[str, Any]:
    return {"verb": verb, "step_run": work["step_run"], "attempt": work["attempt"]} | more


def completed(work: Work, value: object = 1, **more: Any) -> dict[str, Any]:
    return outcome("complete", work, result={"digest": digest(value), "value": {"value": value}}, **more)


def failed(work: Work, retry_in: float | None = None) -> dict[str, Any]:
    return outcome("fail", work, code="broken", message="It is broken.", detail="secret", retry_in=retry_in)


def test_each_attempt_of_a_group_ends_in_its_own_way(play: Play) -> None:
    jobs = [play.submit("line") for _ in range(5)]
    one, two, three, four, five = play.begin_all()
    stale = four | {"attempt": 7}
    answers = settle(
        play,
        completed(one),
        failed(two),
        failed(three, 60),
        outcome("release", five),
        completed(stale),
        completed(four),
    )
    assert answers == [True, True, True, True, False, True]
    assert [play.job(job)["status"] for job in jobs] == ["running", "failed", "running", "running", "running"]
    assert [play.statuses(job)[0] for job in jobs] == ["completed", "failed", "retrying", "completed", "queued"]
    assert play.drift() == []


def test_a_group_may_hold_all_items_of_a_job_and_joins_once(play: Play) -> None:
    job = play.submit("fan")
    assert settle(play, completed(play.begin(), items=items(9))) == [True]
    assert settle(play, *map(completed, play.begin_all())) == [True] * 9
    assert play.statuses(job, "total") == ["queued"]
    assert play.drift() == []


def test_after_a_failing_item_the_rest_of_its_group_is_stale(play: Play) -> None:
    job = play.submit("fan")
    play.complete(play.begin(), items=items(3))
    one, two, three = play.begin_all()
    assert settle(play, completed(one), failed(two), completed(three)) == [True, True, False]
    assert play.statuses(job, "double") == ["completed", "failed", "cancelled"]


def test_an_attempt_twice_in_a_group_counts_once(play: Play) -> None:
    job = play.submit("line")
    work = play.begin()
    assert settle(play, completed(work), completed(work)) == [True, False]
    assert play.kinds(job).count("step_completed") == 1


def test_groups_that_use_the_same_results_again_do_not_lock_each_other_out(real_play: Play, database_url: str) -> None:
    for mark in "ab":
        real_play.submit("one", params={"mark": mark}, idempotency_key=mark)
    real_play.finish_all()
    for key in "12":
        for mark in "ab":
            real_play.submit("one", params={"mark": mark}, idempotency_key=mark + key)
    first_a, first_b, second_a, second_b = real_play.begin_all()

    def reused(work: Work) -> dict[str, Any]:
        return outcome("complete", work, result={"reuse": work["reuse"]["result"]})

    def settle_later(*outcomes: dict[str, Any]) -> list[bool]:
        with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as connection:
            return settle(real_play.on(connection), *outcomes)

    waiting: LiteralString = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
    lock: LiteralString = "select from step_results where id = %s for no key update"
    with psycopg.connect(database_url) as gate, ThreadPoolExecutor(2) as hands:
        for work in (first_a, first_b):
            gate.execute(lock, [work["reuse"]["result"]])
        groups = [
            hands.submit(settle_later, reused(first_a), reused(first_b)),
            hands.submit(settle_later, reused(second_b), reused(second_a)),
        ]
        until(lambda: real_play.one(waiting) == 2)
        gate.rollback()
        assert [group.result(30) for group in groups] == [[True, True], [True, True]]
    assert {row["hits"] for row in real_play.all("select hits from step_results")} == {2}
    assert {row["status"] for row in real_play.all("select status from jobs")} == {"completed"}
