"""Why is it waiting? A job says what it waits for, to people of its tenant."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from ledger_play import Play, items


@pytest.fixture
def ask(play: Play) -> Any:
    """Ask as the user of the play's tenant."""

    def ask(job: UUID, user: UUID | None = None) -> dict[str, Any] | None:
        claims = json.dumps({"sub": str(user or play.user), "role": "authenticated"})
        with play.connection.transaction(force_rollback=True):
            play.all(
                "select set_config('role', 'authenticated', true), set_config('request.jwt.claims', %s, true)", claims
            )
            answer: dict[str, Any] | None = play.one("select access.waiting_for(%s)", job)
        return answer

    return ask


def test_without_a_worker_it_says_that_none_is_running(play: Play, ask: Any) -> None:
    answer = ask(play.submit("line"))
    assert (answer["reason"], answer["queue"]) == ("no_worker", "llm")
    assert "llm" in answer["message"]


def test_a_worker_that_is_silent_or_stopping_does_not_count(play: Play, ask: Any) -> None:
    job = play.submit("line")
    play.beat()
    play.pass_time(61)
    assert ask(job)["reason"] == "no_worker"
    play.pass_time(0)
    play.beat()
    play.connection.execute("update ops.workers set stopping = true")
    assert ask(job)["reason"] == "no_worker"


def test_in_the_queue_it_says_how_many_are_ahead(play: Play, ask: Any) -> None:
    play.beat()
    jobs = [play.submit("line") for _ in range(3)]
    answers = [ask(job) for job in jobs]
    assert [answer["ahead"] for answer in answers] == [0, 1, 2]
    assert {answer["reason"] for answer in answers} == {"queue"}
    assert answers[0]["message"] == "It is next in line."
    assert [answer["message"] for answer in answers[1:]] == ["1 step is ahead of it.", "2 steps are ahead of it."]


def test_other_queues_are_not_ahead(play: Play, ask: Any) -> None:
    play.beat()
    play.submit("doomed", params={})
    assert ask(play.submit("line"))["ahead"] == 0


def test_a_very_long_queue_is_not_counted_to_its_end(play: Play, ask: Any) -> None:
    play.beat()
    play.submit("fan")
    play.complete(play.begin(), items=items(1200))
    answer = ask(play.submit("line"))
    assert answer["ahead"] == 1000
    assert answer["message"] == "More than 1000 steps are ahead of it."


def test_before_a_retry_it_says_when_and_why(play: Play, ask: Any) -> None:
    job = play.submit("line")
    play.fail(play.begin(), "provider_busy", retry_in=60)
    answer = ask(job)
    assert (answer["reason"], answer["code"]) == ("retry", "provider_busy")
    assert answer["message"].endswith("UTC. It is provider_busy.")
    assert answer["until"] is not None


def test_while_it_is_worked_on_it_waits_for_nothing(play: Play, ask: Any) -> None:
    job = play.submit("line")
    play.begin()
    assert ask(job) is None


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
def test_when_it_is_over_it_waits_for_nothing(play: Play, ask: Any, end: str) -> None:
    job = play.submit("line")
    if end == "cancelled":
        play.cancel(job)
    elif end == "failed":
        play.fail(play.begin())
    else:
        play.finish_all()
    assert ask(job) is None


def test_another_tenants_job_gives_nothing(play: Play, ask: Any) -> None:
    foreign = play.submit("line", tenant_id=play.add_tenant())
    assert ask(foreign) is None
    assert ask(foreign, UUID(int=1)) is None


def test_an_unknown_job_gives_nothing(ask: Any) -> None:
    assert ask(UUID(int=7)) is None
