-- What the front door asks. All but api_enter and those from api_ping on run as the caller, under row-level security.

-- name: api_enter
-- Of each who asks, tenants, roles and limits; beside each the pipeline asked for, with its schema unless who asks knows it.
select a.nr, e.* from jsonb_to_recordset(%(asked)s) a(nr integer, user_id uuid, pipeline text, known text)
cross join ledger.enter(a.user_id, a.pipeline, a.known) e

-- name: api_jobs
-- A page of a tenant's jobs, newest first.
select j.id, j.pipeline, j.document_id, j.batch_id, j.created_by, j.status, j.stage, j.percent, j.progress_current,
  j.progress_total, j.progress_message, j.error_code, j.error_message, j.created_at, j.started_at, j.finished_at,
  case when j.status in ('running', 'awaiting_review') then (select r.id from public.reviews r
    where r.job_id = j.id and r.status = 'open' order by r.id limit 1) end as review_id
from public.jobs j
where j.tenant_id = %(tenant_id)s
  and (%(before)s::uuid is null or j.id < %(before)s::uuid)
  and (%(status)s::text is null or j.status = %(status)s::text)
  -- What a status says of the end, for the indexes of what has one and of what has not.
  and (%(status)s::text is null or case when %(status)s::text in ('completed', 'failed', 'cancelled')
       then j.ended = %(status)s::text else j.finished_at is null end)
  and (%(pipeline)s::text is null or j.pipeline = %(pipeline)s::text)
  and (%(document_id)s::uuid is null or j.document_id = %(document_id)s::uuid)
  and (%(batch_id)s::uuid is null or j.batch_id = %(batch_id)s::uuid)
order by j.id desc limit %(most)s

-- name: api_job
-- One job with its steps counted and what it waits for.
select access.look_at_job(%(job_id)s, %(tenant_id)s, %(most_ahead)s) as job

-- name: api_events
-- A job's state and the events after a number, in one snapshot; a row without a seq when there are none. `silent_s`: how
-- long nothing was written about the job.
select j.status as job_status, j.last_seq,
  extract(epoch from clock_timestamp() - j.updated_at)::float8 as silent_s, e.seq, e.at, e.kind, e.stage, e.step, e.item, e.attempt, e.actor, e.message,
  e.data
from public.jobs j
left join lateral (
  select * from public.job_events v where v.job_id = j.id and v.seq > %(after)s order by v.seq limit %(most)s) e on true
where j.id = %(job_id)s and j.tenant_id = %(tenant_id)s
order by e.seq

-- name: api_artifacts
-- A page of a job's artifacts, oldest first; a row without an id when there are none.
select j.id as job_id, a.id, a.step, a.item, a.name, a.media_type, a.bytes, a.sha256, a.created_at
from public.jobs j
left join lateral (
  select * from public.artifacts f
  where f.job_id = j.id and (%(after)s::uuid is null or f.id > %(after)s::uuid)
  order by f.id limit %(most)s) a on true
where j.id = %(job_id)s and j.tenant_id = %(tenant_id)s
order by a.id

-- name: api_artifact
-- One artifact, with what its link needs.
select a.id, a.tenant_id, a.name, a.media_type, a.bytes, a.sha256
from public.artifacts a
where a.id = %(artifact_id)s and a.tenant_id = %(tenant_id)s

-- name: api_ping
-- Does the database answer?
select 1 as answer

-- name: api_readiness
-- The queues that published pipelines use, those a live worker serves, and how long ago the ledger was swept.
select
  array(select distinct s.queue from public.pipelines p join public.pipeline_steps s on s.graph = p.graph
        where p.retired_at is null and not s.gate order by 1) as used,
  array(select distinct q from ops.workers w, unnest(w.queues) q
        where not w.stopping and w.heartbeat_at > ledger.now() - make_interval(secs => %(lease_s)s) order by 1) as served,
  (select extract(epoch from ledger.now() - c.ran_at)::float8 from ops.chores c where c.name = 'sweep') as swept_ago_s

-- name: api_listen
-- Hear every job that moves.
listen ledgerline_events

-- name: api_listen_echo
-- Hear our own calls, which prove that listening works.
listen ledgerline_echo

-- name: api_call_echo
-- Call out, to be heard by ourselves.
select pg_notify('ledgerline_echo', %(token)s)
