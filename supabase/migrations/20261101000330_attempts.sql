-- Attempts: what workers do. Claim and begin in one statement; complete, fail or give back in another.
--
-- A worker's plans are made when it starts, perhaps on empty tables, and used when these are deep. So the functions it calls
-- are left no way to plan but by index; and where a row is known by its id, its status is looked at afterwards: an index of
-- what is queued or running looks cheaper than the primary key while nothing is.

-- The queues that may be taken from, in any order: not paused, and not slowed down by a provider.
create function ledger.open_queues(of_queues text[]) returns text[] language plpgsql stable as $$
begin
  return array(
    select q from unnest(of_queues) q
    where not exists (select from ops.pauses p where p.scope = 'queue' and p.name = q)
      and not exists (select from ops.slowdowns d where d.queue = q and d.until > ledger.now())
    order by random());
end $$;

-- Queue jobs that nobody holds, locked: of each queue the first ones. The queues come in any order, because priorities of
-- different queues say nothing about each other, and so that none of them always comes first.
create function ledger.pick(of_queues text[], most integer) returns procrastinate.procrastinate_jobs[]
language plpgsql set enable_seqscan = off set enable_sort = off set plan_cache_mode = force_generic_plan as $$
declare
  queue text;
  picked procrastinate.procrastinate_jobs[] := '{}';
begin
  foreach queue in array ledger.open_queues(of_queues) loop
    picked := picked || array(
      select q from procrastinate.procrastinate_jobs q
      where q.status = 'todo' and q.queue_name = queue and (q.scheduled_at is null or q.scheduled_at <= pg_catalog.now())
      order by q.priority desc, q.id limit most - cardinality(picked) for update skip locked);
    exit when cardinality(picked) >= most;
  end loop;
  return picked;
end $$;

-- Claim up to `most` queue jobs for a worker. For step runs, claiming is beginning: the attempt gets its number, the
-- job leaves `queued`, and both are seen at once. `work` holds what the attempt needs; null for chores.
--
-- A queue job that is taken gets a new row and number: the old one is deleted, not updated. Two claims may look at the
-- same row; when the first has updated and committed it, the second would follow the update, lock the new version, find
-- that it is taken, and keep it locked, while the first wants to complete it: a deadlock. A deleted row is passed over.
create function ledger.claim(of_queues text[], for_worker uuid, queue_worker bigint, most integer)
returns table (
  id bigint, status text, task_name text, queue_name text, priority integer, lock text, queueing_lock text, args jsonb,
  scheduled_at timestamptz, attempts integer, work jsonb
) language plpgsql set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set plan_cache_mode = force_generic_plan as $$
declare
  picked procrastinate.procrastinate_jobs[] := ledger.pick(of_queues, most);
  begun jsonb;
begin
  if picked = '{}' then
    return;
  end if;
  begun := ledger.begin(picked, for_worker);
  delete from procrastinate.procrastinate_jobs q using unnest(picked) p where q.id = p.id and p.task_name = 'run_step';
  insert into procrastinate.procrastinate_jobs (id, queue_name, task_name, priority, args, status, worker_id)
  select b.queue_job, p.queue_name, p.task_name, p.priority, p.args, 'doing', queue_worker
  from unnest(picked) p join jsonb_to_recordset(begun) b(todo bigint, queue_job bigint) on b.todo = p.id;
  update procrastinate.procrastinate_jobs q set status = 'doing', worker_id = queue_worker from unnest(picked) p
  where q.id = p.id and p.task_name <> 'run_step';
  return query
    select coalesce(b.queue_job, p.id), 'doing', p.task_name::text, p.queue_name::text, p.priority, p.lock, p.queueing_lock,
           p.args, p.scheduled_at, p.attempts, b.work
    from unnest(picked) with ordinality p
    left join jsonb_to_recordset(begun) b(todo bigint, queue_job bigint, work jsonb) on b.todo = p.id
    where p.task_name <> 'run_step' or b.todo is not null order by p.ordinality;
end $$;

-- Begin the attempts of queue jobs, all in one statement: a row costs a fraction of what a statement costs. Returns of
-- each {"todo": the queue job, "queue_job": what it is to become, "work"}, but not of those whose step run no longer waits
-- for this queue job.
create function ledger.begin(picked procrastinate.procrastinate_jobs[], for_worker uuid) returns jsonb
language plpgsql as $$
declare
  begun jsonb;
  tidings text[];
begin
  perform from public.jobs j where j.id in (
    select s.job_id from unnest(picked) p join public.job_steps s on s.id = (p.args ->> 'step_run')::uuid
    where p.task_name = 'run_step') order by j.id for no key update;
  with held as materialized (
    select s.id, p.id as todo, p.ordinality as nr, s.status = 'queued' and s.queue_job_id = p.id as waits
    from unnest(picked) with ordinality p join public.job_steps s on s.id = (p.args ->> 'step_run')::uuid
    where p.task_name = 'run_step'
    for update of s
  ), begun as (
    update public.job_steps s set
      status = 'running', attempt = s.attempt + 1, identity = ledger.identify(j, p, s), worker_id = for_worker,
      queue_job_id = nextval('procrastinate.procrastinate_jobs_id_seq'), started_at = ledger.now(),
      progress_current = 0, progress_total = 0
    from held h, public.jobs j, public.pipeline_steps p
    where h.waits and s.id = h.id and j.id = s.job_id and p.graph = j.graph and p.name = s.step
    returning s as run, j as before, p as step, h.nr, h.todo
  ), moving as (
    select (b.before).id, count(*) as runs, bool_or((b.run).item is null) as alone,
           (array_agg((b.step).stage order by b.nr desc))[1] as stage, (b.before).stage as left_stage,
           (b.before).status = 'queued' as fresh
    from begun b group by (b.before).id, (b.before).stage, (b.before).status
  ), moved as (
    update public.jobs j set
      status = case when m.fresh then 'running' else j.status end,
      started_at = case when m.fresh then coalesce(j.started_at, ledger.now()) else j.started_at end,
      stage = m.stage, progress_message = case when j.stage = m.stage then j.progress_message else '' end,
      progress_current = case when m.alone then 0 else j.progress_current end,
      progress_total = case when m.alone then 0 else j.progress_total end,
      last_seq = j.last_seq + m.runs + m.fresh::integer, updated_at = ledger.now()
    from moving m where j.id = m.id
    returning j as job, j.last_seq - m.runs as seq, m.fresh, m.left_stage,
              jsonb_build_object('status', j.status, 'percent', j.percent) as standing
  ), history as (
    insert into public.job_events (job_id, seq, tenant_id, at, kind, stage, step, item, attempt, message, data)
    select (m.job).id, m.seq, (m.job).tenant_id, ledger.now(), 'started', m.left_stage, null, null, null,
           'A worker has picked it up.', m.standing
    from moved m where m.fresh
    union all
    select (m.job).id, m.seq + row_number() over (partition by (m.job).id order by b.nr), (m.job).tenant_id, ledger.now(),
           'step_started', (b.step).stage, (b.run).step, (b.run).item, (b.run).attempt, '', m.standing
    from begun b join moved m on (m.job).id = (b.run).job_id
  )
  select jsonb_agg(jsonb_build_object('todo', b.todo, 'queue_job', (b.run).queue_job_id,
                                      'work', ledger.describe_work(m.job, b.step, b.run))),
         array_agg(distinct (m.job).id || ' ' || (m.job).last_seq)
  into begun, tidings
  from begun b join moved m on (m.job).id = (b.run).job_id;
  perform pg_notify('ledgerline_events', t) from unnest(tidings) t;
  return coalesce(begun, '[]');
end $$;

-- The digest of one input: of a step's result, of one item's, or over all results of a mapped step.
create function ledger.input_digest(of_job uuid, of_step text, of_item integer) returns text
language plpgsql stable as $$
begin
  return (
    select case when count(*) = 1 and (of_item is not null or min(s.item) is null) then min(r.digest)
           else encode(sha256(convert_to(coalesce(string_agg(r.digest, ',' order by s.item), ''), 'UTF8')), 'hex') end
    from public.job_steps s join public.step_results r on r.id = s.result_id
    where s.job_id = of_job and s.step = of_step and (of_item is null or s.item = of_item));
end $$;

-- What makes two step runs the same work: step, version, parameters and inputs. sha256 (hex).
create function ledger.identify(job public.jobs, step public.pipeline_steps, run public.job_steps) returns text
language plpgsql stable as $$
declare
  parts text[] := array[job.pipeline, step.name, step.version::text, coalesce(run.item_digest, '')];
  input text;
begin
  if 'params' = any(step.takes) then
    parts := parts || job.params::text;
  end if;
  if step.takes && '{document,source}' then
    parts := parts || (
      select case when 'document' = any(step.takes) then jsonb_build_array(d.kind, d.sha256, d.title, d.filename)
             else jsonb_build_array(d.kind, d.sha256) end::text
      from public.documents d where d.id = job.document_id);
  end if;
  foreach input in array step.inputs loop
    parts := parts || ledger.input_digest(job.id, input, case when input = any(step.along) then run.item end);
  end loop;
  return encode(sha256(convert_to(array_to_string(parts, chr(31), '-'), 'UTF8')), 'hex');
end $$;

-- Everything an attempt needs, as JSON. Lists of mapped results are left to `ledger.gather`: they can be long.
create function ledger.describe_work(job public.jobs, step public.pipeline_steps, run public.job_steps) returns jsonb
language plpgsql stable as $$
begin
  return (
    select jsonb_build_object(
      'step_run', run.id, 'attempt', run.attempt, 'failures', run.failures, 'previous_error', run.error_code,
      'age_s', extract(epoch from ledger.now() - run.created_at),
      'job', job.id, 'tenant', job.tenant_id, 'pipeline', job.pipeline, 'step', step.name, 'item', run.item,
      'item_value', run.item_value, 'params', job.params,
      'document', (select jsonb_build_object('title', d.title, 'filename', d.filename, 'kind', d.kind,
                                             'blob', jsonb_build_object('sha256', d.sha256, 'bytes', d.bytes))
                   from public.documents d where d.id = job.document_id and step.takes && '{document,source}'),
      'inputs', coalesce((
        select jsonb_object_agg(t.step, case when s.id is null then '{"gather": true}'::jsonb
                                             else jsonb_build_object('value', r.value, 'blob', r.blob) end)
        from public.job_step_totals t
        left join public.job_steps s on s.job_id = t.job_id and s.step = t.step
          and (not t.mapped or t.step = any(step.along) and s.item = run.item)
        left join public.step_results r on r.id = s.result_id
        where t.job_id = job.id and t.step = any(step.inputs)), '{}'),
      'mapped', exists (select from public.pipeline_steps p where p.graph = job.graph and p.map = step.name),
      'version', step.version, 'deploy', (select g.deploy from public.pipeline_graphs g where g.digest = job.graph),
      'reuse', case when not job.fresh then (
        select jsonb_build_object('result', r.id, 'digest', r.digest, 'value', r.value, 'blob', r.blob,
                                  'skipped', r.skipped)
        from public.step_results r where r.tenant_id = job.tenant_id and r.identity = run.identity
        order by r.id desc limit 1) end));
end $$;

-- The results of a mapped step of a job, in item order; without those of skipped and of failed items.
create function ledger.gather(of_job uuid, of_step text) returns table (value jsonb, blob jsonb)
language sql stable as $$
  select r.value, r.blob from public.job_steps s join public.step_results r on r.id = s.result_id
  where s.job_id = of_job and s.step = of_step and s.status = 'completed' order by s.item
$$;

-- The running step run under this attempt, its queue job withdrawn; null when the attempt is stale.
create function ledger.end_attempt(run_id uuid, of_attempt integer, new_status text) returns public.job_steps
language plpgsql as $$
declare
  run public.job_steps;
begin
  select s.* into run from public.job_steps s where s.id = run_id for update;
  if run.id is null or run.attempt <> of_attempt or run.status <> 'running' then
    return null;
  end if;
  delete from procrastinate.procrastinate_jobs q where q.id = run.queue_job_id;
  run.status := new_status;
  return run;
end $$;

-- Complete an attempt: result, artifacts, event, progress and the next steps' queue jobs, or nothing at all.
-- `result`: {"digest", "value" | "blob", "artifacts", "used", "progress": the last report as [current, total, message]},
-- or {"reuse": id}; with "skipped": why, when the step had nothing to do. `items`: for steps that are mapped over. False
-- when the attempt is stale.
create function ledger.complete(run_id uuid, of_attempt integer, result jsonb, items jsonb default null)
returns boolean language plpgsql as $$
begin
  return (ledger.settle(array[jsonb_build_object(
    'verb', 'complete', 'step_run', run_id, 'attempt', of_attempt, 'result', result, 'items', items)]))[1];
end $$;

-- Complete attempts; the caller holds their jobs' rows. Returns for each whether it was accepted, in order.
create function ledger.complete_all(outcomes jsonb[]) returns boolean[] language plpgsql as $$
declare
  job public.jobs;
  done record;
  accepted bigint[] := '{}';
begin
  for done in select * from ledger.file_results(outcomes) f order by (f.run).job_id, f.nr loop
    if job.id is distinct from (done.run).job_id then
      perform ledger.save(job) where job.id is not null;
      job := ledger.lock_job((done.run).job_id);
    end if;
    job := ledger.finish_run(job, done.run, done.result, done.items);
    accepted := accepted || done.nr;
  end loop;
  perform ledger.save(job) where job.id is not null;
  return array(select n = any(accepted) from generate_series(1, cardinality(outcomes)) n order by n);
end $$;

-- What completing writes of each attempt by itself, for many attempts in one statement: the result under its identity, the
-- artifacts under the job (a rerun overwrites its own), the step run's row; and its queue job goes. Stale ones are left out.
create function ledger.file_results(outcomes jsonb[])
returns table (nr bigint, run public.job_steps, result jsonb, items jsonb) language plpgsql as $$
begin
  return query
  with told as (
    select o.nr, (o.said ->> 'step_run')::uuid as id, (o.said ->> 'attempt')::integer as attempt, o.said -> 'result' as result,
           nullif(o.said -> 'items', 'null') as items
    from unnest(outcomes) with ordinality o(said, nr)
  ), held as materialized (
    select t.nr, t.result, t.items, s as run, s.attempt = t.attempt and s.status = 'running' as ours
    from told t join public.job_steps s on s.id = t.id for update of s
  ), ended as materialized (
    select h.nr, h.result, h.items, h.run, h.result ? 'reuse' as reused,
           case when h.result ? 'reuse' then (
             select r.id from public.step_results r
             where r.id = (h.result ->> 'reuse')::uuid and r.tenant_id = (h.run).tenant_id)
           else ledger.uuid7() end as kept
    from held h where h.ours
  ), withdrawn as (
    delete from procrastinate.procrastinate_jobs q using ended e where q.id = (e.run).queue_job_id
  ), filed as (
    insert into public.step_results (id, tenant_id, identity, digest, value, blob, artifacts, skipped)
    select e.kept, (e.run).tenant_id,
           -- What another version of the step made is not what this job's version would have made.
           case when e.result ? 'version'
                then encode(sha256(convert_to(concat_ws(chr(31), (e.run).identity, e.result ->> 'version'), 'UTF8')), 'hex')
                else (e.run).identity end,
           e.result ->> 'digest', e.result -> 'value', nullif(e.result -> 'blob', 'null'),
           coalesce(e.result -> 'artifacts', '[]'), e.result ? 'skipped'
    from ended e where not e.reused
  ), hit as (
    update public.step_results r set hits = r.hits + u.times, used_at = ledger.now()
    from (select e.kept, count(*) as times from ended e where e.reused group by e.kept) u where r.id = u.kept
  ), named as (
    insert into public.artifacts (job_id, tenant_id, step, item, name, media_type, bytes, sha256, created_at)
    select (e.run).job_id, (e.run).tenant_id, (e.run).step, (e.run).item, a ->> 'name', a ->> 'media_type',
           (a ->> 'bytes')::bigint, a ->> 'sha256', ledger.now()
    from ended e cross join jsonb_array_elements(case when e.reused then (
      select r.artifacts from public.step_results r where r.id = e.kept) else e.result -> 'artifacts' end) a
    on conflict (job_id, step, item, name) do update set
      media_type = excluded.media_type, bytes = excluded.bytes, sha256 = excluded.sha256, created_at = excluded.created_at
  ), finished as (
    update public.job_steps s set
      status = case when e.result ? 'skipped' then 'skipped' else 'completed' end,
      queue_job_id = null, worker_id = null, result_id = e.kept, error_code = null, error_message = null,
      cpu_s = (e.result #>> '{used,cpu_s}')::real, peak_memory_bytes = (e.result #>> '{used,peak_memory_bytes}')::bigint,
      finished_at = ledger.now()
    from ended e where s.id = (e.run).id
    returning s as run, e.nr, e.result, e.items
  )
  select f.nr, f.run, f.result, f.items from finished f;
end $$;

-- A step run has its result: its lines in the history, the items it laid out, and what may go on now.
create function ledger.finish_run(inout job public.jobs, run public.job_steps, result jsonb, items jsonb)
language plpgsql as $$
begin
  if result ? 'progress' then
    job := ledger.tell_progress(job, run, (result #>> '{progress,0}')::integer, (result #>> '{progress,1}')::integer,
                                result #>> '{progress,2}');
  end if;
  if result ? 'reuse' then
    job.reused := job.reused + 1;
    job := ledger.note(job, 'reused', 'Done before with the same input; the result is used again.', '{}',
                       run.step, run.item, run.attempt);
  end if;
  if items is not null then
    perform ledger.lay_out(job, run.step, items);
  end if;
  job := ledger.count_run(job, run, coalesce(
    result ->> 'skipped',
    'Done by version ' || (result ->> 'version') || ' of this step, which is not the one the job was submitted with.', ''));
end $$;

-- One more step run is done: count it in, tell, and open what waited for it.
create function ledger.count_run(inout job public.jobs, run public.job_steps, why text default '')
language plpgsql as $$
declare
  width public.job_step_totals;
  kind text := case run.status when 'skipped' then 'step_skipped' when 'failed' then 'step_failed' else 'step_completed' end;
begin
  update public.job_step_totals t set
    completed = t.completed + (run.status <> 'failed')::integer, failed = t.failed + (run.status = 'failed')::integer,
    finished_at = case when t.completed + t.failed + 1 = t.total and t.opened_at is not null then ledger.now() end
  where t.job_id = job.id and t.step = run.step
  returning * into width;
  job := ledger.measure(job, run, width);
  job := ledger.note(job, kind, why, jsonb_build_object('current', width.completed + width.failed, 'total', width.total),
                     run.step, run.item, run.attempt);
  if run.item is not null and run.status <> 'failed' then
    perform ledger.follow(job, run);
  end if;
  if width.finished_at is not null then
    job := ledger.advance(job, run.step);
  end if;
end $$;

-- Progress after one more step run is done. Percent never goes back.
create function ledger.measure(inout job public.jobs, run public.job_steps, width public.job_step_totals)
language plpgsql as $$
declare
  weight double precision;
begin
  select p.weight into weight from public.pipeline_steps p where p.graph = job.graph and p.name = run.step;
  job.done_weight := job.done_weight + weight / width.total;
  job.percent := greatest(job.percent, least(99, floor(100 * job.done_weight / job.total_weight + 1e-6)));
  if width.mapped then
    job.progress_current := width.completed + width.failed;
    job.progress_total := width.total;
  end if;
end $$;

-- Record how far a running attempt is; also its sign of life. False when the attempt is stale.
create function ledger.report_progress(run_id uuid, of_attempt integer, current integer, total integer, message text)
returns boolean language plpgsql as $$
declare
  job public.jobs := ledger.lock_job((select s.job_id from public.job_steps s where s.id = run_id));
  run public.job_steps;
begin
  select s.* into run from public.job_steps s
  where s.id = run_id and s.attempt = of_attempt and s.status = 'running' for update;
  if run.id is null then
    return false;
  end if;
  job := ledger.tell_progress(job, run, current, total, message);
  perform ledger.save(job);
  return true;
end $$;

-- A progress report, on the step run, on the job and in the history. Percent never goes back.
create function ledger.tell_progress(
  inout job public.jobs, run public.job_steps, current integer, total integer, message text
) language plpgsql as $$
declare
  share double precision;
begin
  update public.job_steps s set progress_current = current, progress_total = total where s.id = run.id;
  select p.weight / t.total into share from public.pipeline_steps p
  join public.job_step_totals t on t.job_id = job.id and t.step = p.name
  where p.graph = job.graph and p.name = run.step;
  job.percent := greatest(job.percent, least(99, floor(
    100 * (job.done_weight + share * least(1, current::double precision / greatest(total, 1))) / job.total_weight)));
  job.progress_message := message;
  if run.item is null then
    job.progress_current := current;
    job.progress_total := total;
  end if;
  job := ledger.note(job, 'progress', message, jsonb_build_object('current', current, 'total', total),
                     run.step, run.item, run.attempt);
end $$;

-- End an attempt that did not work: try again in `retry_in` seconds, or, when that is null, fail the job.
-- `slow_s`: for so long nothing more of that queue is begun, by anybody. False when the attempt is stale.
create function ledger.fail(
  run_id uuid, of_attempt integer, code text, sentence text, for_operator text, retry_in double precision default null,
  slow_s double precision default null
) returns boolean language plpgsql as $$
declare
  job public.jobs := ledger.lock_job((select s.job_id from public.job_steps s where s.id = run_id));
  run public.job_steps := ledger.end_attempt(run_id, of_attempt, 'failed');
begin
  if run.id is null then
    return false;
  end if;
  insert into ops.failures (job_id, step, item, attempt, at, code, detail)
  values (job.id, run.step, run.item, run.attempt, ledger.now(), code, for_operator);
  update public.job_steps s set failures = s.failures + 1 where s.id = run.id;
  if retry_in is not null then
    job := ledger.retry_step(job, run, code, sentence, retry_in);
  else
    job := ledger.give_up(job, run, code, sentence);
  end if;
  if slow_s is not null then
    insert into ops.slowdowns as d (queue, until, reason) values (run.queue, ledger.now() + make_interval(secs => slow_s), sentence)
    on conflict (queue) do update set until = greatest(d.until, excluded.until), reason = excluded.reason;
  end if;
  perform ledger.save(job);
  return true;
end $$;

-- An attempt was the last one: fail the item alone, while its step allows that, or the job.
create function ledger.give_up(inout job public.jobs, run public.job_steps, code text, sentence text)
language plpgsql as $$
begin
  if exists (select from public.pipeline_steps p join public.job_step_totals t on t.job_id = job.id and t.step = p.name
             where p.graph = job.graph and p.name = run.step and t.mapped and t.failed < p.allow_failures) then
    job := ledger.fail_item(job, run, code, sentence);
  else
    job := ledger.fail_step(job, run, code, sentence);
  end if;
end $$;

-- Fail one item and go on without it; so do the steps that go along with it.
create function ledger.fail_item(inout job public.jobs, run public.job_steps, code text, sentence text)
language plpgsql as $$
declare
  next public.job_steps;
begin
  update public.job_steps s set
    status = 'failed', queue_job_id = null, worker_id = null, due_at = null, error_code = code, error_message = sentence,
    finished_at = ledger.now()
  where s.id = run.id;
  run.status := 'failed';
  for next in
    select s.* from public.pipeline_steps p join public.job_steps s on s.job_id = job.id and s.step = p.name
    where p.graph = job.graph and run.step = any(p.along) and s.item = run.item and s.status = 'pending'
    order by p.position
  loop
    -- A step may go along with several that fail here: it fails once.
    continue when not exists (select from public.job_steps s where s.id = next.id and s.status = 'pending');
    job := ledger.fail_item(job, next, code, sentence);
  end loop;
  job := ledger.count_run(job, run, sentence);
end $$;

-- An item stays failed while one that it goes along with is: that one's step is over, and is not done again.
create function ledger.fail_followers(inout job public.jobs) language plpgsql as $$
declare
  failed public.job_steps;
  run public.job_steps;
begin
  for failed in
    select u.* from public.job_steps u join public.job_step_totals t on t.job_id = u.job_id and t.step = u.step
    where u.job_id = job.id and u.status = 'failed' and t.finished_at is not null
  loop
    for run in
      select s.* from public.pipeline_steps p join public.job_steps s on s.job_id = job.id and s.step = p.name
      where p.graph = job.graph and failed.step = any(p.along) and s.item = failed.item and s.status = 'pending'
      order by p.position
    loop
      continue when not exists (select from public.job_steps s where s.id = run.id and s.status = 'pending');
      job := ledger.fail_item(job, run, failed.error_code, failed.error_message);
    end loop;
  end loop;
end $$;

-- Put a step run back to try again. A delay waits in the ledger, not in the queue: queued rows cost every fetch.
create function ledger.retry_step(
  inout job public.jobs, run public.job_steps, code text, sentence text, retry_in double precision
) language plpgsql as $$
declare
  due timestamptz := ledger.now() + make_interval(secs => retry_in);
begin
  update public.job_steps s set
    status = 'retrying', queue_job_id = null, worker_id = null, due_at = due, error_code = code, error_message = sentence
  where s.id = run.id;
  job := ledger.note(job, 'step_retrying', sentence, jsonb_build_object('code', code, 'due_at', due),
                     run.step, run.item, run.attempt);
  if retry_in <= 0 then
    perform ledger.enqueue(array[run.id]);
  end if;
end $$;

-- Fail a step run for good, and its job with it. What else could move is stopped.
create function ledger.fail_step(inout job public.jobs, run public.job_steps, code text, sentence text)
language plpgsql as $$
begin
  update public.job_steps s set
    status = 'failed', queue_job_id = null, worker_id = null, due_at = null, error_code = code,
    error_message = sentence, finished_at = ledger.now()
  where s.id = run.id;
  job := ledger.note(job, 'step_failed', sentence, jsonb_build_object('code', code), run.step, run.item, run.attempt);
  job := ledger.fail_job(job, code, sentence);
end $$;

create function ledger.fail_job(inout job public.jobs, code text, sentence text) language plpgsql as $$
begin
  perform ledger.stop_step_runs(job.id);
  job.status := 'failed';
  job.error_code := code;
  job.error_message := sentence;
  job.finished_at := ledger.now();
  job := ledger.note(job, 'failed', sentence, jsonb_build_object('code', code));
end $$;

-- Give an attempt back unused, because its worker is stopping. It does not count. False when the attempt is stale.
create function ledger.release(run_id uuid, of_attempt integer) returns boolean language plpgsql as $$
declare
  job public.jobs := ledger.lock_job((select s.job_id from public.job_steps s where s.id = run_id));
  run public.job_steps := ledger.end_attempt(run_id, of_attempt, 'queued');
begin
  if run.id is null then
    return false;
  end if;
  perform ledger.enqueue(array[run.id]);
  job := ledger.note(job, 'step_released', 'The worker was stopped; another will take it up.', '{}',
                     run.step, run.item, run.attempt);
  perform ledger.save(job);
  return true;
end $$;

-- Settle many attempts in one transaction, so that their commits share one flush; completions that follow each other share
-- their statements too. Each outcome: {"verb": "complete" | "fail" | "release", "step_run", "attempt", ...}. Returns for
-- each whether it was accepted, in order.
create function ledger.settle(outcomes jsonb[]) returns boolean[]
language plpgsql set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set plan_cache_mode = force_generic_plan as $$
declare
  accepted boolean[] := '{}';
  completed jsonb[] := '{}';
  o jsonb;
begin
  perform from public.jobs j where j.id in (
    select s.job_id from unnest(outcomes) x(o) join public.job_steps s on s.id = (x.o ->> 'step_run')::uuid
  ) order by j.id for no key update;
  -- Results that are used again are counted: two groups that share some must count them in one order.
  perform from public.step_results r where r.id in (
    select (x.o #>> '{result,reuse}')::uuid from unnest(outcomes) x(o)
  ) order by r.id for no key update;
  foreach o in array outcomes loop
    if o ->> 'verb' = 'complete' then
      completed := completed || o;
      continue;
    end if;
    accepted := accepted || ledger.complete_all(completed);
    completed := '{}';
    accepted := accepted || case o ->> 'verb'
      when 'fail' then ledger.fail((o ->> 'step_run')::uuid, (o ->> 'attempt')::integer, o ->> 'code', o ->> 'message',
                                   o ->> 'detail', (o ->> 'retry_in')::double precision,
                                   (o ->> 'slow_s')::double precision)
      when 'release' then ledger.release((o ->> 'step_run')::uuid, (o ->> 'attempt')::integer)
    end;
  end loop;
  return accepted || ledger.complete_all(completed);
end $$;
