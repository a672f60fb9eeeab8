-- Moving forward: opening steps, laying out items, joins, and the end of a job. Called by other transitions only, which hold
-- the job's row.

-- Let a step move whose inputs are all there. Its items, if it is mapped, were laid out when their source completed.
create function ledger.open_step(inout job public.jobs, step public.pipeline_steps) language plpgsql as $$
declare
  width public.job_step_totals;
begin
  if step.gate then
    job := ledger.open_gate(job, step);
  elsif step.map is null then
    perform ledger.open_single(job, step);
  else
    update public.job_step_totals t set
      opened_at = ledger.now(), finished_at = case when t.completed + t.failed = t.total then ledger.now() end
    where t.job_id = job.id and t.step = open_step.step.name
    returning * into width;
    perform ledger.enqueue(array(
      select s.id from public.job_steps s
      where s.job_id = job.id and s.step = open_step.step.name and s.status = 'pending'
        and ledger.item_ready(s, open_step.step)
      order by s.item));
    if width.finished_at is not null then
      job.done_weight := job.done_weight + case when width.total = 0 then step.weight else 0 end;
      job := ledger.advance(job, step.name);
    end if;
  end if;
end $$;

-- The one step run of a step that is not mapped, with its queue job.
create function ledger.open_single(job public.jobs, step public.pipeline_steps) returns void language plpgsql as $$
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
    returning id, queue, priority, queue_job_id
  )
  insert into procrastinate.procrastinate_jobs (id, queue_name, task_name, priority, args)
  select r.queue_job_id, r.queue, 'run_step', r.priority, jsonb_build_object('step_run', r.id)
  from run r where r.queue_job_id is not null;
  perform ledger.wake(step.queue);
end $$;

-- Whether an item can move: the same item of every step it goes along with is done.
create function ledger.item_ready(run public.job_steps, step public.pipeline_steps) returns boolean
language plpgsql stable as $$
begin
  return not exists (
    select from unnest(step.along) upstream
    join public.job_steps u on u.job_id = run.job_id and u.step = upstream and u.item = run.item
    where u.status not in ('completed', 'skipped'));
end $$;

-- An item is done: queue the same item of the steps that go along with it.
create function ledger.follow(job public.jobs, run public.job_steps) returns void language plpgsql as $$
begin
  perform ledger.enqueue(array[s.id])
  from public.pipeline_steps p
  join public.job_step_totals t on t.job_id = job.id and t.step = p.name and t.opened_at is not null
  join public.job_steps s on s.job_id = job.id and s.step = p.name and s.item = run.item and s.status = 'pending'
  where p.graph = job.graph and run.step = any(p.along) and ledger.item_ready(s, p);
end $$;

-- A step is finished: open the steps that waited for it only, or complete the job when it was the last.
create function ledger.advance(inout job public.jobs, finished text) language plpgsql as $$
declare
  next public.pipeline_steps;
begin
  for next in
    select p.* from public.pipeline_steps p
    where p.graph = job.graph and finished = any(p.after)
      and not exists (
        select from unnest(p.after) upstream
        left join public.job_step_totals t on t.job_id = job.id and t.step = upstream
        where t.finished_at is null)
    order by p.position
  loop
    job := ledger.open_step(job, next);
  end loop;
  if job.status in ('running', 'awaiting_review') and not exists (
    select from public.pipeline_steps p
    left join public.job_step_totals t on t.job_id = job.id and t.step = p.name
    where p.graph = job.graph and t.finished_at is null)
  then
    job.status := 'completed';
    job.percent := 100;
    job.finished_at := ledger.now();
    job.natural_key := nullif(job.natural_key, job.payload_digest || ':fresh');
    job := ledger.note(job, 'completed', 'Everything is done.');
    perform ledger.learn_size(job);
  elsif job.status = 'running' and ledger.only_gates_left(job.id) then
    job.status := 'awaiting_review';
    job.progress_message := 'Waiting for a reviewer.';
    job := ledger.note(job, 'awaiting_review', job.progress_message);
  end if;
end $$;

-- Remember how many step runs a job with mapped steps had. When somebody else is at it, one sample less does no harm.
create function ledger.learn_size(job public.jobs) returns void language plpgsql as $$
begin
  update ops.job_sizes z set runs = greatest(1, z.runs + (had.runs - z.runs) / 4)
  from (select p.queue, sum(t.total) as runs from public.job_step_totals t
        join public.pipeline_steps p on p.graph = job.graph and p.name = t.step
        where t.job_id = job.id group by p.queue having bool_or(t.mapped)) had
  where z.graph = job.graph and z.queue = had.queue and z.ctid = any(array(
    select l.ctid from ops.job_sizes l where l.graph = job.graph for update skip locked));
end $$;

-- Whether nothing but open gates could move a job.
create function ledger.only_gates_left(of_job uuid) returns boolean language plpgsql stable as $$
begin
  return exists (select from public.reviews r where r.job_id = of_job and r.status = 'open')
    and not exists (select from public.job_steps s
                    where s.job_id = of_job and s.status in ('queued', 'held', 'running', 'retrying'));
end $$;

-- Lay out the items of every step that maps over `source`. Each item: {"digest", "value"}.
create function ledger.lay_out(job public.jobs, source text, items jsonb) returns void
language plpgsql as $$
declare
  step public.pipeline_steps;
begin
  for step in select p.* from public.pipeline_steps p where p.graph = job.graph and p.map = source loop
    insert into public.job_step_totals (job_id, tenant_id, step, total, mapped)
    values (job.id, job.tenant_id, step.name, jsonb_array_length(items), true);
    insert into public.job_steps (job_id, tenant_id, step, item, status, queue, item_value, item_digest, created_at)
    select job.id, job.tenant_id, step.name, i.nr - 1, 'pending', step.queue, i.item -> 'value', i.item ->> 'digest',
           ledger.now()
    from jsonb_array_elements(items) with ordinality i(item, nr);
  end loop;
end $$;
