-- Attempts: what workers do. Claim and begin in one statement; complete, fail or give back in another.

-- The queues that may be taken from: not paused, and not slowed down by a provider.
create function ledger.open_queues(of_queues text[]) returns text[] language plpgsql stable as $$
begin
  return array(
    select q from unnest(of_queues) q
    where not exists (select from ops.pauses p where p.scope = 'queue' and p.name = q)
      and not exists (select from ops.slowdowns d where d.queue = q and d.until > ledger.now()));
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
) language plpgsql as $$
declare
  picked procrastinate.procrastinate_jobs[];
  candidate procrastinate.procrastinate_jobs;
  todo bigint;
begin
  picked := array(
    select q from procrastinate.procrastinate_jobs q
    where q.status = 'todo' and q.queue_name = any(ledger.open_queues(of_queues))
      and (q.scheduled_at is null or q.scheduled_at <= pg_catalog.now())
    order by q.priority desc, q.id limit most for update skip locked);
  perform from public.jobs j where j.id in (
    select s.job_id from unnest(picked) p join public.job_steps s on s.id = (p.args ->> 'step_run')::uuid
    where p.task_name = 'run_step') order by j.id for no key update;
  foreach candidate in array picked loop
    work := null;
    if candidate.task_name = 'run_step' then
      todo := candidate.id;
      candidate.id := nextval('procrastinate.procrastinate_jobs_id_seq');
      work := ledger.begin(todo, candidate.id, (candidate.args ->> 'step_run')::uuid, for_worker);
      delete from procrastinate.procrastinate_jobs q where q.id = todo;
      continue when work is null;
      insert into procrastinate.procrastinate_jobs (id, queue_name, task_name, priority, args, status, worker_id)
      values (candidate.id, candidate.queue_name, candidate.task_name, candidate.priority, candidate.args, 'doing',
              queue_worker);
    else
      update procrastinate.procrastinate_jobs q set status = 'doing', worker_id = queue_worker where q.id = candidate.id;
    end if;
    return query select candidate.id, 'doing', candidate.task_name::text, candidate.queue_name::text, candidate.priority,
      candidate.lock, candidate.queueing_lock, candidate.args, candidate.scheduled_at, candidate.attempts, work;
  end loop;
end $$;

-- Begin an attempt; null when its step run no longer waits for one. The caller holds the job's row.
create function ledger.begin(from_queue_job bigint, as_queue_job bigint, run_id uuid, for_worker uuid) returns jsonb
language plpgsql as $$
declare
  job public.jobs;
  run public.job_steps;
  step public.pipeline_steps;
begin
  select s.* into run from public.job_steps s
  where s.id = run_id and s.status = 'queued' and s.queue_job_id = from_queue_job for update;
  if run.id is null then
    return null;
  end if;
  job := ledger.lock_job(run.job_id);
  select * into step from public.pipeline_steps p where p.graph = job.graph and p.name = run.step;
  run.attempt := run.attempt + 1;
  run.identity := ledger.identify(job, step, run);
  update public.job_steps s set
    status = 'running', attempt = run.attempt, identity = run.identity, queue_job_id = as_queue_job,
    worker_id = for_worker, started_at = ledger.now(), progress_current = 0, progress_total = 0
  where s.id = run.id;
  if job.status = 'queued' then
    job.status := 'running';
    job.started_at := coalesce(job.started_at, ledger.now());
    job := ledger.note(job, 'started', 'A worker has picked it up.');
  end if;
  if job.stage <> step.stage then
    job.stage := step.stage;
    job.progress_message := '';
  end if;
  if run.item is null then
    job.progress_current := 0;
    job.progress_total := 0;
  end if;
  job := ledger.note(job, 'step_started', '', '{}', run.step, run.item, run.attempt);
  perform ledger.save(job);
  return ledger.describe_work(job, step, run);
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
  select s.* into run from public.job_steps s
  where s.id = run_id and s.attempt = of_attempt and s.status = 'running' for update;
  if run.id is not null then
    delete from procrastinate.procrastinate_jobs q where q.id = run.queue_job_id;
    run.status := new_status;
  end if;
  return run;
end $$;

-- Complete an attempt: result, artifacts, event, progress and the next steps' queue jobs, or nothing at all.
-- `result`: {"digest", "value" | "blob", "artifacts", "used", "progress": the last report as [current, total, message]},
-- or {"reuse": id}; with "skipped": why, when the step had nothing to do. `items`: for steps that are mapped over. False
-- when the attempt is stale.
create function ledger.complete(run_id uuid, of_attempt integer, result jsonb, items jsonb default null)
returns boolean language plpgsql as $$
declare
  job public.jobs := ledger.lock_job((select s.job_id from public.job_steps s where s.id = run_id));
  run public.job_steps := ledger.end_attempt(
    run_id, of_attempt, case when result ? 'skipped' then 'skipped' else 'completed' end);
begin
  if run.id is null then
    return false;
  end if;
  if result ? 'progress' then
    job := ledger.tell_progress(job, run, (result #>> '{progress,0}')::integer, (result #>> '{progress,1}')::integer,
                                result #>> '{progress,2}');
  end if;
  job := ledger.finish_run(job, run, ledger.keep_result(job, run, result), result);
  if items is not null then
    perform ledger.lay_out(job, run.step, items);
  end if;
  job := ledger.count_run(job, run, coalesce(
    result ->> 'skipped',
    'Done by version ' || (result ->> 'version') || ' of this step, which is not the one the job was submitted with.', ''));
  perform ledger.save(job);
  return true;
end $$;

-- The step run's own row and its lines in the history.
create function ledger.finish_run(inout job public.jobs, run public.job_steps, kept uuid, result jsonb)
language plpgsql as $$
begin
  update public.job_steps s set
    status = run.status, queue_job_id = null, worker_id = null, result_id = kept, error_code = null, error_message = null,
    cpu_s = (result #>> '{used,cpu_s}')::real, peak_memory_bytes = (result #>> '{used,peak_memory_bytes}')::bigint,
    finished_at = ledger.now()
  where s.id = run.id;
  if result ? 'reuse' then
    job.reused := job.reused + 1;
    job := ledger.note(job, 'reused', 'Done before with the same input; the result is used again.', '{}',
                       run.step, run.item, run.attempt);
  end if;
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

-- File a result under its identity, and the artifacts under the job. A rerun of a step overwrites its own artifacts.
create function ledger.keep_result(job public.jobs, run public.job_steps, result jsonb) returns uuid
language plpgsql as $$
declare
  kept public.step_results;
begin
  if result ? 'reuse' then
    update public.step_results r set hits = r.hits + 1, used_at = ledger.now()
    where r.id = (result ->> 'reuse')::uuid and r.tenant_id = job.tenant_id returning * into kept;
  else
    insert into public.step_results (tenant_id, identity, digest, value, blob, artifacts, skipped)
    values (job.tenant_id,
            -- What another version of the step made is not what this job's version would have made.
            case when result ? 'version'
                 then encode(sha256(convert_to(concat_ws(chr(31), run.identity, result ->> 'version'), 'UTF8')), 'hex')
                 else run.identity end,
            result ->> 'digest', result -> 'value', nullif(result -> 'blob', 'null'),
            coalesce(result -> 'artifacts', '[]'), result ? 'skipped')
    returning * into kept;
  end if;
  if kept.artifacts = '[]' then
    return kept.id;
  end if;
  insert into public.artifacts (job_id, tenant_id, step, item, name, media_type, bytes, sha256, created_at)
  select job.id, job.tenant_id, run.step, run.item, a ->> 'name', a ->> 'media_type', (a ->> 'bytes')::bigint,
         a ->> 'sha256', ledger.now()
  from jsonb_array_elements(kept.artifacts) a
  on conflict (job_id, step, item, name) do update set
    media_type = excluded.media_type, bytes = excluded.bytes, sha256 = excluded.sha256, created_at = excluded.created_at;
  return kept.id;
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

-- Settle many attempts in one transaction, so that their commits share one flush. Each outcome:
-- {"verb": "complete" | "fail" | "release", "step_run", "attempt", ...}. Returns what each transition returned, in order.
create function ledger.settle(outcomes jsonb[]) returns boolean[] language plpgsql as $$
declare
  accepted boolean[] := '{}';
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
    accepted := accepted || case o ->> 'verb'
      when 'complete' then ledger.complete((o ->> 'step_run')::uuid, (o ->> 'attempt')::integer, o -> 'result',
                                           nullif(o -> 'items', 'null'))
      when 'fail' then ledger.fail((o ->> 'step_run')::uuid, (o ->> 'attempt')::integer, o ->> 'code', o ->> 'message',
                                   o ->> 'detail', (o ->> 'retry_in')::double precision,
                                   (o ->> 'slow_s')::double precision)
      when 'release' then ledger.release((o ->> 'step_run')::uuid, (o ->> 'attempt')::integer)
    end;
  end loop;
  return accepted;
end $$;
