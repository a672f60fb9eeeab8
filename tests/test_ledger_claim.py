"""Claiming is beginning: the attempt gets its number, the job leaves `queued`, and what cannot begin is withdrawn."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import psycopg
from ledger_play import Play, items
from psycopg.rows import dict_row

from tasks import ledger
from tasks.pipeline import Pipeline


def test_claiming_begins_the_attempt_and_moves_the_job_out_of_queued(play: Play) -> None:
    job = play.submit("line")
    (row,) = play.claim()
    run = play.run(job, "first")
    assert (run["status"], run["attempt"], run["worker_id"]) == ("running", 1, play.worker)
    assert run["queue_job_id"] == row["id"]
    assert run["started_at"] is not None
    assert (play.job(job)["status"], play.job(job)["stage"]) == ("running", "parsing")
    assert play.job(job)["started_at"] is not None
    assert play.kinds(job) == ["submitted", "started", "step_started"]
    assert play.drift() == []


def test_a_claimed_queue_job_is_taken_and_described(play: Play) -> None:
    play.submit("line")
    (row,) = play.claim()
    (queued,) = play.queue()
    assert queued["status"] == "doing"
    assert (row["id"], row["status"], row["task_name"], row["queue_name"]) == (queued["id"], "doing", "run_step", "llm")


def test_the_event_of_a_start_says_step_item_and_attempt(play: Play) -> None:
    job = play.submit("fan")
    play.complete(play.begin(), items=items(2))
    play.begin()
    event = play.events(job)[-1]
    assert (event["kind"], event["step"], event["item"], event["attempt"]) == ("step_started", "double", 0, 1)
    assert event["stage"] == "analyzing"


def test_work_holds_what_the_attempt_needs(play: Play) -> None:
    document = play.add_document("Once upon a time.")
    job = play.submit("reading", document_id=document, params={})
    work = play.begin()
    assert (work["job"], work["tenant"], work["pipeline"]) == (str(job), str(play.tenant), "reading")
    assert (work["step"], work["attempt"], work["failures"]) == ("measure", 1, 0)
    assert work["document"]["kind"] == "txt"
    assert work["document"]["blob"]["bytes"] == len("Once upon a time.")
    assert (work["item"], work["previous_error"], work["reuse"], work["mapped"]) == (None, None, None, False)


def test_work_holds_the_outputs_of_the_steps_before(play: Play) -> None:
    play.submit("diamond")
    play.complete(play.begin(), 1)
    play.complete(play.begin(), 2)
    play.complete(play.begin(), blob={"sha256": "a" * 64, "bytes": 9000})
    inputs = play.begin()["inputs"]
    assert inputs["left"] == {"value": {"value": 2}, "blob": None}
    assert inputs["right"]["blob"] == {"sha256": "a" * 64, "bytes": 9000}


def test_the_outputs_of_items_are_gathered_apart_because_they_can_be_many(play: Play) -> None:
    job = play.submit("fan")
    play.complete(play.begin(), items=items(3))
    for work in reversed(play.begin_all()):
        play.complete(work, work["item"])
    assert play.begin()["inputs"] == {"double": {"gather": True}}
    gathered = play.all("select value from ledger.gather(%s, 'double')", job)
    assert [row["value"] for row in gathered] == [{"value": 0}, {"value": 1}, {"value": 2}]


def test_nothing_is_claimed_from_an_empty_queue(play: Play) -> None:
    assert play.claim(most=10) == []


def test_a_second_claim_does_not_get_what_the_first_has(play: Play) -> None:
    play.submit("line")
    assert len(play.claim()) == 1
    assert play.claim() == []


def test_only_the_named_queues_are_claimed_from(play: Play) -> None:
    play.submit("line")
    play.submit("doomed", params={})
    assert play.claim(["media", "maintenance"], most=10) == []
    assert [row["queue_name"] for row in play.claim(["cpu", "media"], most=10)] == ["cpu"]
    assert [row["queue_name"] for row in play.claim(["llm"], most=10)] == ["llm"]


def test_no_more_is_claimed_than_was_asked_for(play: Play) -> None:
    for _ in range(5):
        play.submit("line")
    assert len(play.claim(most=2)) == 2
    assert len(play.claim(most=10)) == 3


def test_higher_priority_comes_first_and_equals_come_in_order(play: Play) -> None:
    jobs = [str(play.submit("line")) for _ in range(4)]
    third = play.run(UUID(jobs[2]), "first")["queue_job_id"]
    play.connection.execute("update procrastinate.procrastinate_jobs set priority = 5 where id = %s", [third])
    assert [play.begin()["job"] for _ in range(4)] == [jobs[2], jobs[0], jobs[1], jobs[3]]


def test_a_queue_job_scheduled_for_later_is_left(play: Play) -> None:
    play.submit("line")
    play.connection.execute("update procrastinate.procrastinate_jobs set scheduled_at = now() + interval '1 hour'")
    assert play.claim() == []


def test_a_queue_job_of_a_step_run_that_no_longer_waits_is_deleted(play: Play) -> None:
    kept = play.submit("line")
    job = play.submit("line")
    (first,) = [row for row in play.queue() if row["id"] == play.run(job, "first")["queue_job_id"]]
    play.cancel(job)
    play.connection.execute(
        "insert into procrastinate.procrastinate_jobs (id, queue_name, task_name, args, priority)"
        " select %s, 'llm', 'run_step', %s, 9",
        [first["id"], psycopg.types.json.Jsonb(first["args"])],
    )
    assert [row["work"]["job"] for row in play.claim(most=10)] == [str(kept)]
    assert len(play.queue()) == 1
    assert play.job(job)["status"] == "cancelled"
    assert play.kinds(job)[-1] == "cancelled"


def test_a_second_queue_job_of_a_step_run_is_deleted_when_it_is_claimed(play: Play) -> None:
    job = play.submit("line")
    args = play.queue()[0]["args"]
    play.connection.execute(
        "insert into procrastinate.procrastinate_jobs (queue_name, task_name, args, priority)"
        " values ('llm', 'run_step', %s, 9)",
        [psycopg.types.json.Jsonb(args)],
    )
    assert len(play.claim(most=10)) == 1
    assert len(play.queue()) == 1
    assert play.run(job, "first")["attempt"] == 1


def test_chores_are_claimed_without_work(play: Play) -> None:
    play.connection.execute(
        "insert into procrastinate.procrastinate_jobs (queue_name, task_name) values ('llm', 'chore')"
    )
    (row,) = play.claim()
    assert (row["task_name"], row["work"]) == ("chore", None)


def test_a_claim_passes_over_what_another_is_claiming(real_play: Play, database_url: str) -> None:
    first, second = real_play.submit("line"), real_play.submit("line")
    with psycopg.connect(database_url, row_factory=dict_row) as other:
        other.execute("select from procrastinate.procrastinate_jobs order by id limit 1 for update").fetchall()
        assert real_play.begin()["job"] == str(second)
        assert real_play.claim() == []
        other.rollback()
    assert real_play.begin()["job"] == str(first)


def test_several_items_of_one_job_are_begun_in_one_claim(play: Play) -> None:
    job = play.submit("fan")
    play.complete(play.begin(), items=items(5))
    assert [work["item"] for work in play.begin_all(3)] == [0, 1, 2]
    assert play.statuses(job, "double") == ["running"] * 3 + ["queued"] * 2
    assert [event["seq"] for event in play.events(job)] == list(range(1, 8))


def test_what_is_claimed_comes_and_is_told_in_the_order_of_the_queue(play: Play) -> None:
    job = play.submit("fan")
    play.complete(play.begin(), items=items(5))
    play.connection.execute("update procrastinate.procrastinate_jobs set priority = 2 * id % 5")
    queued = play.all(
        "select (args ->> 'step_run')::uuid as id from procrastinate.procrastinate_jobs order by priority desc"
    )
    items_queued = [play.one("select item from job_steps where id = %s", row["id"]) for row in queued]
    assert [work["item"] for work in play.begin_all()] == items_queued != sorted(items_queued)
    started = [
        event["item"] for event in play.events(job) if event["kind"] == "step_started" and event["step"] == "double"
    ]
    assert started == items_queued


def test_claims_of_several_workers_are_told_apart(play: Play) -> None:
    job = play.submit("fan")
    play.complete(play.begin(), items=items(2))
    other = uuid4()
    play.begin()
    play.begin(worker=other)
    assert {run["worker_id"] for run in play.runs(job, "double")} == {play.worker, other}


# What makes two step runs the same work -------------------------------------------------------------


def _identities(play: Play, *requests: dict[str, Any]) -> set[str]:
    found = set()
    for request in requests:
        job = play.submit(**request)
        (work,) = play.begin_all()
        found.add(play.run(job, work["step"])["identity"])
        play.cancel(job)
    return found


def test_equal_parameters_make_the_same_work(play: Play) -> None:
    request = {"pipeline": "one", "params": {"width": 1}}
    assert len(_identities(play, request, request)) == 1


def test_other_parameters_make_other_work(play: Play) -> None:
    assert len(_identities(play, *({"pipeline": "one", "params": {"width": width}} for width in (1, 2)))) == 2


def test_other_pipelines_make_other_work(play: Play) -> None:
    assert len(_identities(play, *({"pipeline": name, "params": {}} for name in ("one", "line", "diamond")))) == 3


def test_the_content_of_a_document_makes_the_work_and_not_its_name(play: Play) -> None:
    def reading(document: UUID) -> dict[str, Any]:
        return {"pipeline": "reading", "params": {}, "document_id": document}

    original, copy, other = (play.add_document(text) for text in ("same", "same", "other"))
    play.connection.execute("update documents set title = 'Another title' where id = %s", [copy])
    assert len(_identities(play, reading(original), reading(copy))) == 1
    assert len(_identities(play, reading(original), reading(other))) == 2


def test_a_new_version_of_a_step_makes_other_work(play: Play) -> None:
    def pipeline(version: int) -> Pipeline:
        changing = Pipeline("changing", title="Changes")

        @changing.step(stage="parsing", queue="llm", version=version)
        async def only() -> int:
            return version

        return changing

    seen = set()
    for version in (1, 2):
        ledger.publish(play.connection, [pipeline(version)], "tests")
        seen |= _identities(play, {"pipeline": "changing", "params": {}})
    assert len(seen) == 2


def test_other_inputs_make_other_work(play: Play) -> None:
    seen = set()
    for value in (1, 1, 2):
        job = play.submit("line")
        play.complete(play.begin(), value)
        work = play.begin()
        seen.add(play.run(job, work["step"])["identity"])
        play.cancel(job)
    assert len(seen) == 2
