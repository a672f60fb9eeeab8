-- Indexes: only over what changes once.
--
-- A row that is updated in place (HOT) costs no index anything; it can be when no column of any index changes. So no index
-- of jobs and step runs knows a status, a worker, a place in the queue or a time of the last event. They are over what a row
-- is born with, and over what is set when it ends: `ended` of jobs, `finished_at` and `result_id` of step runs. What is
-- queued, and in which order, is asked of the queue, whose rows come and go; so is what is running.

-- How a job ended, null until it has: its status, without the steps on the way.
alter table public.jobs add column ended text generated always as (
  case when status in ('completed', 'failed', 'cancelled') then status end) stored;

drop index public.jobs_by_tenant_status, public.jobs_active, public.jobs_by_deadline, public.jobs_idempotency_key,
           public.jobs_natural_key;
create index jobs_live on public.jobs (tenant_id, id desc) where finished_at is null;
create index jobs_ended on public.jobs (tenant_id, ended, id desc) where ended is not null;
create index jobs_by_deadline on public.jobs (deadline_at) where deadline_at is not null and finished_at is null;
create unique index jobs_idempotency_key on public.jobs (tenant_id, idempotency_key) where idempotency_key is not null;
-- Ten clicks, one job: without a key, a live or completed job answers for its like. A failed one does not.
create unique index jobs_natural_key on public.jobs (tenant_id, natural_key)
  where natural_key is not null and (ended is null or ended = 'completed');

drop index public.job_steps_running, public.job_steps_due, public.job_steps_queued, public.job_steps_order,
           public.job_steps_shares, public.job_steps_held, public.job_steps_moving;
alter table public.job_steps add check (
  (status in ('completed', 'skipped', 'failed', 'cancelled')) = (finished_at is not null));
create index job_steps_open on public.job_steps (job_id) where finished_at is null;
create index job_steps_waiting on public.job_steps (queue, queued_at) where finished_at is null and due_at is null;
create index job_steps_due on public.job_steps (due_at) where due_at is not null;
-- Step runs of a paused tenant: what was queued and has no queue job.
create index job_steps_held on public.job_steps (tenant_id)
  where queue_job_id is null and due_at is null and finished_at is null and queued_at is not null;

-- Room for a row's next version beside it.
alter table public.jobs set (fillfactor = 70);
alter table public.job_steps set (fillfactor = 70);

-- The queue's own tables --------------------------------------------------------------------------------

-- The queue knows whose its step runs are: the tail of a tenant is found here, and what workers have taken.
update procrastinate.procrastinate_jobs q set args = q.args || jsonb_build_object('tenant', s.tenant_id)
from public.job_steps s where q.task_name = 'run_step' and s.id = (q.args ->> 'step_run')::uuid;
-- By minus the priority, so that nobody looks for the tail of one tenant in the other index, walking over everybody else's.
create index queue_jobs_of_tenant on procrastinate.procrastinate_jobs ((args ->> 'tenant'), queue_name, (-priority))
  where status = 'todo';
create index queue_jobs_taken on procrastinate.procrastinate_jobs (id) where status = 'doing';

-- Each row that leaves the queue was looked up in two tables that know chores only. The trigger that does the same for
-- chores alone has always unlinked their schedules; now it also takes their history along.
alter table procrastinate.procrastinate_periodic_defers drop constraint procrastinate_periodic_defers_job_id_fkey;
alter table procrastinate.procrastinate_events drop constraint procrastinate_events_job_id_fkey;
create function procrastinate.forget_chore() returns trigger language plpgsql as $$
begin
  delete from procrastinate.procrastinate_events e where e.job_id = old.id;
  return old;
end $$;
revoke all on function procrastinate.forget_chore() from public, anon, authenticated;
create trigger forget_chore before delete on procrastinate.procrastinate_jobs for each row
  when (old.task_name <> 'run_step') execute function procrastinate.forget_chore();

-- Where the queue is asked --------------------------------------------------------------------------------

-- The arguments of a queue job: whose it is besides what it is for, for the index of a tenant's queue jobs.
create function ledger.queue_args(run uuid, of_tenant uuid) returns jsonb language sql immutable as $$
  select jsonb_build_object('step_run', run, 'tenant', of_tenant)
$$;

-- Fairness: a queue job's priority is minus the virtual time at which its tenant's share of the queue reaches it. The
-- queue's virtual now is that of its head. A job's first steps line up behind what its tenant has queued already and what
-- that will take; the steps that follow line up right behind the head, so that what was begun is finished before more is.
--
-- A plan made while the queue is empty is used when it is deep: it is left nothing but the indexes in their order.
create or replace function ledger.virtual_start(of_tenant uuid, of_queue text, behind_own boolean, for_job uuid default null)
returns integer language plpgsql stable
set enable_seqscan = off set enable_sort = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
begin
  return greatest(
    (select -q.priority from procrastinate.procrastinate_jobs q where q.status = 'todo' and q.queue_name = of_queue
     order by q.priority desc, q.id limit 1),
    case when behind_own then (
      select least(-q.priority + case when j.status = 'queued' and j.id is distinct from for_job
                                 then (z.runs - 1) * ledger.virtual_cost(of_tenant, of_queue) else 0 end, 2147483647)
      from procrastinate.procrastinate_jobs q join public.job_steps s on s.id = (q.args ->> 'step_run')::uuid
      join public.jobs j on j.id = s.job_id join ops.job_sizes z on z.graph = j.graph and z.queue = s.queue
      where q.status = 'todo' and q.args ->> 'tenant' = of_tenant::text and q.queue_name = of_queue
      order by -q.priority desc limit 1) end,
    0)::integer;
end $$;

-- Give step runs that are not moving a queue job each, in the order given, or hold them while their tenant is paused.
-- The caller holds the job's row, or the step runs' rows.
create or replace function ledger.enqueue(runs uuid[], behind_own boolean default false) returns void
language plpgsql as $$
begin
  perform ledger.wake(w.queue) from (select distinct s.queue from public.job_steps s where s.id = any(runs)) w;
  with runs as materialized (
    select s.id, s.tenant_id, s.queue,
           (sum(coalesce(z.runs, 1)) over (partition by s.tenant_id, s.queue order by r.nr)
            - coalesce(z.runs, 1))::bigint + 1 as nr
    from unnest(enqueue.runs) with ordinality r(id, nr) join public.job_steps s on s.id = r.id
    left join public.jobs j on behind_own and j.id = s.job_id and j.status = 'queued'
    left join ops.job_sizes z on z.graph = j.graph and z.queue = s.queue
  ), shares as materialized (
    select d.tenant_id, d.queue, ledger.virtual_start(d.tenant_id, d.queue, behind_own) as start,
           ledger.virtual_cost(d.tenant_id, d.queue) as cost, ledger.tenant_paused(d.tenant_id) as paused
    from (select distinct r.tenant_id, r.queue from runs r) d
  ), moved as (
    update public.job_steps s set
      status = case when h.paused then 'held' else 'queued' end,
      queue_job_id = case when not h.paused then nextval('procrastinate.procrastinate_jobs_id_seq') end,
      priority = ledger.place(h.start, h.cost, r.nr), queued_at = ledger.now(), worker_id = null, due_at = null, finished_at = null
    from runs r join shares h using (tenant_id, queue)
    where s.id = r.id
    returning s.id, s.tenant_id, s.queue, s.queue_job_id, s.priority
  )
  insert into procrastinate.procrastinate_jobs (id, queue_name, task_name, priority, args)
  select m.queue_job_id, m.queue, 'run_step', m.priority, ledger.queue_args(m.id, m.tenant_id)
  from moved m where m.queue_job_id is not null;
end $$;

-- The one step run of a step that is not mapped, with its queue job.
create or replace function ledger.open_single(job public.jobs, step public.pipeline_steps) returns void language plpgsql as $$
declare
  paused boolean := ledger.tenant_paused(job.tenant_id);
begin
  insert into public.job_step_totals (job_id, tenant_id, step, total, opened_at)
  values (job.id, job.tenant_id, step.name, 1, ledger.now());
  with run as (
    insert into public.job_steps (job_id, tenant_id, step, status, queue, priority, queue_job_id, created_at, queued_at)
    values (job.id, job.tenant_id, step.name, case when paused then 'held' else 'queued' end, step.queue,
            ledger.place(ledger.virtual_start(job.tenant_id, step.queue, job.status = 'queued', job.id),
                         ledger.virtual_cost(job.tenant_id, step.queue), 1),
            case when not paused then nextval('procrastinate.procrastinate_jobs_id_seq') end, ledger.now(), ledger.now())
    returning id, tenant_id, queue, priority, queue_job_id
  )
  insert into procrastinate.procrastinate_jobs (id, queue_name, task_name, priority, args)
  select r.queue_job_id, r.queue, 'run_step', r.priority, ledger.queue_args(r.id, r.tenant_id)
  from run r where r.queue_job_id is not null;
  perform ledger.wake(step.queue);
end $$;

-- Stop every step run of a job that could still move; or of some of its steps only.
create or replace function ledger.stop_step_runs(of_job uuid, of_steps text[] default null) returns integer
language plpgsql as $$
declare
  runs uuid[];
  queue_jobs bigint[];
begin
  select array_agg(l.id), array_agg(l.queue_job_id) filter (where l.queue_job_id is not null) into runs, queue_jobs
  from (select s.id, s.queue_job_id from public.job_steps s
        where s.job_id = of_job and s.finished_at is null
          and (of_steps is null or s.step = any(of_steps))
        for update) l;
  perform ledger.withdraw(queue_jobs);
  update public.job_steps s set
    status = 'cancelled', queue_job_id = null, worker_id = null, due_at = null, finished_at = ledger.now()
  where s.id = any(runs);
  update public.reviews r set status = 'withdrawn', decided_at = ledger.now()
  where r.job_id = of_job and r.status = 'open' and (of_steps is null or r.step = any(of_steps));
  return coalesce(cardinality(runs), 0);
end $$;

-- Whether nothing but open gates could move a job.
create or replace function ledger.only_gates_left(of_job uuid) returns boolean language plpgsql stable as $$
begin
  return exists (select from public.reviews r where r.job_id = of_job and r.status = 'open')
    and not exists (select from public.job_steps s
                    where s.job_id = of_job and s.finished_at is null and s.status in ('queued', 'held', 'running', 'retrying'));
end $$;

-- The job that an equal request made before; a refusal when the key was used for something else.
create or replace function ledger.find_submitted(for_tenant uuid, key text, natural_like text, payload text)
returns jsonb language plpgsql as $$
declare
  job public.jobs;
begin
  if key is null then
    select j.* into job from public.jobs j where j.tenant_id = for_tenant and j.natural_key = natural_like
      and (j.ended is null or j.ended = 'completed');
  else
    select j.* into job from public.jobs j where j.tenant_id = for_tenant and j.idempotency_key = key;
  end if;
  if job.id is null then
    -- It ended between our insert and this look: the sender may simply try again.
    perform ledger.refuse(409, 'try_again', 'An equal job ended at this very moment. Please send the request again.');
  elsif job.payload_digest <> payload then
    perform ledger.refuse(422, 'idempotency_key_reused',
      format('This Idempotency-Key was already used for another request, which made job %s.', job.id),
      jsonb_build_object('job_id', job.id));
  end if;
  return jsonb_build_object('job', job.id, 'created', false);
end $$;

-- Fail the jobs that were to be done by now. Returns how many.
create or replace function ledger.expire_jobs(only_job uuid default null) returns integer language plpgsql as $$
declare
  late record;
  job public.jobs;
  expired integer := 0;
begin
  for late in
    select j.id from public.jobs j
    where j.deadline_at <= ledger.now() and j.finished_at is null and (only_job is null or j.id = only_job)
    order by j.id limit 1000
  loop
    job := ledger.try_lock_job(late.id);
    continue when job.id is null or job.finished_at is not null;
    job := ledger.fail_job(job, 'deadline_exceeded', 'It was not done in the time it was given.');
    perform ledger.save(job);
    expired := expired + 1;
  end loop;
  return expired;
end $$;

-- Stop beginning new step runs of a queue ('queue', name) or of a tenant ('tenant', id). What runs goes on.
create or replace function ledger.pause(of_scope text, of_name text, why text default '') returns void language plpgsql as $$
declare
  taken procrastinate.procrastinate_jobs[];
begin
  insert into ops.pauses (scope, name, reason, since) values (of_scope, of_name, why, ledger.now())
  on conflict (scope, name) do update set reason = excluded.reason;
  if of_scope = 'tenant' then
    -- Paused rows at the head of the queue would be walked over by every claim: they wait in the ledger instead.
    taken := array(
      select q from procrastinate.procrastinate_jobs q where q.status = 'todo' and q.args ->> 'tenant' = of_name
      for update skip locked);
    update public.job_steps s set status = 'held', queue_job_id = null from unnest(taken) t
    where s.id = (t.args ->> 'step_run')::uuid and s.queue_job_id = t.id and s.status = 'queued';
    delete from procrastinate.procrastinate_jobs q using unnest(taken) t where q.id = t.id;
  end if;
end $$;

-- Go on. False when it was not paused.
create or replace function ledger.resume(of_scope text, of_name text) returns boolean language plpgsql as $$
declare
  was_paused boolean;
begin
  delete from ops.pauses p where p.scope = of_scope and p.name = of_name;
  was_paused := found;
  if of_scope = 'tenant' then
    perform ledger.enqueue(array(
      select s.id from public.job_steps s join public.jobs j on j.id = s.job_id
      where s.tenant_id = of_name::uuid and s.status = 'held'
        and s.queue_job_id is null and s.due_at is null and s.finished_at is null and s.queued_at is not null
      order by j.status = 'queued', s.queued_at, s.id for update of s), behind_own => true);
  else
    -- What stood because of the pause gets its full time again before it counts as waiting for nobody.
    insert into ops.pickups (queue, at) values (of_name, ledger.now()) on conflict (queue) do update set at = excluded.at;
    perform ledger.wake(of_name);
  end if;
  return was_paused;
end $$;

-- Attempts whose worker is dead, or lives and has not had them in hand for a lease: try again, or fail with
-- worker_lost when it happened too often.
create or replace function ledger.recover_lost(lease_s double precision, max_losses integer, only_job uuid default null)
returns integer language plpgsql as $$
declare
  lost record;
  job public.jobs;
  run public.job_steps;
  repairs integer := 0;
begin
  for lost in
    select s.id, s.job_id, s.attempt from public.job_steps s
    where s.status = 'running' and s.id in (
        select (q.args ->> 'step_run')::uuid from procrastinate.procrastinate_jobs q
        where q.status = 'doing' and q.task_name = 'run_step' and only_job is null
        union all
        select r.id from public.job_steps r where r.job_id = only_job and r.finished_at is null)
      and not exists (select from ops.workers w where w.id = s.worker_id
                      and w.heartbeat_at > ledger.now() - make_interval(secs => lease_s)
                      and (w.held ->> s.id::text = s.attempt::text
                           or s.started_at > ledger.now() - make_interval(secs => lease_s)))
    order by s.job_id, s.id limit 1000
  loop
    job := ledger.try_lock_job(lost.job_id);
    continue when job.id is null;
    run := ledger.end_attempt(lost.id, lost.attempt, 'queued');
    continue when run.id is null;
    insert into ops.failures (job_id, step, item, attempt, at, code, detail)
    values (job.id, run.step, run.item, run.attempt, ledger.now(), 'worker_lost',
            format('worker %s sent no heartbeat, or did not have this in hand, for %s s', run.worker_id, lease_s));
    update public.job_steps s set losses = s.losses + 1 where s.id = run.id;
    if run.losses + 1 >= max_losses then
      job := ledger.give_up(job, run, 'worker_lost', format(
        'The worker died %s times while working on this. It was stopped so that it cannot harm other work.',
        run.losses + 1));
    else
      job := ledger.retry_step(job, run, 'worker_lost', 'The worker died; another takes this up.', 0);
      job := ledger.note(job, 'repaired', 'A dead worker''s step was queued again.', '{"case": "worker_lost"}',
                         run.step, run.item, run.attempt);
    end if;
    perform ledger.save(job);
    repairs := repairs + 1;
  end loop;
  return repairs;
end $$;

-- Step runs that should be in the queue and are not, or whose queue job was finished behind the ledger's back; and those
-- that run, as far as the ledger knows, without a queue job by which they would be missed when their worker dies.
create or replace function ledger.requeue_orphans(only_job uuid default null) returns integer language plpgsql as $$
declare
  orphan record;
  job public.jobs;
  run public.job_steps;
  repairs integer := 0;
begin
  for orphan in
    select s.id, s.job_id, s.status, n.stands_as from public.job_steps s
    join (values ('queued', 'todo'::procrastinate.procrastinate_job_status), ('running', 'doing')) n(status, stands_as)
      on n.status = s.status
    where s.finished_at is null and (only_job is null or s.job_id = only_job)
      and not exists (select from procrastinate.procrastinate_jobs q where q.id = s.queue_job_id and q.status = n.stands_as)
    order by s.job_id, s.id limit 1000
  loop
    job := ledger.try_lock_job(orphan.job_id);
    -- Look again under the lock: a worker may have begun or ended it meanwhile.
    select s.* into run from public.job_steps s where s.id = orphan.id and s.status = orphan.status
      and not exists (select from procrastinate.procrastinate_jobs q where q.id = s.queue_job_id and q.status = orphan.stands_as);
    continue when job.id is null or run.id is null;
    perform ledger.withdraw(array[run.queue_job_id]);
    if run.status = 'queued' then
      perform ledger.enqueue(array[run.id]);
      job := ledger.note(job, 'repaired', 'A step that was missing from the queue was queued again.',
                         '{"case": "queue_job_missing"}');
    else
      insert into procrastinate.procrastinate_jobs (id, queue_name, task_name, priority, args, status)
      values (run.queue_job_id, run.queue, 'run_step', run.priority, ledger.queue_args(run.id, run.tenant_id), 'doing');
      job := ledger.note(job, 'repaired', 'The queue job of a running step was missing and was put back.',
                         '{"case": "queue_job_missing"}');
    end if;
    perform ledger.save(job);
    repairs := repairs + 1;
  end loop;
  return repairs;
end $$;

-- Jobs nobody came for: fail them, so that whoever waits is told. A long but moving backlog is left alone.
create or replace function ledger.time_out_queued(queue_timeout_s double precision, only_job uuid default null)
returns integer language plpgsql as $$
declare
  waiting record;
  job public.jobs;
  deadline timestamptz := ledger.now() - make_interval(secs => queue_timeout_s);
  standing text[] := ledger.standing_queues(deadline);
  repairs integer := 0;
begin
  for waiting in
    select s.job_id, s.queue, min(s.queued_at) as since
    from (select r.job_id, r.queue, r.queued_at from public.job_steps r
          where r.status = 'queued' and r.finished_at is null and r.due_at is null and r.queued_at < deadline and (only_job is null or r.job_id = only_job)
            and r.queue = any(standing)
          order by r.queue, r.queued_at limit 1000) s
    group by s.job_id, s.queue order by s.job_id
  loop
    job := ledger.try_lock_job(waiting.job_id);
    continue when job.id is null or job.status not in ('queued', 'running') or not exists (
      select from public.job_steps s
      where s.job_id = job.id and s.queue = waiting.queue and s.status = 'queued' and s.queued_at < deadline);
    job := ledger.fail_job(job, 'queue_timeout', format(
      'It waited %s minutes to start and no worker picked it up.',
      ceil(extract(epoch from ledger.now() - waiting.since) / 60)));
    perform ledger.save(job);
    repairs := repairs + 1;
  end loop;
  return repairs;
end $$;

-- Drift: rows here mean that an invariant of the design is broken. Empty at every instant. ---------------------

create or replace view ops.drift as
  select 1 as invariant, 'a queued step run has no queue job' as problem, s.job_id, s.id as step_run
  from public.job_steps s
  left join procrastinate.procrastinate_jobs q on q.id = s.queue_job_id and q.status = 'todo'
  where s.finished_at is null and s.status = 'queued' and q.id is null
union all
  select 1, 'a running step run has no queue job', s.job_id, s.id
  from public.job_steps s
  left join procrastinate.procrastinate_jobs q on q.id = s.queue_job_id and q.status = 'doing'
  where s.finished_at is null and s.status = 'running' and q.id is null
union all
  select 1, 'a job that is not over has nothing that could move it', j.id, null
  from public.jobs j
  where j.finished_at is null
    and not exists (select from public.job_steps s where s.job_id = j.id
                    and s.status in ('queued', 'held', 'running', 'retrying', 'gated'))
union all
  select 1, 'an item waits although its step is open', s.job_id, s.id
  from public.job_steps s join public.job_step_totals t on t.job_id = s.job_id and t.step = s.step
  join public.jobs j on j.id = s.job_id
  join public.pipeline_steps p on p.graph = j.graph and p.name = s.step
  where s.finished_at is null and s.status = 'pending' and t.opened_at is not null and ledger.item_ready(s, p)
union all
  select 2, 'a step is done and its successor is not open', j.id, null
  from public.jobs j join public.pipeline_steps p on p.graph = j.graph
  left join public.job_step_totals own on own.job_id = j.id and own.step = p.name
  where j.finished_at is null and j.status <> 'awaiting_review' and own.opened_at is null
    and not exists (
      select from unnest(p.after) upstream
      left join public.job_step_totals t on t.job_id = j.id and t.step = upstream where t.finished_at is null)
union all
  select 2, 'a join has counted wrongly', t.job_id, null
  from public.job_step_totals t join public.jobs j on j.id = t.job_id
  where j.finished_at is null and j.status <> 'awaiting_review' and t.completed <> (
    select count(*) from public.job_steps s where s.job_id = t.job_id and s.step = t.step and s.status in ('completed', 'skipped'))
union all
  -- One that was withdrawn while somebody was claiming it is there until their claim is over, and cannot begin anything.
  select 3, 'a step run has two queue jobs', s.job_id, s.id
  from (select (q.args ->> 'step_run')::uuid as id from procrastinate.procrastinate_jobs q
        where q.task_name = 'run_step' and q.status = 'doing' group by 1 having count(*) > 1) twice
  join public.job_steps s on s.id = twice.id
union all
  select 3, 'a running step run has no attempt number', s.job_id, s.id
  from public.job_steps s where s.finished_at is null and s.status = 'running' and s.attempt < 1
union all
  select 4, 'a job that is over has a step run that could move', s.job_id, s.id
  from public.job_steps s join public.jobs j on j.id = s.job_id
  where s.finished_at is null and j.finished_at is not null
union all
  select 5, 'a job is queued although a step of it runs', s.job_id, s.id
  from public.job_steps s join public.jobs j on j.id = s.job_id
  where s.finished_at is null and s.status = 'running' and j.status = 'queued'
union all
  select 5, 'a queue job is taken although its step run does not run', s.job_id, s.id
  from procrastinate.procrastinate_jobs q join public.job_steps s on s.id = (q.args ->> 'step_run')::uuid
  where q.task_name = 'run_step' and q.status = 'doing' and s.status <> 'running';

revoke all on all functions in schema ledger from anon, authenticated, public;
