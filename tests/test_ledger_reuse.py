"""Nothing is paid twice: a step run whose work was done before takes that result, within its tenant."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from ledger_play import Play, broken, digest, items

FILE = {"name": "answer.txt", "media_type": "text/plain", "bytes": 3, "sha256": digest("answer")}


def _do_once(play: Play, **request: Any) -> UUID:
    """A first job whose one step gave a result with an artifact."""
    job = play.submit("one", params={"width": 1}, idempotency_key="first", **request)
    play.complete(play.begin(), 42, artifacts=[FILE])
    return job


def _result(play: Play, job: UUID) -> dict[str, Any]:
    (row,) = play.all("select r.* from step_results r join job_steps s on s.result_id = r.id where s.job_id = %s", job)
    return row


def test_work_that_was_done_before_is_offered_with_the_claim(play: Play) -> None:
    done = _result(play, _do_once(play))
    play.submit("one", params={"width": 1}, idempotency_key="second")
    reuse = play.begin()["reuse"]
    assert (reuse["result"], reuse["digest"], reuse["value"]) == (str(done["id"]), digest(42), {"value": 42})


def test_reusing_completes_with_the_old_result_and_says_so(play: Play) -> None:
    done = _result(play, _do_once(play))
    job = play.submit("one", params={"width": 1}, idempotency_key="second")
    work = play.begin()
    assert play.complete(work, reuse=work["reuse"]["result"])
    assert play.run(job, "only")["result_id"] == done["id"]
    assert play.kinds(job)[-3:] == ["reused", "step_completed", "completed"]
    assert (play.events(job)[-3]["step"], play.events(job)[-3]["attempt"]) == ("only", 1)
    assert play.job(job)["status"] == "completed"


def test_every_hit_is_counted(play: Play) -> None:
    first = _do_once(play)
    assert _result(play, first)["hits"] == 0
    for key in ("second", "third"):
        play.submit("one", params={"width": 1}, idempotency_key=key)
        work = play.begin()
        play.complete(work, reuse=work["reuse"]["result"])
    assert _result(play, first)["hits"] == 2
    assert len(play.all("select from step_results")) == 1


def test_the_artifacts_of_a_reused_result_become_the_jobs_own(play: Play) -> None:
    _do_once(play)
    job = play.submit("one", params={"width": 1}, idempotency_key="second")
    work = play.begin()
    play.complete(work, reuse=work["reuse"]["result"])
    (artifact,) = play.artifacts(job)
    assert (artifact["name"], artifact["sha256"], artifact["tenant_id"]) == (
        "answer.txt",
        digest("answer"),
        play.tenant,
    )


def test_another_tenant_is_not_offered_the_result(play: Play) -> None:
    _do_once(play)
    play.submit("one", params={"width": 1}, tenant_id=play.add_tenant())
    assert play.begin()["reuse"] is None


def test_another_tenant_cannot_take_the_result(play: Play) -> None:
    done = _result(play, _do_once(play))
    job = play.submit("one", params={"width": 1}, tenant_id=play.add_tenant())
    work = play.begin()
    with broken(play.connection):
        play.complete(work, reuse=str(done["id"]))
    assert play.statuses(job) == ["running"]


def test_a_fresh_job_is_not_offered_a_result_and_leaves_its_own(play: Play) -> None:
    _do_once(play)
    play.submit("one", params={"width": 1}, fresh=True)
    work = play.begin()
    assert work["reuse"] is None
    play.complete(work, 43)
    play.submit("one", params={"width": 1}, idempotency_key="third")
    assert play.begin()["reuse"]["value"] == {"value": 43}


def test_only_changed_items_of_a_map_are_done_again(play: Play) -> None:
    play.submit("fan", params={"width": 3})
    play.complete(play.begin(), items=items(3))
    for work in play.begin_all():
        play.complete(work, work["item"])
    play.complete(play.begin())
    play.submit("fan", params={"width": 3}, fresh=False, idempotency_key="revised")
    changed = [items(3)[0], {"digest": digest("new"), "value": {"value": "new"}}, items(3)[2]]
    play.complete(play.begin(), items=changed)
    assert [work["reuse"] is not None for work in play.begin_all()] == [True, False, True]


def test_an_item_is_found_again_at_another_place(play: Play) -> None:
    play.submit("fan", params={"width": 3})
    play.complete(play.begin(), items=items(3))
    for work in play.begin_all():
        play.complete(work, work["item"])
    play.submit("fan", params={"width": 3}, idempotency_key="moved")
    (spread,) = [work for work in play.begin_all() if work["step"] == "spread"]
    play.complete(spread, items=[*items(1, first=2), *items(1, first=0)])
    works = [work for work in play.begin_all() if work["step"] == "double"]
    assert [work["reuse"]["value"] for work in works] == [{"value": 2}, {"value": 0}]


def test_a_retried_job_does_not_do_again_what_is_done(play: Play) -> None:
    job = play.submit("line")
    play.complete(play.begin(), 1)
    done = play.run(job, "first")
    play.fail(play.begin())
    play.retry(job)
    assert [work["step"] for work in play.begin_all()] == ["second"]
    assert play.run(job, "first") == done


def test_a_cancelled_jobs_results_serve_the_next_one(play: Play) -> None:
    job = play.submit("line", params={"width": 1})
    play.complete(play.begin(), 1)
    play.cancel(job)
    play.submit("line", params={"width": 1})
    assert play.begin()["reuse"]["value"] == {"value": 1}
