"""With tens of thousands of jobs in the ledger, what happens all the time reads a few rows and never a whole table."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest
import sample_pipelines
from ledger_play import Play, items
from psycopg.rows import dict_row

from tasks import ledger
from tasks.db import statement

# With PLANS_SCALE=25 there are half a million jobs queued and as many over; filling takes minutes.
SCALE = int(os.environ.get("PLANS_SCALE") or 1)

FILL: LiteralString = """
create temp table tenant as
select row_number() over () - 1 as nr, ledger.uuid7() as id from generate_series(1, 20);
insert into tenants (id, name) select id, 'Tenant ' || nr from tenant;

create temp table bulk as
select n, ledger.uuid7() as job, ledger.uuid7() as run, t.id as tenant, g.digest as graph, s.name as step,
       case when n < 20000 * scale then 'queued' when n < 40000 * scale then 'completed' else 'retrying' end as status
from (select current_setting('test.scale')::integer as scale) given, generate_series(0, 45000 * scale - 1) n
join tenant t on t.nr = n % 20
cross join (select g.* from pipelines p join pipeline_graphs g on g.digest = p.graph where p.name = 'line') g
join pipeline_steps s on s.graph = g.digest and s.position = 1;

insert into jobs (id, tenant_id, pipeline, graph, params, status, percent, total_weight, natural_key, payload_digest,
                  last_seq, created_at, started_at, finished_at, updated_at)
select job, tenant, 'line', graph, jsonb_build_object('mark', n),
       case status when 'retrying' then 'running' else status end, case status when 'completed' then 100 else 0 end, 3,
       'natural ' || n, 'payload ' || n, 3, now(), now(), case when status = 'completed' then now() end, now()
from bulk;
insert into step_results (id, tenant_id, identity, digest, value)
select run, tenant, encode(sha256(n::text::bytea), 'hex'), repeat('d', 64), '1' from bulk where status = 'completed';
insert into job_steps (id, job_id, tenant_id, step, status, queue, priority, queue_job_id, result_id, due_at,
                       created_at, queued_at, finished_at, attempt, identity)
select run, job, tenant, step, status, case when n % 2 = 0 then 'llm' else 'cpu' end, -n,
       case when status = 'queued' then nextval('procrastinate.procrastinate_jobs_id_seq') end,
       case when status = 'completed' then run end, case when status = 'retrying' then now() + interval '1 hour' end,
       now(), now(), case when status = 'completed' then now() end, 1, encode(sha256(n::text::bytea), 'hex')
from bulk;
insert into job_step_totals (job_id, tenant_id, step, total, completed, opened_at, finished_at)
select job, tenant, step, 1, (status = 'completed')::int, now(), case when status = 'completed' then now() end
from bulk;
insert into job_events (job_id, seq, tenant_id, at, kind)
select job, seq, tenant, now(), (array['submitted', 'started', 'step_started'])[seq]
from bulk, generate_series(1, 3) seq;
insert into artifacts (job_id, tenant_id, step, name, media_type, bytes, sha256, created_at)
select job, tenant, step, 'a.txt', 'text/plain', 1, repeat('a', 64), now() from bulk where status = 'completed';
insert into reviews (job_id, tenant_id, pipeline, step, step_run, status, opened_at, decided_at)
select job, tenant, 'line', step, run, case status when 'retrying' then 'open' else 'approved' end, now(),
       case when status <> 'retrying' then now() end
from bulk where status <> 'queued';
insert into procrastinate.procrastinate_jobs (id, queue_name, task_name, priority, args)
select queue_job_id, queue, 'run_step', priority, ledger.queue_args(id, tenant_id)
from job_steps where status = 'queued';
"""

READ: LiteralString = """
select relname, seq_tup_read::bigint as scanned, coalesce(idx_tup_fetch, 0)::bigint as fetched
from pg_stat_xact_user_tables where seq_tup_read + coalesce(idx_tup_fetch, 0) > 0
"""


def fill(connection: psycopg.Connection[Any], more: LiteralString = "") -> None:
    """What a ledger holds that has been used for a while."""
    connection.execute("select set_config('test.scale', %s, true)", [str(SCALE)])
    connection.execute(FILL + more)


@pytest.fixture(scope="module")
def full_database(module_database_url: str) -> str:
    """A ledger that has been used for a while."""
    with psycopg.connect(module_database_url, row_factory=dict_row) as connection:
        Play(connection)
        fill(connection)
        connection.commit()
        connection.autocommit = True
        connection.execute("vacuum analyze")
    return module_database_url


@pytest.fixture
def crowd(full_database: str) -> Iterator[Play]:
    """Somebody who plays in it, in a transaction that is rolled back."""
    with psycopg.connect(full_database, row_factory=dict_row) as connection:
        yield Play(connection)
        connection.rollback()


@dataclass
class Reading:
    """Rows read by the worst of several calls, by table."""

    scanned: dict[str, int]  # from end to end
    fetched: dict[str, int]  # through an index


def rows_read(play: Play, act: Callable[[], Any], times: int = 8) -> Reading:
    """Call several times: the later calls use generic plans, if those seem good."""
    worst = Reading({}, {})
    for _ in range(times):
        before = {row["relname"]: row for row in play.all(READ)}
        act()
        for row in play.all(READ):
            was = before.get(row["relname"], {"scanned": 0, "fetched": 0})
            for way in ("scanned", "fetched"):
                rows = getattr(worst, way)
                rows[row["relname"]] = max(rows.get(row["relname"], 0), row[way] - was[way])
    return worst


# Tables that stay small, whatever the number of jobs.
SMALL = {"pipelines", "pipeline_graphs", "pipeline_steps", "tenants", "members", "workers", "chores", "pauses",
         "pickups", "slowdowns", "shares", "job_sizes", "limits", "tenant_limits", "tenant_loads",
         "counts", "sweep_reach"}  # fmt: skip


def assert_short(reading: Reading, fetched: int = 300) -> None:
    assert {table: rows for table, rows in reading.scanned.items() if rows and table not in SMALL} == {}
    assert max(reading.scanned.values(), default=0) < 2000, reading
    assert {table: rows for table, rows in reading.fetched.items() if rows > fetched} == {}


def hurry(play: Play, newest: int) -> None:
    """Move the newest queue jobs to the head of the queue."""
    play.connection.execute(
        "update procrastinate.procrastinate_jobs set priority = 9"
        " where id > (select max(id) - %s from procrastinate.procrastinate_jobs)",
        [newest],
    )


def take(play: Play, most: int) -> list[Any]:
    """The work of the first queue jobs of the queue that `hurry` is about."""
    return [row["work"] for row in play.claim(["llm"], most)]


def sign_in(play: Play, tenant: UUID) -> None:
    """Go on as a member of a tenant."""
    user = uuid4()
    play.connection.execute("insert into members values (%s, %s, 'viewer')", [tenant, user])
    claims = json.dumps({"sub": str(user)})
    play.all("select set_config('role', 'authenticated', true), set_config('request.jwt.claims', %s, true)", claims)


def line(play: Play) -> UUID:
    return play.submit("line")


def test_the_look_at_the_counters_finds_reading_of_a_whole_table(crowd: Play) -> None:
    whole = rows_read(crowd, lambda: crowd.all("select count(*) from jobs where params ->> 'mark' = 'x'"), times=1)
    assert whole.scanned["jobs"] >= 45_000 * SCALE
    many = rows_read(
        crowd, lambda: crowd.all("select sum(attempt) from job_steps where status = 'queued' and queue = 'cpu'")
    )
    assert many.fetched["job_steps"] + many.scanned["job_steps"] >= 10_000


def test_submitting_is_short(crowd: Play) -> None:
    assert_short(rows_read(crowd, lambda: line(crowd)))


@pytest.mark.parametrize("end", ["submit", "retry"])
def test_holding_a_tenant_of_many_jobs_to_its_limits_is_short(crowd: Play, end: str) -> None:
    crowd.tenant = crowd.one("select tenant_id from jobs where finished_at is null limit 1")
    crowd.all("select ledger.release_limits(%s, 10000000000, 1000000)", 10_000 * SCALE)
    failed = [line(crowd) for _ in range(8)]
    crowd.all("update jobs set status = 'failed', error_code = 'x', error_message = 'x', finished_at = now()"
              " where id = any(%s) returning 1", failed)  # fmt: skip
    # Known as of now, for as long as this test takes.
    for table in ("tenant_loads", "counts"):
        assert crowd.all("update ops." + table + " set good_until = good_until + interval '1 hour' returning 1")
    acts = {"submit": lambda: line(crowd), "retry": lambda: crowd.retry(failed.pop())}
    assert_short(rows_read(crowd, acts[end]))


def test_counting_a_tenants_jobs_and_bytes_reads_nothing_of_others(crowd: Play) -> None:
    crowd.tenant = crowd.one("select tenant_id from jobs where finished_at is null limit 1")
    asks: tuple[LiteralString, ...] = ("ledger.active_jobs(%s, 1000000)", "ledger.stored_bytes(%s)")
    for ask in asks:
        crowd.pass_time(100)
        reading = rows_read(crowd, functools.partial(crowd.all, "select " + ask, crowd.tenant), times=1)
        assert {table for table, rows in reading.scanned.items() if rows} <= SMALL
        assert sum(reading.fetched.values()) < 6000


def test_finding_the_like_of_a_request_is_short(crowd: Play) -> None:
    crowd.submit("line", params={"width": 1})
    crowd.submit("line", params={"width": 1}, idempotency_key="k")
    assert_short(rows_read(crowd, lambda: crowd.submit("line", params={"width": 1})))
    assert_short(rows_read(crowd, lambda: crowd.submit("line", params={"width": 1}, idempotency_key="k")))


@pytest.mark.parametrize("queues", [["llm"], ["cpu"], ["cpu", "llm", "media", "maintenance"]])
@pytest.mark.parametrize("most", [1, 8])
def test_claiming_is_short(crowd: Play, queues: list[str], most: int) -> None:
    def claim() -> None:
        assert len(crowd.claim(queues, most)) == most

    assert_short(rows_read(crowd, claim))


def test_claiming_from_an_empty_queue_beside_full_ones_is_short(crowd: Play) -> None:
    assert_short(rows_read(crowd, lambda: crowd.claim(["media"], 8)))


@pytest.mark.parametrize("end", ["complete", "run on", "fail", "retry", "release", "report"])
def test_settling_an_attempt_is_short(crowd: Play, end: str) -> None:
    works = crowd.begin_all(8)
    ends: dict[str, Callable[[Any], Any]] = {
        "complete": crowd.complete,
        "run on": lambda work: crowd.run_on(work)[0],
        "fail": crowd.fail,
        "retry": lambda work: crowd.fail(work, retry_in=5),
        "release": crowd.release,
        "report": lambda work: crowd.report(work, 1, 2),
    }

    def settle() -> None:
        assert ends[end](works.pop())

    assert_short(rows_read(crowd, settle))


def test_completing_items_of_a_wide_map_is_short(crowd: Play) -> None:
    crowd.submit("fan")
    hurry(crowd, 1)
    crowd.complete(*take(crowd, 1), items=items(500))
    hurry(crowd, 500)
    works = take(crowd, 8)
    assert {work["step"] for work in works} == {"double"}
    assert_short(rows_read(crowd, lambda: crowd.complete(works.pop())))


@pytest.mark.parametrize("end", ["cancel", "retry"])
def test_what_people_ask_for_is_short(crowd: Play, end: str) -> None:
    jobs = [line(crowd) for _ in range(8)]
    if end == "retry":
        hurry(crowd, 8)
        for work in take(crowd, 8):
            crowd.fail(work)
    assert_short(rows_read(crowd, lambda: getattr(crowd, end)(jobs.pop())))


def test_taking_in_a_chunk_of_a_large_batch_is_short(crowd: Play) -> None:
    batch = crowd.add_batch(*({"params": {"mark": str(number)}} for number in range(3000)))
    crowd.connection.execute("update batch_items set outcome = 'refused', code = 'x', message = 'x' where nr < 2000")
    crowd.connection.execute(
        "insert into batches (id, tenant_id, pipeline, created_at)"
        " select ledger.uuid7(), %s, 'line', now() from generate_series(1, 5000)",
        [crowd.tenant],
    )
    crowd.connection.execute("analyze batches, batch_items")
    take: LiteralString = "select batch from ledger.take_in(%s, 30, 10, 16)"
    assert_short(rows_read(crowd, lambda: crowd.all(take, crowd.worker)))
    assert crowd.one("select count(*) from jobs where batch_id = %s", batch) == 80


def test_promoting_what_is_due_is_short(crowd: Play) -> None:
    due: LiteralString = "select id from job_steps where status = 'retrying' limit 80"
    crowd.connection.execute("update job_steps set due_at = now() where id in (" + due + ")")
    assert_short(rows_read(crowd, lambda: crowd.all("select * from ledger.promote_due(10)")))


def test_a_beat_is_short(crowd: Play) -> None:
    works = crowd.begin_all(8)
    assert_short(rows_read(crowd, lambda: crowd.beat(*works)))


def test_recovering_is_short(crowd: Play) -> None:
    crowd.beat(*crowd.begin_all(8))
    assert_short(rows_read(crowd, lambda: crowd.all("select ledger.recover_lost(30, 3)")))


def test_timing_out_looks_at_what_is_old_only(crowd: Play) -> None:
    assert_short(rows_read(crowd, lambda: crowd.all("select ledger.time_out_queued(300)")))


def test_reconciling_one_job_is_short(crowd: Play) -> None:
    job = line(crowd)
    assert_short(rows_read(crowd, lambda: crowd.reconcile(job)))


@pytest.mark.parametrize("function", ["requeue_orphans(null, 1000)", "withdraw_strays(1000)"])
def test_a_sweep_reads_no_more_than_its_window(crowd: Play, function: str) -> None:
    assert_short(rows_read(crowd, lambda: crowd.one(f"select ledger.{function}")), fetched=2_500)


def test_a_sweep_reads_nothing_from_end_to_end(crowd: Play) -> None:
    assert_short(rows_read(crowd, crowd.reconcile, times=3), fetched=60_000)


# What users read, under row-level security ---------------------------------------------------------------------------


NARROWED = ("q", "status", "kind", "uploaded_by", "keyword", "category_name", "category_value", "created_after",
            "created_before", "last_id")  # fmt: skip
QUESTIONS: dict[str, dict[str, Any]] = {
    "api_jobs": {"before": None, "status": None, "pipeline": None, "document_id": None, "batch_id": None, "most": 20},
    "api_job": {"most_ahead": 1_000},
    "api_events": {"after": 0, "most": 100},
    "api_artifacts": {"after": None, "most": 100},
    "api_documents": dict.fromkeys(NARROWED) | {"by_relevance": False, "last_relevance": 0, "most": 20},
    "api_tenant_now": {"pipeline": None, "most": 20},
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_what_a_user_asks_is_short(crowd: Play, question: str) -> None:
    job = crowd.all("select id, tenant_id from jobs where status = 'queued' limit 1")[0]
    sign_in(crowd, job["tenant_id"])
    given = {"tenant_id": job["tenant_id"], "job_id": job["id"]} | QUESTIONS[question]

    def ask() -> None:
        answer = crowd.connection.execute(statement(question), given).fetchall()
        assert answer or question == "api_documents"

    assert_short(rows_read(crowd, ask))


def test_looking_at_a_job_with_an_open_review_is_short(crowd: Play) -> None:
    job = crowd.all("select id, tenant_id from jobs where status = 'running' limit 1")[0]
    sign_in(crowd, job["tenant_id"])
    asked = {"job_id": job["id"], "tenant_id": job["tenant_id"], "most_ahead": 1_000}

    def look() -> None:
        assert crowd.connection.execute(statement("api_job"), asked).fetchall()[0]["job"]["review_id"]

    assert_short(rows_read(crowd, look))


@pytest.mark.parametrize("question", ["api_tenant_stream", "api_document_stream"])
@pytest.mark.parametrize("depth", ["the beginning", "the middle", "the end"])
def test_going_on_with_a_stream_is_short_wherever_it_stands(crowd: Play, question: str, depth: str) -> None:
    # As if each event had been written by a transaction of its own, before all that there have been.
    crowd.connection.execute(f"create temp sequence places minvalue {-10_000 * SCALE}")
    tenant = crowd.one("select tenant_id from jobs limit 1")
    crowd.all("update job_events set position = nextval('places') where tenant_id = %s returning 1", tenant)
    document = crowd.add_document(tenant=tenant)
    crowd.all("update jobs set document_id = %s where id in (select id from jobs where tenant_id = %s limit 20)"
              " returning 1", document, tenant)  # fmt: skip
    places = {"the beginning": -10_000 * SCALE, "the middle": -7_000 * SCALE, "the end": -4_000 * SCALE}
    sign_in(crowd, tenant)
    given = {"tenant_id": tenant, "document_id": document, "position": places[depth], "job_id": UUID(int=0), "seq": 0}

    def ask() -> list[Any]:
        return crowd.connection.execute(statement(question), given | {"most": 50}).fetchall()

    assert len(ask()) == 50 or depth != "the beginning"
    reading = rows_read(crowd, ask)
    reading.scanned.pop("documents", None)  # there is one
    assert_short(reading)


def test_listing_a_tenants_jobs_through_the_data_api_is_short(crowd: Play) -> None:
    tenant = crowd.one("select tenant_id from jobs limit 1")
    sign_in(crowd, tenant)
    query: LiteralString = "select * from jobs where tenant_id = %s order by id desc limit 20"
    assert_short(rows_read(crowd, lambda: crowd.all(query, tenant)))


METRICS: dict[str, dict[str, Any]] = {
    "metrics_jobs": {},
    "metrics_queues": {"lease_s": 30, "queues": ["cpu", "llm", "media", "maintenance"]},
    "metrics_chores": {},
    "metrics_attempts": {"most": 2000},
}


@pytest.mark.parametrize("question", METRICS)
def test_what_metrics_ask_is_short(crowd: Play, question: str) -> None:
    crowd.connection.execute(statement("metrics_count"))
    assert_short(rows_read(crowd, lambda: crowd.connection.execute(statement(question), METRICS[question]).fetchall()))


def test_counting_for_metrics_reads_nothing_that_is_over_and_not_twice_within_its_time(crowd: Play) -> None:
    count = functools.partial(crowd.connection.execute, statement("metrics_count"))
    first = rows_read(crowd, count, times=1)
    assert first.scanned.get("jobs", 0) == 0
    assert first.fetched["jobs"] <= 26_000 * SCALE
    crowd.all("update ops.counts set good_until = good_until + interval '1 hour' returning 1")
    assert_short(rows_read(crowd, count))


def test_publishing_is_short(crowd: Play) -> None:
    assert_short(rows_read(crowd, lambda: ledger.publish(crowd.connection, [sample_pipelines.line], "again")))
