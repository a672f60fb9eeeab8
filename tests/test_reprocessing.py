"""Running a job again from a step: what is undone, what stays, and what is asked anew."""

from __future__ import annotations

from collections.abc import Iterator
from typing import LiteralString
from uuid import UUID

import psycopg
import pytest
from gate_play import PACKAGES, branching, decide, open_reviews, reviews, waiting, work_on
from ledger_play import Play, Row, Work, items, refused
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb


@pytest.fixture
def play(connection: psycopg.Connection[Row]) -> Iterator[Play]:
    """Nothing drifts in any of these tests."""
    play = Play(connection, PACKAGES)
    yield play
    assert play.drift() == []


def test_reprocessing_runs_again_from_a_step_and_asks_again(play: Play) -> None:
    job = waiting(play)
    decide(play, job, "approval", "reprocessed", "shorter", from_step="draft")
    assert (play.job(job)["status"], play.job(job)["percent"]) == ("running", 0)
    assert work_on(play) == [("draft", None)]
    assert reviews(play, job) == [("approval", "reprocessed"), ("approval", "open")]
    assert play.job(job)["status"] == "awaiting_review"
    decide(play, job, "approval", "approved")
    assert work_on(play) == [("final", None)]
    assert play.job(job)["status"] == "completed"


def test_reprocessing_does_not_take_the_result_it_was_to_replace(play: Play) -> None:
    job = waiting(play)
    decide(play, job, "approval", "reprocessed", from_step="draft")
    assert play.begin()["reuse"] is None


def _reuse_what_is_sent_back(play: Play) -> tuple[UUID, Work, Jsonb]:
    """A job, its attempt that was about to use the result of another when a reviewer sent that one back, and what the
    worker says of it."""
    first = play.submit("reviewed", params={"mark": "alike"})
    work_on(play)
    second = play.submit("reviewed", params={"mark": "alike"}, idempotency_key="second")
    work = play.begin()
    decide(play, first, "approval", "reprocessed", from_step="draft")
    said = {"verb": "complete", "step_run": work["step_run"], "attempt": work["attempt"]}
    return second, work, Jsonb(said | {"result": {"reuse": work["reuse"]["result"]}})


def test_whoever_was_about_to_use_a_result_that_is_sent_back_does_the_work_instead(play: Play) -> None:
    job, before, said = _reuse_what_is_sent_back(play)
    assert play.one("select ledger.settle(%s)", [said]) == [False]
    assert (play.statuses(job), play.kinds(job)[-1], play.failures(job)) == (["queued"], "step_released", [])
    (work,) = [work for work in play.begin_all() if work["job"] == str(job)]
    assert (work["step_run"], work["attempt"], work["reuse"]) == (before["step_run"], 2, None)
    assert play.complete(work, 7)
    assert (play.job(job)["status"], play.job(job)["reused"]) == ("awaiting_review", 0)


def test_an_attempt_that_is_stale_already_is_not_given_back_for_a_result_that_is_gone(play: Play) -> None:
    job, _, said = _reuse_what_is_sent_back(play)
    play.cancel(job)
    history = play.kinds(job)
    assert play.one("select ledger.settle(%s)", [said]) == [False]
    assert (play.statuses(job), play.kinds(job)) == (["cancelled"], history)


def test_reprocessing_from_a_map_runs_its_items_again_and_not_their_source(play: Play) -> None:
    job, works = branching(play)
    for work in works.values():
        play.complete(work, work["item"])
    work_on(play)
    decide(play, job, "second_look", "reprocessed", from_step="beside")
    assert set(open_reviews(play, job)) == {"approval"}
    assert work_on(play) == [("beside", 0), ("beside", 1), ("beside", 2), ("gathered", None)]
    assert set(open_reviews(play, job)) == {"approval", "second_look"}
    assert play.job(job)["percent"] <= 99


def test_reprocessing_from_the_source_lays_the_items_out_anew(play: Play) -> None:
    job, works = branching(play)
    for work in works.values():
        play.complete(work, work["item"])
    work_on(play)
    decide(play, job, "approval", "reprocessed", from_step="base")
    assert work_on(play, width=1) == [("base", None), ("beside", 0), ("gathered", None)]
    assert len(play.runs(job, "beside")) == 1


def test_reprocessing_while_a_branch_is_running_leaves_no_attempt_of_before_in_force(play: Play) -> None:
    job, works = branching(play)
    play.complete(works[0], 0)
    decide(play, job, "approval", "reprocessed", from_step="beside")
    assert not play.complete(works[1], "of before")
    assert work_on(play) == [("beside", 0), ("beside", 1), ("beside", 2), ("gathered", None)]
    assert play.job(job)["status"] == "awaiting_review"
    assert play.one("select count(*) from step_results where value ->> 'value' = 'of before'") == 0


def test_reprocessing_one_branch_lets_the_other_go_on_where_it_was(play: Play) -> None:
    job, works = branching(play)
    play.complete(works[0], 0)
    work = works[1]
    play.complete(work, 1)
    decide(play, job, "approval", "reprocessed", from_step="base")
    work_on(play)
    assert play.job(job)["status"] == "awaiting_review"
    for gate in ("approval", "second_look"):
        decide(play, job, gate, "approved")
    work_on(play)
    assert (play.job(job)["status"], play.job(job)["percent"]) == ("completed", 100)


def test_reprocessing_takes_away_the_files_of_what_is_done_again(play: Play) -> None:
    job, works = branching(play)
    file = {"name": "part.txt", "media_type": "text/plain", "bytes": 4, "sha256": "0" * 64}
    for work in works.values():
        play.complete(work, work["item"], artifacts=[file])
    work_on(play)
    assert len(play.artifacts(job)) == 3
    decide(play, job, "approval", "reprocessed", from_step="base")
    work_on(play, width=1)
    assert play.artifacts(job) == []


def test_reprocessing_leaves_failed_items_that_are_not_done_again_where_they_are(play: Play) -> None:
    """Item 1 of `tried` failed within its bound; running `told` again, which goes along with it, leaves item 1 out."""
    job = play.submit("lenient")
    play.complete(play.begin(), 0, items(3))
    for work in play.begin_all():
        play.fail(work) if work["item"] == 1 else play.complete(work, work["item"])
    work_on(play)
    decide(play, job, "approval", "reprocessed", from_step="told")
    assert work_on(play) == [("told", 0), ("told", 2)]
    assert play.job(job)["status"] == "awaiting_review"


@pytest.mark.parametrize(
    ("from_step", "code", "status"),
    [("nothing", "unknown_step", 422), ("second_look", "unknown_step", 422), ("ending", "step_not_reached", 409)],
)
def test_reprocessing_from_an_impossible_step_is_refused_and_the_gate_stays_open(
    play: Play, from_step: str, code: str, status: int
) -> None:
    job, _ = branching(play)
    with refused(play.connection, code, status):
        decide(play, job, "approval", "reprocessed", from_step=from_step)
    assert "approval" in open_reviews(play, job)
    assert play.job(job)["status"] == "running"


def test_what_goes_on_in_another_branch_goes_on_undisturbed(play: Play) -> None:
    job = play.submit("forked")
    play.complete(play.begin(), 0)
    ours, theirs = sorted(play.begin_all(), key=lambda work: str(work["step"]))
    assert (ours["step"], theirs["step"]) == ("ours", "theirs")
    play.complete(ours, 1)
    decide(play, job, "approval", "reprocessed", from_step="ours")
    assert play.run(job, "theirs")["status"] == "running"
    assert play.complete(theirs, 2)
    assert work_on(play) == [("ours", None)]
    assert play.job(job)["status"] == "awaiting_review"
    decide(play, job, "approval", "approved")
    assert work_on(play) == [("both", None)]
    assert play.job(job)["status"] == "completed"


CLAIMING: LiteralString = """
  select id from procrastinate.procrastinate_jobs where status = 'todo' order by priority desc, id limit 1 for update
"""


def test_what_is_being_claimed_at_that_moment_is_begun_once_and_never_drifts(
    real_play: Play, database_url: str
) -> None:
    play = Play(real_play.connection, PACKAGES)
    job = play.submit("branched")
    play.complete(play.begin(), 0, items(3))
    with psycopg.connect(database_url, row_factory=dict_row) as claiming:
        claiming.execute(CLAIMING)
        decide(play, job, "approval", "reprocessed", from_step="beside")
        assert play.drift() == []
    assert sorted(work["item"] for work in play.begin_all()) == [0, 1, 2]
    assert len(play.queue()) == 3
    assert play.drift() == []
