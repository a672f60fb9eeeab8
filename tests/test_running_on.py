"""Running on: where there is room, the step that follows is begun by the transaction that settles the one before."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from ledger_play import Play, items
from psycopg_pool import AsyncConnectionPool
from waiting import until
from worker_process import House

from tasks.db import statement_connection
from tasks.engine import desk as desks
from tasks.engine.attempt import Attempt
from tasks.engine.desk import Desk
from tasks.engine.runner import Runner
from tasks.sandbox import Sandbox
from tasks.settings import load
from tasks.storage import open_storage


def test_a_job_goes_through_all_its_steps_without_being_queued_again(play: Play) -> None:
    job = play.submit("line")
    work = play.begin()
    for step in ("second", "third"):
        (work,) = play.run_on(work)
        assert (work["step"], work["attempt"]) == (step, 1)
        (row,) = play.queue()
        assert (row["status"], row["args"]["step_run"]) == ("doing", work["step_run"])
        assert (play.run(job, step)["status"], play.run(job, step)["worker_id"]) == ("running", play.worker)
        assert play.drift() == []
    assert work["inputs"] == {"second": {"value": {"value": 1}, "blob": None}}
    assert play.run_on(work) == [True]
    assert play.kinds(job) == ["submitted", "started", *["step_started", "step_completed"] * 3, "completed"]
    assert [event["seq"] for event in play.events(job)] == list(range(1, 10))
    assert play.queue() == play.drift() == []


def test_what_is_run_on_with_is_what_a_claim_would_have_given(play: Play) -> None:
    play.submit("line", params={"mark": "a"})
    (gone_on,) = play.run_on(play.begin())
    play.submit("line", params={"mark": "b"})
    assert play.run_on(play.begin(), queues=()) == [True]
    claimed = play.begin()
    same = gone_on.keys() - {"step_run", "job", "age_s", "params"}
    assert gone_on.keys() == claimed.keys()
    assert {name: gone_on[name] for name in same} == {name: claimed[name] for name in same}


def test_each_of_a_group_goes_on_with_its_own_job(play: Play) -> None:
    for mark in "abc":
        play.submit("line", params={"mark": mark})
    works = play.begin_all()
    stale = works[1] | {"attempt": 9}
    first, second, third = play.run_on(works[0], stale, works[2])
    assert (first["job"], second, third["job"]) == (works[0]["job"], False, works[2]["job"])


@pytest.mark.parametrize("case", ["no room", "other queue", "queue is paused", "queue is slowed", "tenant is paused"])
def test_without_room_or_leave_what_follows_is_queued_or_held(play: Play, case: str) -> None:
    job = play.submit("line")
    work = play.begin()
    if case == "queue is paused":
        play.one("select ledger.pause('queue', 'llm', '')")
    elif case == "queue is slowed":
        play.connection.execute(
            "insert into ops.slowdowns (queue, until, reason) values ('llm', now() + interval '1 hour', '')"
        )
    elif case == "tenant is paused":
        play.one("select ledger.pause('tenant', %s, '')", str(play.tenant))
    queues = {"no room": (), "other queue": ("cpu",)}.get(case, ("llm",))
    assert play.run_on(work, queues=queues) == [True]
    held = case == "tenant is paused"
    assert play.statuses(job, "second") == ["held" if held else "queued"]
    assert [row["status"] for row in play.queue()] == ([] if held else ["todo"])
    assert play.drift() == []


def test_of_two_that_follow_none_is_preferred(play: Play) -> None:
    job = play.submit("diamond")
    assert play.run_on(play.begin()) == [True]
    assert play.statuses(job, "left") == play.statuses(job, "right") == ["queued"]


def test_the_join_of_a_map_follows_the_last_of_its_items(play: Play) -> None:
    play.submit("fan")
    play.complete(play.begin(), items=items(3))
    one, two, three = play.begin_all()
    assert play.run_on(one) == [True]
    first, last = play.run_on(two, three)
    assert (first, last["step"]) == (True, "total")
    assert play.drift() == []


def test_a_worker_without_a_free_slot_lets_the_others_have_their_turn(house: House) -> None:
    loud = house.play.submit("line")
    quiet = house.play.submit("line", tenant_id=house.play.add_tenant())
    house.start(worker_concurrency=1)
    assert house.finish(loud, quiet) == ["completed", "completed"]
    started = house.play.all("select job_id from job_events where kind = 'step_started' order by at")
    assert [event["job_id"] for event in started] == [loud, quiet] * 3


def test_a_worker_with_room_takes_a_job_through_with_a_single_claim(house: House) -> None:
    job = house.play.submit("line")
    house.start(worker_concurrency=4)  # one may be at the hourly chore
    assert house.finish(job) == ["completed"]
    until(lambda: house.play.all("select from ops.pickups where queue = 'llm'"))
    assert house.play.one("select counted from ops.pickups where queue = 'llm'") == 1
    house.assert_whole(job)


@pytest.mark.parametrize("moment", ["on its way", "answered"])
def test_what_was_begun_for_a_worker_that_was_stopped_meanwhile_is_given_back(
    real_play: Play, database_url: str, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The attempt is cancelled while its result is on the way, or in the moment in which the answer arrives; nobody is
    left to run what the answer brings."""
    job = real_play.submit("line")
    attempt = Attempt.from_work(real_play.begin())
    tell = desks._tell

    async def scene() -> None:
        async with AsyncConnectionPool(database_url, kwargs=statement_connection(), open=False) as pool:
            desk = Desk(pool, real_play.worker)
            result = {"digest": "0" * 64, "value": {"value": 1}}
            handing_in = asyncio.create_task(desk.complete(attempt, result, None, ["llm"]))
            await asyncio.sleep(0)
            if moment == "on its way":
                handing_in.cancel()
            else:
                monkeypatch.setattr(desks, "_tell", lambda *told: (tell(*told), handing_in.cancel()))
            await asyncio.gather(handing_in, return_exceptions=True)
            assert handing_in.cancelled()
            assert desk._committing is not None
            await desk._committing

    asyncio.run(scene())
    assert real_play.statuses(job, "second") == ["queued"]
    assert real_play.kinds(job)[-2:] == ["step_started", "step_released"]
    assert real_play.drift() == []


def test_a_beat_that_crosses_an_answer_stops_nothing(real_play: Play, database_url: str, tmp_path: Path) -> None:
    """The ledger has settled the attempt already, so a beat that was sent before is told that it no longer runs."""
    job = real_play.submit("line")
    attempt = Attempt.from_work(real_play.begin())
    ran: list[str] = []

    class CrossedDesk(Desk):
        async def _persist(self, outcomes: list[dict[str, Any]]) -> list[Any]:
            answers = await super()._persist(outcomes)
            ran.extend(runner.held)
            runner.revoke([UUID(step_run) for step_run in runner.held])
            return answers

    async def scene() -> None:
        nonlocal runner
        settings = load(database_url=database_url, link_secret="x" * 32, storage_path=tmp_path,
                        pipelines="sample_pipelines")  # fmt: skip
        async with (
            AsyncConnectionPool(database_url, kwargs=statement_connection(), open=False) as pool,
            Sandbox(1) as sandbox,
        ):
            runner = Runner(settings, CrossedDesk(pool, real_play.worker), open_storage(settings), sandbox)
            await runner.run(attempt, lambda: ["llm"])

    runner: Runner
    asyncio.run(scene())
    assert len(ran) == 3
    assert real_play.job(job)["status"] == "completed"
    assert "step_released" not in real_play.kinds(job)
    assert real_play.drift() == []
