-- What live streams over many jobs ask, as the caller, under row-level security; and what the hub and the tickets ask.
--
-- `settled`: what stands below it is complete. `newest`: no position is above it. `held`: there is more that may not be
-- told yet, because a transaction that began before it is still running; asked once, not for each event.

-- name: api_document_stream
-- The events of a document's jobs after a position, oldest first; a row without a seq when there are none.
with horizon as materialized (
  select pg_snapshot_xmin(pg_current_snapshot())::text::bigint as settled,
         pg_snapshot_xmax(pg_current_snapshot())::text::bigint as newest
), rest as materialized (
  select exists (
    select from public.jobs j cross join lateral (
      select v.position from public.job_events v where v.job_id = j.id order by v.seq desc limit 1) last
    where j.document_id = %(document_id)s and last.position >= h.settled) as held
  from horizon h
)
select h.newest, e.*, r.held
from public.documents d cross join horizon h cross join rest r
left join lateral (
  select j.pipeline, j.document_id, v.position, v.job_id, v.seq, v.at, v.kind, v.stage, v.step, v.item, v.attempt,
    v.actor, v.message, v.data
  from public.jobs j
  cross join lateral (
    select n.* from public.job_events n
    where n.job_id = j.id and n.position < h.settled and n.seq > coalesce((
      select k.seq from public.job_events k where k.job_id = j.id
        and (k.position, k.job_id, k.seq) <= (%(position)s::bigint, %(job_id)s::uuid, %(seq)s::integer)
      order by k.seq desc limit 1), 0)
    order by n.seq limit %(most)s) v
  where j.document_id = d.id and j.tenant_id = d.tenant_id
  order by v.position, v.job_id, v.seq limit %(most)s) e on true
where d.id = %(document_id)s and d.tenant_id = %(tenant_id)s
order by e.position, e.job_id, e.seq

-- name: api_tenant_stream
-- A tenant's events after a position, oldest first; a row without a seq when there are none.
with horizon as materialized (
  select pg_snapshot_xmin(pg_current_snapshot())::text::bigint as settled,
         pg_snapshot_xmax(pg_current_snapshot())::text::bigint as newest
), rest as materialized (
  select exists (
    select from public.job_events v where v.tenant_id = %(tenant_id)s and v.position >= h.settled) as held
  from horizon h
)
select h.newest, e.*, r.held
from public.tenants t cross join horizon h cross join rest r
left join lateral (
  select j.pipeline, j.document_id, v.position, v.job_id, v.seq, v.at, v.kind, v.stage, v.step, v.item, v.attempt,
    v.actor, v.message, v.data
  from (
    select n.* from public.job_events n
    where n.tenant_id = %(tenant_id)s and n.position < (select settled from horizon)
      and (n.position, n.job_id, n.seq) > (%(position)s::bigint, %(job_id)s::uuid, %(seq)s::integer)
    order by n.position, n.job_id, n.seq limit %(most)s) v
  join public.jobs j on j.id = v.job_id) e on true
where t.id = %(tenant_id)s
order by e.position, e.job_id, e.seq

-- name: api_tenant_now
-- Where the stream of a tenant stands now, and its newest active jobs, in one snapshot; a row without an id when none is.
with horizon as materialized (
  select pg_snapshot_xmin(pg_current_snapshot())::text::bigint as settled
)
select h.settled, a.*
from public.tenants t cross join horizon h
left join lateral (
  select j.id, j.pipeline, j.document_id, j.batch_id, j.created_by, j.status, j.stage, j.percent, j.progress_current,
    j.progress_total, j.progress_message, j.error_code, j.error_message, j.created_at, j.started_at, j.finished_at,
    j.last_seq, case when j.status in ('running', 'awaiting_review') then (select r.id from public.reviews r
      where r.job_id = j.id and r.status = 'open' order by r.id limit 1) end as review_id
  from public.jobs j
  where j.tenant_id = %(tenant_id)s and j.finished_at is null
    and (%(pipeline)s::text is null or j.pipeline = %(pipeline)s::text)
  order by j.id desc limit %(most)s) a on true
where t.id = %(tenant_id)s
order by a.id desc

-- name: api_topics
-- The documents and tenants that jobs belong to.
select j.id, j.tenant_id, j.document_id from public.jobs j where j.id = any(%(jobs)s)

-- name: ledger_make_ticket
-- Keep a ticket's digest; gives the seconds for which it is good.
select ledger.make_ticket(%(digest)s, %(user_id)s, %(tenant_id)s, %(claims)s, to_timestamp(%(session_ends)s), %(ttl_s)s)
  as good_for_s

-- name: ledger_take_ticket
-- Take a ticket, once.
select k.user_id, k.tenant_id, k.claims, extract(epoch from k.session_ends_at)::float8 as session_ends
from ledger.take_ticket(%(digest)s) k

-- name: ledger_mend_positions
-- After a restore: put the events from before below those to come.
select ledger.mend_positions() as moved

-- name: api_round
-- For each who asks, as itself: a job's state and the events after a number, as `api_events` gives them.
select * from ledger.read_round(%(asked)s)
