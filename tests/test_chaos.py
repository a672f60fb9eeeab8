"""A short chaos run, and proof that its verdict sees what it should. `make chaos` is the long one."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest
from chaos.plan import FAULTS, Order, expect, make_plan
from chaos.verdict import Verdict, judge
from ledger_play import Play
from psycopg.rows import dict_row
from waiting import following
from workers import ROOT, running_worker

from tasks import ledger


def test_nothing_is_lost_doubled_or_stuck_whatever_is_killed_frozen_or_cut_off(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "chaos.run", "--seed", "1", "--jobs", "150", "--faults", "25"]
    ran = subprocess.run(
        [*command, "--folder", str(tmp_path / "chaos")],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "all holds" in ran.stdout
    for kind in FAULTS:
        assert f" {kind}\n" in ran.stdout


# The plan -----------------------------------------------------------------------------------------------


def test_a_seed_decides_everything() -> None:
    assert make_plan(7, 40, 9, api=True) == make_plan(7, 40, 9, api=True)
    assert make_plan(7, 40, 9, api=True).orders != make_plan(8, 40, 9, api=True).orders


def test_a_run_with_room_for_it_makes_every_kind_of_fault() -> None:
    for seed in range(20):
        made = {fault.kind for fault in make_plan(seed, 10, len(FAULTS), api=True).faults}
        assert made == set(FAULTS)


# The verdict --------------------------------------------------------------------------------------------


class Here:
    """Asks on one connection, where what was forced can be undone."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def rows(self, query: LiteralString, *arguments: Any) -> list[dict[str, Any]]:
        return self._connection.execute(query, arguments or None).fetchall()


@dataclasses.dataclass
class Done:
    """A ledger in which everything that was ordered is done."""

    play: Play
    orders: dict[UUID, Order]
    folder: Path

    def judge(self) -> Verdict:
        return judge(Here(self.play.connection), self.orders, self.folder / "storage")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def done(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    folder = tmp_path_factory.mktemp("done")
    alone = [order for order in make_plan(3, 200, 0, api=False).orders if order.batch is None]
    kinds = {order.pipeline: order for order in alone if order.pipeline != "judged"}
    kinds |= {
        "judged": next(order for order in alone if order.decisions[:1] == ("reprocessed",) and order.params["width"])
    }
    with psycopg.connect(module_database_url, autocommit=True, row_factory=dict_row) as connection:
        play = Play(connection, ("chaos.pipelines",))
        orders = {play.submit(order.pipeline, params=order.params): order for order in kinds.values()}
        with (
            following(module_database_url) as follower,
            running_worker(module_database_url, folder, "chaos.pipelines", worker_queues="cpu,llm", worker_children=1),
        ):
            for job, order in orders.items():
                for decision in order.decisions:
                    follower.until(lambda job=job: play.job(job)["status"] == "awaiting_review")
                    _decide(play, job, decision)
            follower.until(lambda: play.one("select count(*) from jobs where finished_at is null") == 0)
        yield Done(play, orders, folder)


def _decide(play: Play, job: UUID, decision: Any) -> None:
    review = play.one("select id from reviews where job_id = %s and status = 'open'", job)
    from_step = "polish" if decision == "reprocessed" else None
    ledger.decide(play.connection, review, play.tenant, play.user, decision, "", from_step)


def test_the_verdict_on_a_run_without_faults_is_that_all_holds(done: Done) -> None:
    verdict = done.judge()
    assert verdict.wrong == []
    assert verdict.counts["jobs, completed"] == len(done.orders) == 5
    (again,) = [order.params["width"] for order in done.orders.values() if order.decisions]
    once = sum(len(expect(order).runs) for order in done.orders.values())
    assert verdict.counts["step runs done"] == once + again
    assert verdict.counts["files compared"] > 0


SPOILS: dict[str, LiteralString] = {
    "its event numbers have gaps": "delete from job_events where seq = 3",
    "was done 2 times": """
      with again as (update jobs set last_seq = last_seq + 1 where pipeline = 'chain' returning id, last_seq)
      insert into job_events (job_id, seq, tenant_id, at, kind, step, data)
      select e.job_id, again.last_seq, e.tenant_id, e.at, e.kind, e.step, e.data
      from job_events e join again on again.id = e.job_id where e.kind = 'step_completed' and e.step = 'third'""",
    "its files are not what its steps wrote": "delete from artifacts where name = 'answer.txt'",
    "gave": """update step_results set value = '{"value": -1}'
               where id in (select result_id from job_steps where step = 'bind')""",
    "step runs are": "delete from job_steps where step = 'second'",
    "is still running": "update jobs set status = 'running', finished_at = null where pipeline = 'chain'",
    "something came after its end": """
      with again as (update jobs set last_seq = last_seq + 1 where pipeline = 'chain' returning id, last_seq)
      insert into job_events (job_id, seq, tenant_id, at, kind)
      select e.job_id, again.last_seq, e.tenant_id, e.at, 'progress'
      from job_events e join again on again.id = e.job_id where e.kind = 'completed'""",
    "was cancelled by nobody": "update jobs set status = 'cancelled' where pipeline = 'shaky'",
    "there are queue jobs left": """
      insert into procrastinate.procrastinate_jobs (queue_name, task_name, args)
      select 'llm', 'run_step', jsonb_build_object('step_run', id) from job_steps""",
    "results do not add up": "update step_results set hits = hits + 1",
    "and was not sent back": """
      update job_events set data = data - 'from_step' where kind = 'gate_decided'""",
    "a result belongs to no step run": """
      insert into step_results (tenant_id, identity, digest, value) select tenant_id, identity, digest, value
      from step_results where blob is null limit 1""",
    "counts 1 reuses": "update jobs set reused = reused + 1 where pipeline = 'chain'",
    "came with batch": """
      with batch as (insert into batches (id, tenant_id, pipeline, created_at)
                     select id, tenant_id, pipeline, created_at from jobs limit 1 returning id)
      update jobs set batch_id = batch.id from batch where jobs.pipeline = 'chain'""",
    "an item of a batch is not one job": """
      with batch as (insert into batches (id, tenant_id, pipeline, created_at)
                     select id, tenant_id, pipeline, created_at from jobs limit 1 returning id, tenant_id)
      insert into batch_items (batch_id, nr, tenant_id) select id, 1, tenant_id from batch""",
    "a batch is not over": """
      insert into batches (id, tenant_id, pipeline, created_at, due_at)
      select id, tenant_id, pipeline, created_at, created_at from jobs limit 1""",
    "events and deliveries of webhooks disagree": """
      insert into webhooks (id, tenant_id, url, kinds, created_at)
      select id, tenant_id, 'https://127.0.0.1/', '{completed}', created_at from jobs limit 1""",
    "attempts failed with": """
      insert into ops.failures (job_id, at, code, detail) select id, now(), 'step_error', 'a surprise' from jobs""",
    "jobs were ordered and": """
      insert into jobs (id, tenant_id, pipeline, graph, total_weight, payload_digest, created_at, updated_at)
      select gen_random_uuid(), tenant_id, pipeline, graph, 1, '', created_at, updated_at from jobs limit 1""",
}


@pytest.mark.parametrize("sentence", SPOILS)
def test_the_verdict_sees(done: Done, sentence: str) -> None:
    connection = done.play.connection
    with connection.transaction(force_rollback=True):
        connection.execute(SPOILS[sentence])
        assert any(sentence in said for said in done.judge().wrong)


def test_the_verdict_sees_bytes_that_are_not_what_their_name_says(done: Done) -> None:
    file = next(path for path in (done.folder / "storage").rglob("*") if path.is_file() and len(path.name) == 64)
    before = file.read_bytes()
    file.write_bytes(b"other bytes")
    try:
        assert any("are others" in said for said in done.judge().wrong)
    finally:
        file.write_bytes(before)
