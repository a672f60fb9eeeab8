-- name: development_tenant
-- The tenant of the development user; the same everywhere.
insert into public.tenants (id, name) values (%(tenant_id)s, %(name)s) on conflict do nothing

-- name: development_member
-- The development user owns it.
insert into public.members (tenant_id, user_id, role) values (%(tenant_id)s, %(user_id)s, 'owner') on conflict do nothing

-- name: explain_job
-- A job for the operator, with a member of its tenant to ask as.
select j.id, j.pipeline, j.status, j.stage, j.error_code, j.error_message,
  (select m.user_id from public.members m where m.tenant_id = j.tenant_id limit 1) as member
from public.jobs j where j.id = %(job_id)s

-- name: explain_events
-- A job's whole history.
select e.seq, e.at, e.kind, e.stage, e.step, e.item, e.attempt, e.message, e.data
from public.job_events e where e.job_id = %(job_id)s order by e.seq

-- name: explain_failures
-- What went wrong, with the detail that users never see.
select f.at, f.step, f.item, f.attempt, f.code, f.detail
from ops.failures f where f.job_id = %(job_id)s order by f.id

-- name: explain_as_member
-- Claims for the rest of the transaction; the role stays.
select set_config('request.jwt.claims', %(claims)s, true)

-- name: explain_waiting
-- What the job waits for; null when it is over or being worked on.
select access.waiting_for(%(job_id)s) as waiting

-- name: find_tenants
-- The tenants of that id or name; two are enough to see that there are several.
select t.id, t.name from public.tenants t where t.id::text = lower(%(name)s) or t.name = %(name)s limit 2

-- name: doctor_version
-- Version of the server, and whether it keeps what it confirmed.
select current_setting('server_version') as version, current_setting('fsync') = 'on' as durable

-- name: doctor_drift
-- How many promises of the ledger are broken, and the first of them.
select count(*) as rows, min(d.problem) as problem from ops.drift d

-- name: doctor_queues
-- For each queue: what waits, since how many seconds, and how many workers live.
select q.name,
  (select count(*)::integer from procrastinate.procrastinate_jobs w
   where w.status = 'todo' and w.queue_name = q.name and w.task_name = 'run_step') as waiting,
  coalesce(extract(epoch from ledger.now() - (
    select s.queued_at from public.job_steps s
    where s.queue = q.name and s.status = 'queued' and s.finished_at is null and s.due_at is null
    order by s.queued_at limit 1)), 0)::double precision as oldest_s,
  (select count(*)::integer from ops.workers w where q.name = any(w.queues) and not w.stopping
   and w.heartbeat_at > ledger.now() - make_interval(secs => %(lease_s)s)) as workers
from unnest(%(queues)s::text[]) with ordinality q(name, nr)
order by q.nr

-- name: doctor_sweep
-- Seconds since a worker last reconciled the ledger; null when none ever did.
select extract(epoch from ledger.now() - max(c.ran_at))::double precision as age_s from ops.chores c where c.name = 'sweep'

-- name: doctor_pipelines
-- The pipelines that jobs can be submitted for.
select array(select p.name from public.pipelines p where p.retired_at is null order by 1) as names

-- name: doctor_listen
-- Wait for a notification on this connection ...
listen ledgerline_doctor

-- name: doctor_notify
-- ... and send one.
notify ledgerline_doctor
