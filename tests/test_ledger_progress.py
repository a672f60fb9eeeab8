"""Progress: only upwards, with a sentence, and only from the attempt that runs; and giving an attempt back."""

from __future__ import annotations

import pytest
from ledger_play import Play, items

from tasks import ledger
from tasks.pipeline import Pipeline


def test_a_report_shows_on_the_job_and_in_its_history(play: Play) -> None:
    job = play.submit("line")
    work = play.begin()
    assert play.report(work, 5, 10, "Page 5 of 10.")
    row, event = play.job(job), play.events(job)[-1]
    assert (row["progress_current"], row["progress_total"], row["progress_message"]) == (5, 10, "Page 5 of 10.")
    assert row["percent"] == 16
    assert (event["kind"], event["step"], event["attempt"], event["message"]) == (
        "progress",
        "first",
        1,
        "Page 5 of 10.",
    )
    assert event["data"] == {"current": 5, "total": 10, "status": "running", "percent": 16}


def test_a_report_shows_on_the_step_run(play: Play) -> None:
    job = play.submit("line")
    play.report(play.begin(), 5, 10)
    run = play.run(job, "first")
    assert (run["progress_current"], run["progress_total"]) == (5, 10)


def test_percent_never_goes_back(play: Play) -> None:
    job = play.submit("line")
    seen = []
    work = play.begin()
    for current in (8, 3, 10, 0):
        play.report(work, current, 10)
        seen.append(play.job(job)["percent"])
    play.fail(work, retry_in=0)
    work = play.begin()
    play.report(work, 1, 10)
    seen.append(play.job(job)["percent"])
    play.finish_all()
    play.complete(work, 1)
    seen.append(play.job(job)["percent"])
    play.finish_all()
    assert seen == [26, 26, 33, 33, 33, 33]
    assert play.job(job)["percent"] == 100
    percents = [event["data"]["percent"] for event in play.events(job)]
    assert percents == sorted(percents)


def test_a_small_step_that_is_done_does_not_take_back_what_a_large_one_has_shown(play: Play) -> None:
    uneven = Pipeline("uneven", title="One large step, one small")

    @uneven.step(stage="parsing", queue="llm", weight=8)
    async def large() -> int:
        return 1

    @uneven.step(stage="parsing", queue="llm", weight=1)
    async def small() -> int:
        return 1

    ledger.publish(play.connection, [uneven], "tests")
    job = play.submit("uneven", params={})
    works = {work["step"]: work for work in play.begin_all()}
    play.report(works["large"], 9, 10)
    assert play.job(job)["percent"] == 80
    play.complete(works["small"])
    assert play.job(job)["percent"] == 80
    play.complete(works["large"])
    assert play.job(job)["percent"] == 100


@pytest.mark.parametrize(("current", "total"), [(0, 0), (20, 10), (5, 0)])
def test_odd_numbers_do_no_harm(play: Play, current: int, total: int) -> None:
    job = play.submit("line")
    assert play.report(play.begin(), current, total)
    assert 0 <= play.job(job)["percent"] <= 33


def test_percent_is_below_a_hundred_until_everything_is_done(play: Play) -> None:
    job = play.submit("one")
    work = play.begin()
    play.report(work, 10, 10)
    assert play.job(job)["percent"] == 99
    play.complete(work)
    assert play.job(job)["percent"] == 100


def test_items_count_as_the_progress_of_their_step(play: Play) -> None:
    job = play.submit("fan")
    play.complete(play.begin(), items=items(4))
    works = play.begin_all()
    seen = []
    for work in works:
        play.complete(work, work["item"])
        row = play.job(job)
        seen.append((row["progress_current"], row["progress_total"], row["percent"]))
    assert seen == [(1, 4, 41), (2, 4, 50), (3, 4, 58), (4, 4, 66)]


def test_a_report_of_one_item_moves_the_percent_by_its_share(play: Play) -> None:
    job = play.submit("fan")
    play.complete(play.begin(), items=items(2))
    work, _ = play.begin_all()
    play.report(work, 1, 2, "Half of this item.")
    row = play.job(job)
    assert (row["percent"], row["progress_message"], row["progress_total"]) == (41, "Half of this item.", 0)


def test_a_stale_report_is_refused_and_changes_nothing(play: Play) -> None:
    job = play.submit("line")
    stale = play.begin()
    play.fail(stale, retry_in=0)
    play.begin()
    before = play.job(job), play.events(job)
    assert not play.report(stale, 9, 10, "I am still here.")
    assert (play.job(job), play.events(job)) == before


def test_a_new_step_starts_with_an_empty_progress(play: Play) -> None:
    job = play.submit("line")
    work = play.begin()
    play.report(work, 9, 10, "Nearly.")
    play.complete(work)
    play.begin()
    row = play.job(job)
    assert (row["stage"], row["progress_current"], row["progress_total"]) == ("analyzing", 0, 0)
    assert row["progress_message"] == ""


# Giving an attempt back -----------------------------------------------------------------------------


def test_a_released_attempt_is_queued_again_and_does_not_count(play: Play) -> None:
    job = play.submit("line")
    assert play.release(play.begin())
    run = play.run(job, "first")
    assert (run["status"], run["attempt"], run["failures"], run["losses"]) == ("queued", 1, 0, 0)
    assert (run["worker_id"], len(play.queue())) == (None, 1)
    assert play.kinds(job)[-1] == "step_released"
    assert play.drift() == []
    assert play.begin()["attempt"] == 2


def test_a_released_attempt_is_stale(play: Play) -> None:
    job = play.submit("line")
    stale = play.begin()
    play.release(stale)
    assert not play.release(stale)
    assert not play.complete(stale)
    assert not play.fail(stale)
    assert play.statuses(job) == ["queued"]


def test_releasing_writes_no_failure(play: Play) -> None:
    job = play.submit("line")
    play.release(play.begin())
    assert play.failures(job) == []
    assert play.job(job)["status"] == "running"
