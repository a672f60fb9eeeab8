"""The invariants of the design, six to ten: effects, payloads, payment, failures and tenants."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID, uuid4

import psycopg
import pytest
from ledger_play import Play, digest, items

BOOK = {"name": "book.md", "media_type": "text/markdown", "bytes": 4, "sha256": digest("book")}


@contextmanager
def as_user(play: Play, user: UUID) -> Iterator[Play]:
    """The play, seen through the eyes of a signed-in user."""
    claims = json.dumps({"sub": str(user), "role": "authenticated"})
    with play.connection.transaction(force_rollback=True):
        play.all("select set_config('role', 'authenticated', true), set_config('request.jwt.claims', %s, true)", claims)
        yield play


# 6. At least once, effect once ------------------------------------------------------------------------------


def test_6_a_step_that_runs_twice_has_its_effects_once(play: Play) -> None:
    job = play.submit("line")
    lost = play.begin()
    play.pass_time(31)
    play.reconcile()
    again = play.begin()
    assert play.complete(again, 1, artifacts=[BOOK])
    assert not play.complete(lost, 1, artifacts=[BOOK])
    assert len(play.artifacts(job)) == 1
    assert play.one("select count(*) from step_results") == 1
    assert play.kinds(job).count("step_completed") == 1
    assert [run["step"] for run in play.runs(job)] == ["first", "second"]


def test_6_an_answer_that_was_lost_may_be_sent_again(play: Play) -> None:
    job = play.submit("fan")
    spread = play.begin()
    assert play.complete(spread, items=items(3))
    before = play.job(job), play.events(job), play.runs(job), play.queue()
    assert not play.complete(spread, items=items(3))
    assert (play.job(job), play.events(job), play.runs(job), play.queue()) == before


# 7. Pointers, not payloads ------------------------------------------------------------------------------------


def test_7_queue_jobs_stay_small_whatever_is_sent_through(play: Play) -> None:
    large = [{"digest": digest(n), "value": {"value": "x" * 8000}} for n in range(3)]
    play.submit("fan", params={"mark": "x" * 50_000})
    play.complete(play.begin(), "x" * 8000, items=large)
    play.submit("line", params={"mark": "y" * 50_000})
    sizes = [len(json.dumps(row["args"])) for row in play.queue()]
    assert len(sizes) == 4
    assert max(sizes) < 200


def test_7_signals_carry_the_job_and_a_number_only(real_play: Play, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as ear:
        ear.execute("listen ledgerline_events")
        job = real_play.submit("line", params={"mark": "z" * 50_000})
        (signal,) = ear.notifies(timeout=10, stop_after=1)
    assert signal.payload == f"{job} 1"


# 8. Nothing is paid twice ---------------------------------------------------------------------------------------


def test_8_the_same_request_again_runs_no_step(play: Play) -> None:
    def run(key: str) -> tuple[UUID, int]:
        job, computed = play.submit("diamond", params={"width": 1}, idempotency_key=key), 0
        while works := play.begin_all():
            for work in works:
                reuse = work["reuse"]
                computed += reuse is None
                play.complete(work, work["step"], **({"reuse": reuse["result"]} if reuse else {}))
        return job, computed

    first, paid = run("first")
    second, paid_again = run("second")
    assert (paid, paid_again) == (4, 0)
    assert play.kinds(second).count("reused") == 4
    results = [[run["result_id"] for run in play.runs(job)] for job in (first, second)]
    assert results[0] == results[1]
    assert play.job(second)["status"] == "completed"


def test_8_a_revised_work_pays_only_for_what_changed(play: Play) -> None:
    for key, revision in (("first", items(10)), ("second", [*items(4), *items(1, first=99), *items(5, first=5)])):
        play.submit("fan", params={"width": 10}, idempotency_key=key)
        (spread,) = play.begin_all()
        play.complete(spread, key, items=revision)
        works = play.begin_all()
        paid = [work["item"] for work in works if work["reuse"] is None]
        for work in works:
            play.complete(work, work["item"])
        play.finish_all()
    assert paid == [4]


# 9. Every failure says three things -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["step", "lost", "timeout", "cancelled retry"])
def test_9_every_failed_job_has_a_code_and_a_sentence(play: Play, how: str) -> None:
    job = play.submit("line")
    if how == "timeout":
        play.pass_time(301)
        play.reconcile()
    elif how == "lost":
        play.begin()
        play.reconcile(losses=1)
    elif how == "cancelled retry":
        play.fail(play.begin(), retry_in=5)
        play.pass_time(10)
        play.all("select ledger.promote_due(1)")
        play.fail(play.begin())
    else:
        play.fail(play.begin())
    row = play.job(job)
    assert row["status"] == "failed"
    assert row["error_code"].replace("_", "").isalpha()
    assert row["error_message"].endswith(".")
    assert play.events(job)[-1]["data"]["code"] == row["error_code"]


def test_9_a_user_cannot_read_the_detail_for_the_operator_anywhere(play: Play) -> None:
    secret = "a-secret-of-the-operator"
    play.submit("line")
    play.fail(play.begin(), retry_in=0, detail=secret)
    play.fail(play.begin(), detail=secret)
    assert play.one("select count(*) from ops.failures") == 2
    tables = play.all(
        "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'v')"
    )
    with as_user(play, play.user):
        assert play.one("select count(*) from jobs") == 1
        for table in tables:
            rows = play.all("select to_jsonb(t)::text as text from public." + table["relname"] + " t")
            assert not [row for row in rows if secret in row["text"]], table
    with pytest.raises(psycopg.errors.InsufficientPrivilege), as_user(play, play.user):
        play.all("select * from ops.failures")


# 10. A tenant sees its own rows only --------------------------------------------------------------------------------


def test_10_a_user_of_another_tenant_sees_nothing_of_a_job(play: Play) -> None:
    stranger = uuid4()
    play.add_tenant(stranger)
    job = play.submit("line")
    play.complete(play.begin(), artifacts=[BOOK])
    play.fail(play.begin())
    for user, sees in ((play.user, True), (stranger, False), (uuid4(), False)):
        with as_user(play, user):
            seen = [
                bool(rows)
                for rows in (play.runs(job), play.events(job), play.artifacts(job), play.all("select from jobs"))
            ]
            assert seen == [sees] * 4
