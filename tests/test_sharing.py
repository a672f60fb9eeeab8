"""Sharing: tenants get their shares of a queue at any depth, and what is held back says why and loses nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from uuid import UUID, uuid4

import psycopg
import pytest
from ledger_play import Play, Row, items
from psycopg.rows import dict_row

from tasks import ledger

PACKAGES = ("sample_pipelines", "sample_graphs")

# A loud tenant's jobs in bulk: as many, and in the places in the queue, as if they had been submitted one by one.
LOUD_JOBS = """
  insert into jobs (id, tenant_id, pipeline, graph, total_weight, payload_digest, created_at, updated_at)
  select ledger.uuid7(), %(tenant)s, p.name, p.graph, g.total_weight, '', now(), now()
  from generate_series(1, %(count)s), pipelines p join pipeline_graphs g on g.digest = p.graph where p.name = 'one'
"""
LOUD_RUNS = """
  insert into job_steps (job_id, tenant_id, step, status, queue, queue_job_id, priority, created_at, queued_at)
  select j.id, j.tenant_id, 'only', 'queued', 'llm', nextval('procrastinate.procrastinate_jobs_id_seq'),
         -10 * row_number() over (order by j.id), now(), now()
  from jobs j where j.tenant_id = %(tenant)s
"""
LOUD_TOTALS = """
  insert into job_step_totals (job_id, tenant_id, step, total, opened_at)
  select j.id, j.tenant_id, 'only', 1, now() from jobs j where j.tenant_id = %(tenant)s
"""
LOUD_QUEUE = """
  insert into procrastinate.procrastinate_jobs (id, queue_name, task_name, priority, args)
  select s.queue_job_id, s.queue, 'run_step', s.priority, ledger.queue_args(s.id, s.tenant_id)
  from job_steps s where s.tenant_id = %(tenant)s
"""


def add_loud(play: Play, count: int) -> UUID:
    tenant = play.add_tenant()
    for statement in (LOUD_JOBS, LOUD_RUNS, LOUD_TOTALS, LOUD_QUEUE):
        play.connection.execute(statement, {"tenant": tenant, "count": count})
    play.connection.execute("analyze jobs, job_steps, procrastinate.procrastinate_jobs")
    return tenant


@pytest.fixture(scope="module", params=[1_000, 100_000], ids=["behind 1,000", "behind 100,000"])
def crowd(request: pytest.FixtureRequest, module_database_url: str) -> Iterator[tuple[Play, UUID]]:
    with psycopg.connect(module_database_url, autocommit=True, row_factory=dict_row) as connection:
        play = Play(connection, PACKAGES)
        loud = add_loud(play, request.param)
        yield play, loud
        connection.execute("delete from procrastinate.procrastinate_jobs")
        connection.execute("delete from tenants")


@pytest.fixture
def crowded(crowd: tuple[Play, UUID]) -> Iterator[tuple[Play, UUID]]:
    """A play beside a loud tenant; what the test does is undone."""
    play, loud = crowd
    with play.connection.transaction(force_rollback=True):
        yield play, loud


def claim_tenants(play: Play, count: int) -> list[UUID]:
    """Claim one by one. Whose step runs those were."""
    return [UUID(play.begin()["tenant"]) for _ in range(count)]


def weigh(play: Play, tenant: UUID, weight: float, queue: str = "llm") -> None:
    play.connection.execute("insert into ops.shares values (%s, %s, %s)", [tenant, queue, weight])


def reason(play: Play, job: UUID) -> Row | None:
    """What the job waits for, as its user is told."""
    user = uuid4()
    tenant = play.job(job)["tenant_id"]
    play.connection.execute("insert into members values (%s, %s, 'viewer')", [tenant, user])
    play.connection.execute("select set_config('request.jwt.claims', %s, true)", [f'{{"sub": "{user}"}}'])
    waiting: Row | None = play.one("select access.waiting_for(%s)", job)
    return waiting


# Fairness -----------------------------------------------------------------------------------------------


def test_a_quiet_tenants_one_job_is_claimed_within_the_next_few(crowded: tuple[Play, UUID]) -> None:
    play, loud = crowded
    for already in (0, 60, 0):
        assert set(claim_tenants(play, already)) <= {loud}
        play.submit("one")
        assert play.tenant in claim_tenants(play, 3)


def test_submitting_and_claiming_read_no_more_at_greater_depth(crowded: tuple[Play, UUID]) -> None:
    play, _ = crowded
    read = """select sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)) from pg_stat_xact_user_tables
              where relname in ('job_steps', 'procrastinate_jobs')"""
    before = play.one(read) or 0
    for _ in range(20):  # the plans of the first few are made for their own parameters
        play.submit("one")
    for _ in range(20):
        play.complete(play.begin(), 1)
    assert play.one(read) - before < 20 * 100


def test_having_been_idle_is_no_credit(crowded: tuple[Play, UUID]) -> None:
    play, loud = crowded
    claim_tenants(play, 100)
    for _ in range(100):
        play.submit("one")
    shares = Counter(claim_tenants(play, 100))
    assert 45 <= shares[play.tenant] <= 55
    assert shares[loud] + shares[play.tenant] == 100


def test_twice_the_weight_is_twice_the_share(crowded: tuple[Play, UUID]) -> None:
    play, loud = crowded
    heavy, light = play.add_tenant(), play.add_tenant()
    weigh(play, heavy, 2)
    weigh(play, light, 1)
    for tenant in [heavy] * 250 + [light] * 250:
        play.submit("one", tenant_id=tenant)
    shares = Counter(claim_tenants(play, 400))
    assert 1.9 <= shares[heavy] / shares[light] <= 2.1
    assert 0.9 <= shares[light] / shares[loud] <= 1.1


def test_a_weight_counts_in_its_own_queue_only(play: Play) -> None:
    heavy, light = play.add_tenant(), play.add_tenant()
    weigh(play, heavy, 2, queue="cpu")
    for tenant in [heavy] * 60 + [light] * 60:
        play.submit("one", tenant_id=tenant)
    shares = Counter(claim_tenants(play, 60))
    assert 28 <= shares[heavy] <= 32


def work_off(play: Play, count: int, width: int) -> list[UUID]:
    """Claim and complete one by one. Whose step runs those were."""
    tenants = []
    for work in (row["work"] for _ in range(count) for row in play.claim()):
        tenants.append(UUID(work["tenant"]))
        play.complete(work, work["item"], items(width) if work["mapped"] else None)
    return tenants


def learn(play: Play, width: int) -> None:
    """Complete some wide jobs, so that it is known how wide they are."""
    for _ in range(12):
        play.submit("fan")
        work_off(play, width + 2, width)


def test_the_size_of_jobs_is_learned_where_steps_are_mapped(play: Play) -> None:
    size = "select runs from ops.job_sizes z join pipelines p on p.graph = z.graph where p.name = %s"
    assert (play.one(size, "fan"), play.one(size, "line")) == (3, 3)
    learn(play, 10)
    assert 10 <= play.one(size, "fan") <= 12
    play.submit("line")
    play.finish_all()
    assert play.one(size, "line") == 3


def test_a_tenant_whose_jobs_are_wide_does_not_get_more_by_that(play: Play) -> None:
    learn(play, 10)
    for _ in range(20):
        play.submit("fan")
    work_off(play, 100, 10)
    quiet = play.add_tenant()
    job = play.submit("fan", tenant_id=quiet)
    shares = Counter(work_off(play, 2 * 12 + 6, 10))
    assert shares[quiet] == 12
    assert play.job(job)["status"] == "completed"


def test_twice_the_weight_is_twice_the_share_of_wide_jobs_too(play: Play) -> None:
    learn(play, 10)
    heavy, light = play.add_tenant(), play.add_tenant()
    weigh(play, heavy, 2)
    for _ in range(25):
        play.submit("fan", tenant_id=light)
        play.submit("fan", tenant_id=heavy)
    shares = Counter(work_off(play, 240, 10))
    assert 1.7 <= shares[heavy] / shares[light] <= 2.3


def test_jobs_of_one_tenant_begin_in_the_order_they_were_submitted(play: Play) -> None:
    jobs = [str(play.submit("one")) for _ in range(20)]
    assert [play.begin()["job"] for _ in jobs] == jobs


def test_the_next_step_of_a_begun_job_does_not_wait_behind_the_new_jobs_of_its_tenant(play: Play) -> None:
    jobs = [str(play.submit("line")) for _ in range(100)]
    play.complete(play.begin(), 1)
    works = [play.begin() for _ in range(3)]
    assert ("second", jobs[0]) in [(work["step"], work["job"]) for work in works]


def test_what_was_begun_is_finished_before_much_more_is_begun(play: Play) -> None:
    for _ in range(60):
        play.submit("line")
    for _ in range(90):
        play.complete(play.begin(), 1)
    begun = play.one("select count(*) from jobs where tenant_id = %s and status = 'running'", play.tenant)
    done = play.one("select count(*) from jobs where tenant_id = %s and status = 'completed'", play.tenant)
    assert begun <= 4
    assert done >= 27


def test_a_queue_that_never_drains_goes_on_taking_work(play: Play) -> None:
    """Virtual time only returns to zero when a queue is empty; it must not run out of numbers before that."""
    play.submit("one")
    play.connection.execute("update job_steps set priority = -2147483640 where tenant_id = %s", [play.tenant])
    jobs = [str(play.submit(pipeline)) for pipeline in ("one", "line", "fan")]
    play.begin()
    assert [play.begin()["job"] for _ in jobs] == jobs


# Pausing ------------------------------------------------------------------------------------------------


def test_a_paused_tenant_costs_the_fetch_nothing_and_loses_nothing(crowded: tuple[Play, UUID]) -> None:
    play, loud = crowded
    count = play.one("select count(*) from job_steps where tenant_id = %s", loud)
    ledger.pause(play.connection, "tenant", str(loud), "They asked for it.")
    assert play.queue() == []
    mine = play.submit("one")
    assert [work["job"] for work in play.begin_all()] == [str(mine)]
    assert ledger.resume(play.connection, "tenant", str(loud))
    queued: Row = play.all(
        "select count(*), count(distinct id) as whole from job_steps where tenant_id = %s and status = 'queued'", loud
    )[0]
    assert (queued["count"], queued["whole"], len(play.queue())) == (count, count, count + 1)


def test_a_paused_queue_is_the_reason_for_waiting(play: Play) -> None:
    job = play.submit("one")
    play.beat()
    ledger.pause(play.connection, "queue", "llm", "The provider is being changed.")
    assert play.begin_all() == []
    assert reason(play, job) == {
        "reason": "queue_paused", "queue": "llm",
        "message": 'The queue "llm" is paused. The provider is being changed.',
    }  # fmt: skip
    assert ledger.resume(play.connection, "queue", "llm")
    assert (reason(play, job) or {})["reason"] == "queue"
    assert play.begin()["job"] == str(job)


def test_a_paused_tenant_is_the_reason_for_waiting(play: Play) -> None:
    job = play.submit("one")
    ledger.pause(play.connection, "tenant", str(play.tenant), "An invoice is open.")
    assert reason(play, job) == {
        "reason": "tenant_paused", "message": "All work of this tenant is paused. An invoice is open.",
    }  # fmt: skip


def test_what_a_paused_tenant_submits_is_held_and_goes_on_in_order(play: Play) -> None:
    before = [str(play.submit("one")) for _ in range(3)]
    ledger.pause(play.connection, "tenant", str(play.tenant))
    during = [str(play.submit("one")) for _ in range(3)]
    assert play.begin_all() == []
    assert set(play.all("select distinct status from job_steps")[0].values()) == {"held"}
    assert play.drift() == []
    assert ledger.resume(play.connection, "tenant", str(play.tenant))
    assert [play.begin()["job"] for _ in range(6)] == before + during
    assert play.drift() == []


def test_after_a_pause_what_was_begun_comes_first(play: Play) -> None:
    jobs = [str(play.submit("line")) for _ in range(50)]
    work = play.begin()
    ledger.pause(play.connection, "tenant", str(play.tenant))
    play.complete(work, 1)
    ledger.resume(play.connection, "tenant", str(play.tenant))
    begun = play.begin()
    assert (begun["step"], begun["job"]) == ("second", jobs[0])


def test_what_runs_goes_on_while_its_tenant_is_paused_and_its_next_step_is_held(play: Play) -> None:
    job = play.submit("fan")
    play.complete(play.begin(), 0, items(3))
    works = play.begin_all()
    ledger.pause(play.connection, "tenant", str(play.tenant))
    for work in works:
        assert play.complete(work, work["item"])
    assert play.run(job, "total")["status"] == "held"
    assert (play.job(job)["status"], (reason(play, job) or {})["reason"]) == ("running", "tenant_paused")
    assert play.drift() == []
    ledger.resume(play.connection, "tenant", str(play.tenant))
    play.finish_all()
    assert play.job(job)["status"] == "completed"


def test_a_retry_that_falls_due_during_a_pause_is_held(play: Play) -> None:
    play.submit("one")
    play.fail(play.begin(), retry_in=5)
    ledger.pause(play.connection, "tenant", str(play.tenant))
    play.pass_time(6)
    assert play.one("select promoted from ledger.promote_due(10)") == 1
    assert play.begin_all() == []
    assert play.drift() == []
    ledger.resume(play.connection, "tenant", str(play.tenant))
    assert play.begin()["attempt"] == 2
