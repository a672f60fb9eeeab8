"""What must not be cannot be written, whoever writes it."""

from __future__ import annotations

from typing import LiteralString
from uuid import UUID

import psycopg
import pytest
import sample_pipelines
from ledger_play import Play, broken

from tasks import ledger
from tasks.pipeline import Pipeline

JOBS: dict[str, LiteralString] = {
    "an unknown status": "status = 'done'",
    "a failure without a code": "status = 'failed', finished_at = now()",
    "a code without a failure": "error_code = 'x', error_message = 'X.'",
    "a code without a sentence": "status = 'failed', error_code = 'x', finished_at = now()",
    "an end without a time": "status = 'completed'",
    "a time without an end": "finished_at = now()",
    "more than everything": "percent = 101",
    "less than nothing": "percent = -1",
    "negative progress": "progress_current = -1",
}
RUNS: dict[str, LiteralString] = {
    "an unknown status": "status = 'done'",
    "queued without a queue job": "queue_job_id = null",
    "running without a worker": "status = 'running'",
    "a worker without running": "worker_id = gen_random_uuid()",
    "waiting without a time": "status = 'retrying', queue_job_id = null",
    "a time without waiting": "due_at = now()",
    "completed without a result": "status = 'completed', queue_job_id = null, finished_at = now()",
    "failed without a code": "status = 'failed', queue_job_id = null, finished_at = now()",
    "cancelled with a queue job": "status = 'cancelled', finished_at = now()",
    "an end without a time": "status = 'cancelled', queue_job_id = null",
    "a time without an end": "finished_at = now()",
    "a negative item": "item = -1",
}


@pytest.mark.parametrize("impossible", JOBS)
def test_a_job_cannot_be(play: Play, impossible: str) -> None:
    play.submit("line")
    with broken(play.connection):
        play.connection.execute("update jobs set " + JOBS[impossible])


@pytest.mark.parametrize("impossible", RUNS)
def test_a_step_run_cannot_be(play: Play, impossible: str) -> None:
    play.submit("line")
    with broken(play.connection):
        play.connection.execute("update job_steps set " + RUNS[impossible])


def test_a_step_and_item_exist_once_per_job(play: Play) -> None:
    play.submit("line")
    with broken(play.connection, "job_steps_job_id_step_item_key"):
        play.connection.execute(
            "insert into job_steps (job_id, tenant_id, step, status, queue, created_at)"
            " select job_id, tenant_id, step, 'pending', queue, now() from job_steps"
        )


def test_no_more_items_can_be_completed_than_there_are(play: Play) -> None:
    play.submit("line")
    with broken(play.connection):
        play.connection.execute("update job_step_totals set completed = 2")


def test_a_step_is_finished_exactly_when_all_its_runs_are(play: Play) -> None:
    play.submit("line")
    for change in ("completed = 1", "finished_at = now()"):
        with broken(play.connection):
            play.connection.execute("update job_step_totals set " + change)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", ["kind = 'gossip'", "seq = 0", "seq = null"])
def test_an_event_cannot_be(play: Play, change: LiteralString) -> None:
    play.submit("line")
    with broken(play.connection):
        play.connection.execute("update job_events set " + change)


def test_an_event_number_exists_once_per_job(play: Play) -> None:
    play.submit("line")
    with broken(play.connection, "job_events_pkey"):
        play.connection.execute("insert into job_events select * from job_events")


def test_a_large_value_cannot_live_in_the_ledger(play: Play) -> None:
    play.submit("line")
    with broken(play.connection):
        play.complete(play.begin(), "x" * 17_000)


def test_a_result_cannot_be_both_value_and_pointer_or_neither(play: Play) -> None:
    play.submit("line")
    play.complete(play.begin())
    for change in ("value = null", "blob = '{}'"):
        with broken(play.connection):
            play.connection.execute("update step_results set " + change)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", ["sha256 = 'x'", "bytes = 0", "title = ''", "kind = '../x'", "status = 'gone'"])
def test_a_document_cannot_be(play: Play, change: LiteralString) -> None:
    play.add_document()
    with broken(play.connection):
        play.connection.execute("update documents set " + change)


def test_a_member_has_one_of_four_roles(play: Play) -> None:
    with broken(play.connection):
        play.connection.execute("update members set role = 'admin'")


def test_deleting_a_tenant_takes_everything_of_it(play: Play) -> None:
    play.submit("reading", params={}, document_id=play.add_document())
    play.complete(play.begin())
    play.fail(play.begin())
    play.connection.execute("delete from tenants where id = %s", [play.tenant])
    tables = ("jobs", "job_steps", "job_events", "step_results", "artifacts", "members", "job_step_totals")
    left = [play.one("select count(*) from " + table + " where tenant_id = %s", play.tenant) for table in tables]  # type: ignore[arg-type]
    assert left == [0] * len(tables)


def test_ids_born_in_sql_are_of_version_seven_and_sort_by_birth(play: Play) -> None:
    ids: list[UUID] = play.one("select array_agg(ledger.uuid7()) from generate_series(1, 100)")
    assert {(one.version, one.variant) for one in ids} == {(7, "specified in RFC 4122")}
    assert len(set(ids)) == 100
    milliseconds = [one.int >> 80 for one in ids]
    assert milliseconds == sorted(milliseconds)
    assert abs(milliseconds[0] - play.one("select (extract(epoch from clock_timestamp()) * 1000)::bigint")) < 5000


def test_the_clock_of_the_ledger_can_be_moved_for_one_transaction(play: Play) -> None:
    play.pass_time(3600)
    assert play.one("select ledger.now() - clock_timestamp() > interval '59 min'")
    assert play.events(play.submit("line"))[0]["at"] > play.one("select clock_timestamp() + interval '59 min'")
    play.pass_time(0)
    assert play.one("select ledger.now() - clock_timestamp() < interval '1 min'")


# Publishing -------------------------------------------------------------------------------------------


def test_publishing_twice_changes_nothing(play: Play) -> None:
    before = play.all("select * from pipeline_steps order by graph, position")
    ledger.publish(play.connection, [sample_pipelines.line], "again")
    assert play.all("select * from pipeline_steps order by graph, position") == before
    assert [row["name"] for row in ledger.current_pipelines(play.connection)] == ["line"]


def test_a_retired_pipeline_comes_back_when_it_is_published_again(play: Play) -> None:
    ledger.publish(play.connection, [sample_pipelines.one], "without line")
    ledger.publish(play.connection, [sample_pipelines.line], "with line")
    assert play.send("line").created


def test_a_published_graph_says_what_a_job_needs(play: Play) -> None:
    ledger.publish(play.connection, [sample_pipelines.reading], "tests")
    (current,) = ledger.current_pipelines(play.connection)
    assert (current["name"], current["accepts"]) == ("reading", ["txt", "md"])
    steps = play.all("select * from pipeline_steps where graph = %s order by position", current["graph"])
    assert [(step["name"], step["inputs"], step["takes"]) for step in steps] == [
        ("measure", [], ["source", "context"]),
        ("publish", ["measure"], ["document", "context"]),
    ]


def test_a_changed_pipeline_keeps_its_old_graph_for_jobs_in_flight(play: Play) -> None:
    def release(*names: str) -> Pipeline:
        growing = Pipeline("growing", title="Grows")
        for name in names:

            async def body() -> int:
                return 1

            body.__name__ = name
            growing.step(stage="parsing", queue="llm")(body)
        return growing

    ledger.publish(play.connection, [release("one")], "old")
    old = play.submit("growing", params={})
    ledger.publish(play.connection, [release("one", "two")], "new")
    new = play.submit("growing", params={"mark": 1})
    play.finish_all()
    assert [len(play.runs(job)) for job in (old, new)] == [1, 2]
    assert {play.job(job)["status"] for job in (old, new)} == {"completed"}


def test_a_pipeline_without_steps_cannot_be_published(play: Play) -> None:
    with pytest.raises(psycopg.errors.IntegrityError), play.connection.transaction():
        ledger.publish(play.connection, [Pipeline("empty", title="Nothing")], "tests")
