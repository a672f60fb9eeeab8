"""Completing: result, artifacts, event, progress and the next steps' queue jobs together; joins are decided once."""

from __future__ import annotations

import random
from uuid import UUID

import pytest
from ledger_play import Play, digest, items

from tasks import ledger
from tasks.pipeline import Pipeline


def _file(name: str, content: str) -> dict[str, object]:
    return {"name": name, "media_type": "text/plain", "bytes": len(content), "sha256": digest(content)}


def test_completing_a_step_files_its_result_and_queues_the_next(play: Play) -> None:
    job = play.submit("line")
    assert play.complete(play.begin(), 7)
    done, waiting = play.run(job, "first"), play.run(job, "second")
    result = play.all("select * from step_results where id = %s", done["result_id"])[0]
    assert (done["status"], done["queue_job_id"], done["worker_id"]) == ("completed", None, None)
    assert done["finished_at"] is not None
    assert (result["value"], result["digest"], result["identity"]) == ({"value": 7}, digest(7), done["identity"])
    assert (waiting["status"], waiting["queue_job_id"]) == ("queued", play.queue()[0]["id"])
    assert len(play.queue()) == 1
    assert play.drift() == []


def test_the_event_of_a_completed_step_counts(play: Play) -> None:
    job = play.submit("line")
    play.complete(play.begin())
    event = play.events(job)[-1]
    assert (event["kind"], event["step"], event["attempt"]) == ("step_completed", "first", 1)
    assert event["data"] == {"current": 1, "total": 1, "status": "running", "percent": 33}


def test_the_last_step_completes_the_job(play: Play) -> None:
    job = play.submit("line")
    assert play.finish_all() == 3
    row = play.job(job)
    assert (row["status"], row["percent"], row["error_code"]) == ("completed", 100, None)
    assert row["finished_at"] is not None
    assert play.kinds(job)[-2:] == ["step_completed", "completed"]
    assert [event["seq"] for event in play.events(job)] == list(range(1, row["last_seq"] + 1))
    assert play.queue() == play.drift() == []


def test_a_stale_result_is_refused_and_nothing_of_it_is_kept(play: Play) -> None:
    job = play.submit("line")
    stale = play.begin()
    play.fail(stale, retry_in=0)
    play.begin()
    before = play.job(job), play.events(job), play.runs(job), play.queue()
    assert not play.complete(stale, 9, artifacts=[_file("late.txt", "late")])
    assert (play.job(job), play.events(job), play.runs(job), play.queue()) == before
    assert play.all("select from step_results") == play.artifacts(job) == []


def test_completing_twice_counts_once(play: Play) -> None:
    job = play.submit("fan")
    play.complete(play.begin(), items=items(2))
    first, _ = play.begin_all()
    assert play.complete(first)
    assert not play.complete(first)
    assert play.one("select completed from job_step_totals where (job_id, step) = (%s, 'double')", job) == 1


def test_a_result_is_either_a_value_or_a_pointer(play: Play) -> None:
    job = play.submit("line")
    play.complete(play.begin(), blob={"sha256": "a" * 64, "bytes": 9000})
    result = play.all("select * from step_results where id = %s", play.run(job, "first")["result_id"])[0]
    assert (result["value"], result["blob"]) == (None, {"sha256": "a" * 64, "bytes": 9000})


# Joins ----------------------------------------------------------------------------------------------


def test_a_diamond_meets_once_and_only_when_both_sides_are_done(play: Play) -> None:
    job = play.submit("diamond")
    play.complete(play.begin())
    left, right = play.begin_all()
    assert {left["step"], right["step"]} == {"left", "right"}
    play.complete(left)
    assert play.runs(job, "bottom") == []
    play.complete(right)
    assert play.statuses(job, "bottom") == ["queued"]
    assert len(play.queue()) == 1
    play.finish_all()
    assert play.job(job)["status"] == "completed"


def test_the_other_side_of_a_diamond_may_be_first(play: Play) -> None:
    job = play.submit("diamond")
    play.complete(play.begin())
    for work in reversed(play.begin_all()):
        play.complete(work)
    assert play.statuses(job, "bottom") == ["queued"]


@pytest.mark.parametrize("width", [0, 1, 2, 17, 1000])
def test_a_map_runs_once_per_item_and_joins_once(play: Play, width: int) -> None:
    job = play.submit("fan")
    play.complete(play.begin(), items=items(width))
    works = play.begin_all(width) if width else []
    random.Random(width).shuffle(works)
    for left, work in zip(range(width, 0, -1), works, strict=True):
        assert left > 2 or play.runs(job, "total") == []
        play.complete(work, work["item"])
    assert play.statuses(job, "double") == ["completed"] * width
    assert play.statuses(job, "total") == ["queued"]
    assert len(play.queue()) == 1
    play.finish_all()
    row = play.job(job)
    assert (row["status"], row["percent"]) == ("completed", 100)
    assert row["last_seq"] == 3 + 2 * (width + 2)
    assert play.drift() == []


def test_items_are_laid_out_in_order_with_value_and_digest(play: Play) -> None:
    job = play.submit("fan")
    play.complete(play.begin(), items=items(12))
    runs = play.runs(job, "double")
    assert [run["item"] for run in runs] == list(range(12))
    assert [run["item_value"] for run in runs] == [{"value": number} for number in range(12)]
    assert [run["item_digest"] for run in runs] == [digest(number) for number in range(12)]
    in_turn = sorted(play.queue(), key=lambda row: -row["priority"])
    assert [row["args"]["step_run"] for row in in_turn] == [str(run["id"]) for run in runs]


def test_two_jobs_do_not_join_each_other(play: Play) -> None:
    jobs = [play.submit("fan") for _ in range(2)]
    for work in play.begin_all():
        play.complete(work, items=items(2))
    works = play.begin_all()
    for work in works[:3]:
        play.complete(work)
    assert sorted(len(play.runs(job, "total")) for job in jobs) == [0, 1]


def _graph() -> Pipeline:
    """Two maps over one source, a map over nothing, a step that only waits, and a join of all."""
    wide = Pipeline("wide", title="Everything at once")

    @wide.step(stage="parsing", queue="llm")
    async def numbers() -> list[int]:
        return []

    @wide.step(stage="analyzing", queue="llm", map="numbers")
    async def twice(item: int) -> int:
        return item

    @wide.step(stage="analyzing", queue="llm", map="numbers")
    async def thrice(item: int) -> int:
        return item

    @wide.step(stage="analyzing", queue="llm", after=("numbers",))
    async def aside() -> int:
        return 0

    @wide.step(stage="exporting", queue="llm")
    async def end(twice: list[int], thrice: list[int], aside: int) -> int:
        return 0

    return wide


@pytest.mark.parametrize("width", [0, 1, 5])
def test_two_maps_over_one_source_and_a_step_beside_them_meet_once(play: Play, width: int) -> None:
    ledger.publish(play.connection, [_graph()], "tests")
    job = play.submit("wide", params={})
    play.complete(play.begin(), items=items(width))
    works = play.begin_all()
    assert len(works) == 2 * width + 1
    for work in works:
        assert play.runs(job, "end") == []
        play.complete(work)
    play.finish_all()
    assert play.statuses(job, "end") == ["completed"]
    assert play.job(job)["status"] == "completed"
    assert play.drift() == []


def test_empty_maps_one_after_another_complete_a_job_at_once(play: Play) -> None:
    chain = Pipeline("chain", title="Nothing to do")

    @chain.step(stage="parsing", queue="llm")
    async def numbers() -> list[int]:
        return []

    @chain.step(stage="analyzing", queue="llm", map="numbers")
    async def each(item: int) -> int:
        return item

    @chain.step(stage="exporting", queue="llm", map="numbers")
    async def again(item: int, each: list[int]) -> int:
        return item

    ledger.publish(play.connection, [chain], "tests")
    job = play.submit("chain", params={})
    play.complete(play.begin(), items=[])
    row = play.job(job)
    assert (row["status"], row["percent"]) == ("completed", 100)
    assert play.kinds(job).count("completed") == 1
    assert play.drift() == play.queue() == []


def test_items_wait_until_the_other_inputs_of_their_step_are_there(play: Play) -> None:
    late = Pipeline("late", title="Items wait")

    @late.step(stage="parsing", queue="llm")
    async def numbers() -> list[int]:
        return []

    @late.step(stage="parsing", queue="cpu")
    async def other() -> int:
        return 1

    @late.step(stage="analyzing", queue="llm", map="numbers")
    async def each(item: int, other: int) -> int:
        return item + other

    ledger.publish(play.connection, [late], "tests")
    job = play.submit("late", params={})
    (row,) = play.claim(["llm"])
    play.complete(row["work"], items=items(2))
    assert play.statuses(job, "each") == ["pending", "pending"]
    assert play.drift() == []
    (row,) = play.claim(["cpu"])
    play.complete(row["work"])
    assert play.statuses(job, "each") == ["queued", "queued"]
    play.finish_all()
    assert play.job(job)["status"] == "completed"


# Artifacts --------------------------------------------------------------------------------------------


def _artifacts(play: Play, job: UUID) -> list[tuple[str, int | None, str, str]]:
    return [(one["step"], one["item"], one["name"], one["sha256"]) for one in play.artifacts(job)]


def test_artifacts_are_filed_under_job_step_and_item(play: Play) -> None:
    job = play.submit("fan")
    play.complete(play.begin(), items=items(2), artifacts=[_file("source.txt", "s")])
    for work in play.begin_all():
        play.complete(work, artifacts=[_file("item.txt", str(work["item"]))])
    assert _artifacts(play, job) == [
        ("double", 0, "item.txt", digest("0")),
        ("double", 1, "item.txt", digest("1")),
        ("spread", None, "source.txt", digest("s")),
    ]


def test_a_rerun_of_a_step_overwrites_its_own_artifacts(play: Play) -> None:
    job = play.submit("line")
    work = play.begin()
    for name, content in (("report.md", "first"), ("same.md", "same")):
        play.all(
            "insert into artifacts (job_id, tenant_id, step, name, media_type, bytes, sha256, created_at)"
            " values (%s, %s, 'first', %s, 'text/plain', 1, %s, now()) returning id",
            job,
            play.tenant,
            name,
            digest(content),
        )
    assert play.complete(work, artifacts=[_file("report.md", "second")])
    assert _artifacts(play, job) == [
        ("first", None, "report.md", digest("second")),
        ("first", None, "same.md", digest("same")),
    ]
