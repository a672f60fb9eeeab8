"""The same rows as ours, written by hand: a job, its step run with attempts, results, and a history numbered per job.

One statement for each of submitting, starting and finishing, with no more indexes than the keys and a list of a
tenant's jobs. Nothing is queued in the same transaction, fenced, shared or used again.
"""

from __future__ import annotations

import psycopg

TABLES = """
create table jobs (
  id uuid primary key,
  tenant_id uuid not null default '00000000-0000-0000-0000-000000000001',
  pipeline text not null default 'one',
  params jsonb not null default '{}',
  status text not null default 'queued' check (status in ('queued', 'running', 'completed', 'failed')),
  stage text not null default 'initializing',
  percent integer not null default 0,
  last_seq integer not null default 1,
  created_at timestamptz not null default clock_timestamp(),
  started_at timestamptz,
  finished_at timestamptz
);
create index jobs_by_tenant on jobs (tenant_id, id desc);
create table step_results (
  id uuid primary key default gen_random_uuid(),
  digest text not null,
  value jsonb not null,
  created_at timestamptz not null default clock_timestamp()
);
create table job_steps (
  job_id uuid not null references jobs,
  step text not null,
  status text not null default 'queued' check (status in ('queued', 'running', 'completed', 'failed')),
  attempt integer not null default 0,
  result_id uuid references step_results,
  created_at timestamptz not null default clock_timestamp(),
  started_at timestamptz,
  finished_at timestamptz,
  primary key (job_id, step)
);
create table job_events (
  job_id uuid not null references jobs,
  seq integer not null,
  at timestamptz not null default clock_timestamp(),
  kind text not null,
  step text,
  attempt integer,
  data jsonb not null default '{}',
  primary key (job_id, seq)
);
"""

SUBMIT = """
with job as (insert into jobs (id) values (%s) returning id),
run as (insert into job_steps (job_id, step) select id, 'only' from job)
insert into job_events (job_id, seq, kind, data)
select id, 1, 'submitted', '{"status": "queued", "percent": 0}' from job
"""

START = """
with job as (
  update jobs set status = 'running', stage = 'analyzing', started_at = clock_timestamp(), last_seq = last_seq + 2
  where id = %s and status = 'queued' returning id, last_seq
), run as (
  update job_steps s set status = 'running', attempt = s.attempt + 1, started_at = clock_timestamp()
  from job where s.job_id = job.id returning s.job_id, s.step, s.attempt
)
insert into job_events (job_id, seq, kind, step, attempt, data)
select id, last_seq - 1, 'started', null, null, '{"status": "running", "percent": 0}'::jsonb from job
union all
select id, last_seq, 'step_started', step, attempt, '{"status": "running", "percent": 0}' from job, run
"""

FINISH = """
with job as (
  update jobs set status = 'completed', percent = 100, finished_at = clock_timestamp(), last_seq = last_seq + 2
  where id = %s and status = 'running' returning id, last_seq
), result as (
  insert into step_results (digest, value) select repeat('0', 64), '{"value": 1}' from job returning id
), run as (
  update job_steps s set status = 'completed', result_id = result.id, finished_at = clock_timestamp()
  from job, result where s.job_id = job.id returning s.step, s.attempt
)
insert into job_events (job_id, seq, kind, step, attempt, data)
select id, last_seq - 1, 'step_completed', step, attempt, '{"status": "running", "percent": 99}'::jsonb from job, run
union all
select id, last_seq, 'completed', null, null, '{"status": "completed", "percent": 100}' from job
"""


def create(url: str) -> None:
    """Make the tables."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(TABLES)
