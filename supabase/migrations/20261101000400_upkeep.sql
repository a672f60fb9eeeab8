-- Upkeep: what keeps moving when something died, and the views that prove that nothing is lost.

-- A worker says that it is alive, which queues it took work from, and which attempts it believes to hold
-- (`held`: {step run: attempt}); `took`: how many from each of `took_from`, one if not said. Returns the step runs that are
-- no longer its own: cancelled, lost or given away.
create function ledger.beat(
  worker uuid, on_host text, with_pid integer, of_deploy text, of_queues text[], took_from text[], held jsonb,
  is_stopping boolean, took integer[] default null
) returns uuid[] language plpgsql as $$
begin
  insert into ops.workers as w (id, host, pid, deploy, queues, started_at, heartbeat_at, held)
  values (worker, on_host, with_pid, of_deploy, of_queues, ledger.now(), ledger.now(), beat.held)
  on conflict (id) do update set heartbeat_at = ledger.now(), stopping = is_stopping, held = excluded.held;
  insert into ops.pickups as u (queue, at, counted, counting_since)
  select t.queue, ledger.now(), coalesce(t.taken, 1), ledger.now() from unnest(took_from, took) t(queue, taken)
  order by t.queue
  on conflict (queue) do update set
    at = excluded.at,
    counted = case when u.counting_since < ledger.now() - interval '1 minute' then 0 else u.counted end + excluded.counted,
    counting_since = case when u.counting_since < ledger.now() - interval '1 minute' then ledger.now()
                     else u.counting_since end,
    per_s = case when u.counting_since < ledger.now() - interval '1 minute'
            then u.counted / extract(epoch from ledger.now() - u.counting_since) else u.per_s end;
  return array(
    select h.key::uuid from jsonb_each_text(beat.held) h
    left join public.job_steps s on s.id = h.key::uuid
      and s.status = 'running' and s.worker_id = worker and s.attempt = h.value::integer
    where s.id is null);
end $$;

-- A worker that ended in good order is forgotten.
create function ledger.sign_off(worker uuid) returns void language sql volatile as $$
  delete from ops.workers w where w.id = worker
$$;

-- Queue the step runs whose retry is due. Returns how many, and the seconds until the next one (null: none waits).
create function ledger.promote_due(most integer, out promoted integer, out next_in double precision)
language plpgsql as $$
declare
  runs uuid[] := array(
    select s.id from public.job_steps s where s.status = 'retrying' and s.due_at <= ledger.now()
    order by s.due_at limit most for update skip locked);
begin
  perform ledger.enqueue(runs);
  promoted := cardinality(runs);
  select extract(epoch from min(s.due_at) - ledger.now()) into next_in from public.job_steps s where s.status = 'retrying';
end $$;

-- Reconciling -------------------------------------------------------------------------------------
-- One function, called by every worker's sweep, by the read path of a job that looks stale, and by pg_cron where
-- there is one. Each repair is one transition with its event. `only_job` narrows it to one job. Jobs that somebody is
-- moving right now are left to them.

create function ledger.reconcile(
  lease_s double precision, queue_timeout_s double precision, max_losses integer, only_job uuid default null
) returns integer language plpgsql as $$
declare
  repairs integer := 0;
begin
  repairs := repairs + ledger.recover_lost(lease_s, max_losses, only_job);
  repairs := repairs + ledger.requeue_orphans(only_job);
  repairs := repairs + ledger.time_out_queued(queue_timeout_s, only_job);
  repairs := repairs + ledger.expire_gates(only_job) + ledger.expire_jobs(only_job);
  if only_job is null then
    repairs := repairs + ledger.withdraw_strays();
    delete from ops.workers w where w.heartbeat_at < ledger.now() - interval '1 day';
  end if;
  return repairs;
end $$;

-- Attempts whose worker is dead, or lives and has not had them in hand for a lease: try again, or fail with
-- worker_lost when it happened too often.
create function ledger.recover_lost(lease_s double precision, max_losses integer, only_job uuid default null)
returns integer language plpgsql as $$
declare
  lost record;
  job public.jobs;
  run public.job_steps;
  repairs integer := 0;
begin
  for lost in
    select s.id, s.job_id, s.attempt from public.job_steps s
    where s.status = 'running' and (only_job is null or s.job_id = only_job)
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

-- Step runs that should be in the queue and are not, or whose queue job was finished behind the ledger's back.
create function ledger.requeue_orphans(only_job uuid default null) returns integer language plpgsql as $$
declare
  orphan record;
  job public.jobs;
  repairs integer := 0;
begin
  for orphan in
    select s.id, s.job_id from public.job_steps s
    where s.status = 'queued' and (only_job is null or s.job_id = only_job)
      and not exists (select from procrastinate.procrastinate_jobs q where q.id = s.queue_job_id and q.status = 'todo')
    order by s.job_id, s.id limit 1000
  loop
    job := ledger.try_lock_job(orphan.job_id);
    -- Look again under the lock: a worker may have begun it meanwhile.
    continue when job.id is null or not exists (
      select from public.job_steps s where s.id = orphan.id and s.status = 'queued'
        and not exists (select from procrastinate.procrastinate_jobs q where q.id = s.queue_job_id and q.status = 'todo'));
    perform ledger.withdraw(array(select s.queue_job_id from public.job_steps s where s.id = orphan.id));
    perform ledger.enqueue(array[orphan.id]);
    job := ledger.note(job, 'repaired', 'A step that was missing from the queue was queued again.',
                       '{"case": "queue_job_missing"}');
    perform ledger.save(job);
    repairs := repairs + 1;
  end loop;
  return repairs;
end $$;

-- The queues from which nothing was picked up since a time, although it could have been.
create function ledger.standing_queues(since timestamptz) returns text[] language sql stable as $$
  select array(
    select q from (select distinct p.queue as q from public.pipeline_steps p) known
    where not exists (select from ops.pickups u where u.queue = known.q and u.at >= since)
      and not exists (select from ops.pauses p where p.scope = 'queue' and p.name = known.q)
      and not exists (select from ops.slowdowns d where d.queue = known.q and d.until >= since))
$$;

-- Jobs nobody came for: fail them, so that whoever waits is told. A long but moving backlog is left alone.
create function ledger.time_out_queued(queue_timeout_s double precision, only_job uuid default null)
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
          where r.status = 'queued' and r.queued_at < deadline and (only_job is null or r.job_id = only_job)
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

-- Queue jobs whose step run is not waiting for them: left behind by nobody we know, but never to be run.
create function ledger.withdraw_strays() returns integer language plpgsql as $$
declare
  strays bigint[] := array(
    select q.id from procrastinate.procrastinate_jobs q
    left join public.job_steps s on s.id = (q.args ->> 'step_run')::uuid and s.queue_job_id = q.id
    where q.task_name = 'run_step' and s.id is null limit 1000);
begin
  perform ledger.withdraw(strays);
  return cardinality(strays);
end $$;

-- Forget results that no job refers to and that nobody has used for a time. At most `most`; returns how many.
create function ledger.prune_results(older_than interval, most integer default 5000) returns integer
language plpgsql as $$
declare
  pruned integer;
begin
  delete from public.step_results r where r.id in (
    select o.id from public.step_results o
    where o.used_at < ledger.now() - older_than
      and not exists (select from public.job_steps s where s.result_id = o.id)
    order by o.used_at limit most for update skip locked);
  get diagnostics pruned = row_count;
  return pruned;
end $$;

-- The sweep for callers that know no settings: pg_cron. Does nothing until a release has written them.
create function ledger.reconcile_as_released() returns integer language plpgsql as $$
declare
  settings ops.sweep_settings;
  repairs integer;
begin
  select * into settings from ops.sweep_settings;
  if settings.singleton is null then
    return 0;
  end if;
  repairs := ledger.reconcile(settings.lease_s, settings.queue_timeout_s, settings.max_losses);
  perform ledger.sign_chore('sweep', null, repairs);
  return repairs;
end $$;

create function ledger.release_settings(lease double precision, queue_timeout double precision, losses integer)
returns void language sql volatile as $$
  insert into ops.sweep_settings (lease_s, queue_timeout_s, max_losses) values (lease, queue_timeout, losses)
  on conflict (singleton) do update set lease_s = excluded.lease_s, queue_timeout_s = excluded.queue_timeout_s,
    max_losses = excluded.max_losses
$$;

-- Remember that a chore ran, for readiness and `doctor`.
create function ledger.sign_chore(chore text, by_worker uuid, with_repairs integer) returns void
language sql volatile as $$
  insert into ops.chores as c (name, ran_at, worker_id, repairs) values (chore, ledger.now(), by_worker, with_repairs)
  on conflict (name) do update set ran_at = excluded.ran_at, worker_id = excluded.worker_id,
    repairs = c.repairs + excluded.repairs
$$;

-- True for the one caller whose turn it is to run a chore, at most once an interval over all workers. Whether the chore
-- then ends well is for `sign_chore` to say: one that always fails must not look as if it ran.
create function ledger.take_turn(chore text, by_worker uuid, interval_s double precision) returns boolean
language plpgsql as $$
declare
  taken integer;
begin
  insert into ops.chores as c (name, taken_at, worker_id) values (chore, ledger.now(), by_worker)
  on conflict (name) do update set taken_at = excluded.taken_at, worker_id = excluded.worker_id
    where c.taken_at is null or c.taken_at <= ledger.now() - make_interval(secs => interval_s);
  get diagnostics taken = row_count;
  return taken > 0;
end $$;

-- "Why is it waiting?" -------------------------------------------------------------------------------
-- What a job waits for, for people: null when it is over or being worked on. Callable by users for their own jobs.
create function access.waiting_for(of_job uuid) returns jsonb
language plpgsql stable security definer set search_path = '' as $$
declare
  job public.jobs;
  run public.job_steps;
  ahead integer;
begin
  select j.* into job from public.jobs j where j.id = of_job and j.tenant_id in (select access.tenants());
  if job.id is null or job.status in ('completed', 'failed', 'cancelled')
     or exists (select from public.job_steps s where s.job_id = job.id and s.status = 'running') then
    return null;
  end if;
  select s.* into run from public.job_steps s
  where s.job_id = job.id and s.status in ('queued', 'retrying', 'held', 'gated')
  order by array_position('{queued,retrying,gated,held}', s.status), coalesce(s.due_at, s.queued_at) limit 1;
  if run.status = 'retrying' then
    return jsonb_build_object('reason', 'retry', 'until', run.due_at, 'code', run.error_code,
      'message', format('It tries again at %s. %s', to_char(run.due_at at time zone 'UTC', 'HH24:MI:SS "UTC"'),
                        run.error_message));
  elsif run.status = 'gated' then
    return jsonb_build_object('reason', 'review', 'step', run.step, 'message', 'A reviewer has to decide.');
  elsif run.status = 'held' then
    return jsonb_build_object('reason', 'tenant_paused',
      'message', concat_ws(' ', 'All work of this tenant is paused.', ledger.pause_reason('tenant', job.tenant_id::text)));
  elsif ledger.open_queues(array[run.queue]) = '{}' then
    return ledger.closed_queue(run.queue);
  elsif not ledger.served(run.queue) then
    return jsonb_build_object('reason', 'no_worker', 'queue', run.queue,
      'message', format('No worker is running for the queue "%s".', run.queue));
  end if;
  ahead := ledger.queue_ahead(run.queue, run.queue_job_id);
  return jsonb_build_object('reason', 'queue', 'queue', run.queue, 'ahead', ahead,
    'estimate_s', ledger.estimate_s(run.queue, ahead), 'message', case when ahead = 0 then 'It is next in line.'
                    when ahead >= 1000 then 'More than 1000 steps are ahead of it.'
                    else format('%s %s ahead of it.', ahead, case ahead when 1 then 'step is' else 'steps are' end) end);
end $$;
revoke all on function access.waiting_for(uuid) from public;
grant execute on function access.waiting_for(uuid) to authenticated;

create function ledger.pause_reason(of_scope text, of_name text) returns text language sql stable as $$
  select nullif(p.reason, '') from ops.pauses p where p.scope = of_scope and p.name = of_name
$$;

-- Why nothing is begun from a queue: a provider asked us to slow down, or an operator paused it.
create function ledger.closed_queue(of_queue text) returns jsonb language sql stable as $$
  select coalesce(
    (select jsonb_build_object('reason', 'rate_limit', 'queue', of_queue, 'until', d.until, 'message', format(
       'A provider asked us to slow down until %s.', to_char(d.until at time zone 'UTC', 'HH24:MI:SS "UTC"')))
     from ops.slowdowns d where d.queue = of_queue and d.until > ledger.now()),
    jsonb_build_object('reason', 'queue_paused', 'queue', of_queue, 'message',
      concat_ws(' ', format('The queue "%s" is paused.', of_queue), ledger.pause_reason('queue', of_queue))))
$$;

-- Whether a worker that is alive (by a generous measure) serves a queue.
create function ledger.served(of_queue text) returns boolean language sql stable as $$
  select exists (select from ops.workers w where of_queue = any(w.queues) and not w.stopping
                 and w.heartbeat_at > ledger.now() - interval '60 seconds')
$$;

-- Seconds until as many step runs of a queue have been begun, at the rate of the last minutes; null: not known.
create function ledger.estimate_s(of_queue text, ahead integer) returns integer language sql stable as $$
  select ceil((ahead + 1) / u.per_s)::integer from ops.pickups u
  where u.queue = of_queue and u.per_s > 0 and u.at > ledger.now() - interval '5 minutes'
$$;

-- How many queue jobs of a queue come before one, counted up to 1000.
create function ledger.queue_ahead(of_queue text, queue_job bigint) returns integer language sql stable as $$
  select count(*)::integer from (
    select from procrastinate.procrastinate_jobs q, procrastinate.procrastinate_jobs mine
    where mine.id = queue_job and q.status = 'todo' and q.queue_name = of_queue
      and (q.priority > mine.priority or (q.priority = mine.priority and q.id < mine.id)) limit 1000) ahead
$$;

-- Drift: rows here mean that an invariant of the design is broken. Empty at every instant. -------------

create view ops.drift as
  select 1 as invariant, 'a queued step run has no queue job' as problem, s.job_id, s.id as step_run
  from public.job_steps s
  left join procrastinate.procrastinate_jobs q on q.id = s.queue_job_id and q.status = 'todo'
  where s.status = 'queued' and q.id is null
union all
  select 1, 'a running step run has no queue job', s.job_id, s.id
  from public.job_steps s
  left join procrastinate.procrastinate_jobs q on q.id = s.queue_job_id and q.status = 'doing'
  where s.status = 'running' and q.id is null
union all
  select 1, 'a job that is not over has nothing that could move it', j.id, null
  from public.jobs j
  where j.status in ('queued', 'running', 'awaiting_review')
    and not exists (select from public.job_steps s where s.job_id = j.id
                    and s.status in ('queued', 'held', 'running', 'retrying', 'gated'))
union all
  select 1, 'an item waits although its step is open', s.job_id, s.id
  from public.job_steps s join public.job_step_totals t on t.job_id = s.job_id and t.step = s.step
  join public.jobs j on j.id = s.job_id
  join public.pipeline_steps p on p.graph = j.graph and p.name = s.step
  where s.status = 'pending' and t.opened_at is not null and ledger.item_ready(s, p)
union all
  select 2, 'a step is done and its successor is not open', j.id, null
  from public.jobs j join public.pipeline_steps p on p.graph = j.graph
  left join public.job_step_totals own on own.job_id = j.id and own.step = p.name
  where j.status in ('queued', 'running') and own.opened_at is null
    and not exists (
      select from unnest(p.after) upstream
      left join public.job_step_totals t on t.job_id = j.id and t.step = upstream where t.finished_at is null)
union all
  select 2, 'a join has counted wrongly', t.job_id, null
  from public.job_step_totals t join public.jobs j on j.id = t.job_id
  where j.status in ('queued', 'running') and t.completed <> (
    select count(*) from public.job_steps s where s.job_id = t.job_id and s.step = t.step and s.status in ('completed', 'skipped'))
union all
  -- One that was withdrawn while somebody was claiming it is there until their claim is over, and cannot begin anything.
  select 3, 'a step run has two queue jobs', s.job_id, s.id
  from (select (q.args ->> 'step_run')::uuid as id from procrastinate.procrastinate_jobs q
        where q.task_name = 'run_step' and q.status = 'doing' group by 1 having count(*) > 1) twice
  join public.job_steps s on s.id = twice.id
union all
  select 3, 'a running step run has no attempt number', s.job_id, s.id
  from public.job_steps s where s.status = 'running' and s.attempt < 1
union all
  select 4, 'a job that is over has a step run that could move', s.job_id, s.id
  from public.job_steps s join public.jobs j on j.id = s.job_id
  where s.status in ('pending', 'queued', 'held', 'running', 'retrying', 'gated')
    and j.status in ('completed', 'failed', 'cancelled')
union all
  select 5, 'a job is queued although a step of it runs', s.job_id, s.id
  from public.job_steps s join public.jobs j on j.id = s.job_id
  where s.status = 'running' and j.status = 'queued'
union all
  select 5, 'a queue job is taken although its step run does not run', s.job_id, s.id
  from procrastinate.procrastinate_jobs q join public.job_steps s on s.id = (q.args ->> 'step_run')::uuid
  where q.task_name = 'run_step' and q.status = 'doing' and s.status <> 'running';

revoke all on all tables in schema ops from anon, authenticated, public;
revoke all on all sequences in schema ops from anon, authenticated, public;
revoke all on all functions in schema ledger from anon, authenticated, public;
revoke all on all functions in schema access from anon, public;
