"""What is written for a whole group at once is what would have been written one by one, in every graph there is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sample_graphs
import sample_pipelines
from ledger_play import Play, Row, Work, digest, items
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from tasks.pipeline import Pipeline

PACKAGES = ("sample_pipelines", "sample_graphs")
PIPELINES = {
    pipeline.name: pipeline
    for module in (sample_pipelines, sample_graphs)
    for pipeline in vars(module).values()
    if isinstance(pipeline, Pipeline)
}

NOTHING_IS_PLAIN = """
create or replace function ledger.plain_moves(filed ledger.filed[]) returns ledger.move[] language sql as
$$ select '{}'::ledger.move[] $$
"""

# What the two ways have to agree on: everything but ids, times and places in the queue.
HISTORY = """
select j.nr, e.seq, e.kind, e.stage, e.step, e.item, e.attempt, e.message, e.data
from (select id, row_number() over (order by id) as nr from jobs) j join job_events e on e.job_id = j.id order by 1, 2
"""
JOBS = """
select status, stage, percent, progress_current, progress_total, progress_message,
  done_weight::numeric(12, 6) as weight, reused, last_seq, natural_key is null as free,
  started_at is not null as started, finished_at is not null as finished
from jobs order by id
"""
RUNS = """
select j.nr, s.step, s.item, s.status, s.attempt, s.queue, s.identity, s.worker_id is not null as taken,
  s.queue_job_id is not null as queued, s.queued_at is not null as was_queued, s.finished_at is not null as finished,
  r.value
from (select id, row_number() over (order by id) as nr from jobs) j join job_steps s on s.job_id = j.id
left join step_results r on r.id = s.result_id order by 1, 2, 3
"""
WIDTHS = """
select j.nr, t.step, t.total, t.completed, t.failed, t.mapped, t.opened_at is not null as opened,
  t.finished_at is not null as finished
from (select id, row_number() over (order by id) as nr from jobs) j join job_step_totals t on t.job_id = j.id
order by 1, 2
"""
UNFIT = """
select * from job_steps s left join procrastinate.procrastinate_jobs q on q.id = s.queue_job_id
where s.status = 'queued' and (q.queue_name, q.task_name, q.status, q.priority, q.args) is distinct from
  (s.queue, 'run_step', 'todo'::procrastinate.procrastinate_job_status, s.priority,
   jsonb_build_object('step_run', s.id, 'tenant', s.tenant_id))
"""


@pytest.fixture
def every_play(module_database_url: str) -> Iterator[Play]:
    """Somebody who has every pipeline, and whose doings are rolled back."""
    with psycopg.connect(module_database_url, row_factory=dict_row) as connection:
        yield Play(connection, PACKAGES)
        connection.rollback()


def outcome(work: Work) -> dict[str, Any]:
    """How a step run ends in both ways: some are skipped, some were made by another version."""
    value = work["item"] or 0
    result: dict[str, Any] = {"digest": digest(value), "value": {"value": value}}
    if value % 3 == 2:
        result |= {"skipped": "There was nothing to do."}
    if value % 3 == 1:
        result |= {"version": 7}
    laid_out = items(4) if work["mapped"] else None
    return {"verb": "complete", "step_run": work["step_run"], "attempt": work["attempt"], "result": result,
            "items": laid_out}  # fmt: skip


def settle(play: Play, works: list[Work]) -> None:
    assert all(play.one("select ledger.settle(%s::jsonb[])", [Jsonb(outcome(work)) for work in works]))


def live(play: Play, pipeline: str, most: int) -> dict[str, list[Row]]:
    """Three equal jobs of a pipeline, worked on `most` step runs at a time; what the ledger says in the end."""
    for number in range(3):
        document = play.add_document(str(number)) if PIPELINES[pipeline].accepts else None
        play.submit(pipeline, document_id=document, params={"number": number}, fresh=True)
    while works := play.begin_all(most):
        settle(play, works)
        assert play.drift() == play.all(UNFIT) == []
    asked = {"history": HISTORY, "jobs": JOBS, "runs": RUNS, "widths": WIDTHS}
    return {name: play.all(query) for name, query in asked.items()}


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("most", [2, 1000])
def test_both_ways_write_the_same(every_play: Play, pipeline: str, most: int) -> None:
    with every_play.connection.transaction(force_rollback=True):
        at_once = live(every_play, pipeline, most)
    with every_play.connection.transaction(force_rollback=True):
        every_play.connection.execute(NOTHING_IS_PLAIN)
        one_by_one = live(every_play, pipeline, most)
    for table, rows in one_by_one.items():
        assert at_once[table] == rows, table
