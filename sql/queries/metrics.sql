-- What /metrics asks. Each reads few rows, at any number of jobs and queue jobs.

-- name: metrics_count
-- Count again what was counted too long ago.
select ledger.queue_depth(), ledger.count_statuses()

-- name: metrics_jobs
-- Jobs that are not over, by status.
select c.name as status, c.amount as jobs from ops.counts c where c.kind = 'status' order by 1

-- name: metrics_queues
-- For each queue: what waits and since when, who serves it, and whether anything may be taken from it.
select q.name as queue, coalesce(c.amount, 0) as depth,
  coalesce((select extract(epoch from ledger.now() - s.queued_at)::float8 from public.job_steps s
            where s.queue = q.name and s.status = 'queued' and s.finished_at is null and s.due_at is null
            order by s.queued_at limit 1), 0) as oldest_seconds,
  (select count(*) from ops.workers w where q.name = any(w.queues) and not w.stopping
   and w.heartbeat_at > ledger.now() - make_interval(secs => %(lease_s)s)) as workers,
  (ledger.open_queues(array[q.name]) = '{}')::integer as closed
from unnest(%(queues)s::text[]) q(name)
left join ops.counts c on c.kind = 'queue' and c.name = q.name
order by 1

-- name: metrics_chores
-- When each chore last ended well, and what it repaired.
select c.name, extract(epoch from ledger.now() - c.ran_at)::float8 as age_s, c.repairs from ops.chores c order by 1

-- name: metrics_attempts
-- For each step: attempts by outcome, failures by code, and how long those took that worked.
with step as (
  select a.pipeline, a.step, sum(a.attempts) as attempts from ops.attempt_counts a group by a.pipeline, a.step
  order by 3 desc limit %(most)s
)
select s.pipeline, s.step, outcomes.by_name as outcomes, coalesce(failures.by_code, '{}') as failures,
  coalesce(worked.seconds, 0) as seconds, worked.buckets
from step s
cross join lateral (
  select jsonb_object_agg(o.outcome, o.attempts) as by_name from (
    select a.outcome, sum(a.attempts) as attempts from ops.attempt_counts a
    where a.pipeline = s.pipeline and a.step = s.step group by a.outcome) o) outcomes
cross join lateral (
  select jsonb_object_agg(f.code, f.attempts) as by_code from (
    select a.code, sum(a.attempts) as attempts from ops.attempt_counts a
    where a.pipeline = s.pipeline and a.step = s.step and a.code <> '' group by a.code order by 2 desc limit 50) f) failures
cross join lateral (
  select sum(a.seconds) as seconds, (
    select array_agg(b.amount order by b.nr) from (
      select n.nr, sum(n.amount)::bigint as amount from ops.attempt_counts k, unnest(k.buckets) with ordinality n(amount, nr)
      where k.pipeline = s.pipeline and k.step = s.step and k.outcome in ('completed', 'skipped') group by n.nr) b) as buckets
  from ops.attempt_counts a
  where a.pipeline = s.pipeline and a.step = s.step and a.outcome in ('completed', 'skipped')) worked
order by 1, 2
