-- A sweep costs the same at any depth. What it compares row by row, the open step runs and the queue, it looks at in
-- windows: at so many of each a time, and from there on the next time. Up to that many, each sweep sees all of them.

create table ops.sweep_reach (
  singleton boolean primary key default true check (singleton),
  job_id uuid not null,
  queue_job_id bigint not null
);
insert into ops.sweep_reach (job_id, queue_job_id) values ('00000000-0000-0000-0000-000000000000', 0);
revoke all on ops.sweep_reach from anon, authenticated, public;

-- Step runs that should be in the queue and are not, or whose queue job was finished behind the ledger's back; and those
-- that run, as far as the ledger knows, without a queue job by which they would be missed when their worker dies.
-- `most`: step runs in a window, and as many more as its last job has.
drop function ledger.requeue_orphans(uuid);
create function ledger.requeue_orphans(only_job uuid default null, most integer default 20000)
returns integer language plpgsql as $$
declare
  from_job uuid := only_job;
  to_job uuid := only_job;
  orphan record;
  job public.jobs;
  run public.job_steps;
  found_ones integer := 0;
  repairs integer := 0;
begin
  if only_job is null then
    select r.job_id into from_job from ops.sweep_reach r for update skip locked;
    if not found then
      return 0;  -- another sweep is at it
    end if;
    select s.job_id into to_job from public.job_steps s
    where s.finished_at is null and s.job_id > from_job order by s.job_id offset most - 1 limit 1;
  end if;
  for orphan in
    select s.id, s.job_id, s.status, n.stands_as from public.job_steps s
    join (values ('queued', 'todo'::procrastinate.procrastinate_job_status), ('running', 'doing')) n(status, stands_as)
      on n.status = s.status
    where s.finished_at is null and s.job_id >= from_job and s.job_id <= coalesce(to_job, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
      -- Asked one by one, by the key: no plan may read the whole queue for a window.
      and (select true from procrastinate.procrastinate_jobs q where q.id = s.queue_job_id and q.status = n.stands_as) is null
    order by s.job_id, s.id limit 1000
  loop
    found_ones := found_ones + 1;
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
  if only_job is null then
    update ops.sweep_reach r set job_id = coalesce(
      case when found_ones = 1000 then orphan.job_id else to_job end, '00000000-0000-0000-0000-000000000000');
  end if;
  return repairs;
end $$;

-- Queue jobs whose step run is over or does not know them. `most`: queue jobs in a window.
drop function ledger.withdraw_strays();
create function ledger.withdraw_strays(most integer default 20000) returns integer language plpgsql as $$
declare
  from_id bigint;
  looked record;
begin
  select r.queue_job_id into from_id from ops.sweep_reach r for update skip locked;
  if not found then
    return 0;
  end if;
  select max(w.id) as last, count(*) = most as more,
         coalesce(array_agg(w.id) filter (where w.task_name = 'run_step' and (
           select true from public.job_steps s where s.id = (w.args ->> 'step_run')::uuid and s.queue_job_id = w.id
         ) is null), '{}') as strays
  into looked
  from (select q.* from procrastinate.procrastinate_jobs q
        where q.id > from_id order by q.id limit most) w;
  perform ledger.withdraw(looked.strays);
  update ops.sweep_reach r set queue_job_id = case when looked.more then looked.last else 0 end;
  return cardinality(looked.strays);
end $$;

-- Whose worker ends is found by it; without this, each end of a worker reads the whole queue for its foreign key.
create index queue_jobs_by_worker on procrastinate.procrastinate_jobs (worker_id) where worker_id is not null;

revoke all on all functions in schema ledger from anon, authenticated, public;
