-- The transitions: the only code that moves jobs and step runs.
--
-- Each public transition is one call and one transaction. It locks the job's row first, so the events of a job are
-- numbered in commit order, and joins are decided by one transaction at a time. Lock order everywhere: queue rows that
-- are being claimed, then job rows by id, then step runs. Whoever holds a job's row and wants its queue rows skips
-- those that are being claimed: the claim sees the new state once it has the job's row, and withdraws them itself.
--
-- Inside a transaction the job travels as one record: loaded once, changed in memory, saved once.
-- Refusals carry SQLSTATE LLnnn (nnn: the HTTP status), the sentence as message, the stable code as hint.

create function ledger.refuse(status integer, code text, sentence text, details jsonb default '{}') returns void
language plpgsql as $$
begin
  raise exception using errcode = 'LL' || status, message = sentence, hint = code, detail = details::text;
end $$;

-- The job's record, with its row locked for the rest of the transaction.
create function ledger.lock_job(job_id uuid) returns public.jobs
language sql volatile as $$
  select * from public.jobs j where j.id = job_id for no key update
$$;

-- The same, but null when somebody else is moving the job right now. For repairs, which must never wait for a lock.
create function ledger.try_lock_job(job_id uuid) returns public.jobs
language sql volatile as $$
  select * from public.jobs j where j.id = job_id for no key update skip locked
$$;

-- Add one line to the job's history. The number is safe: the caller holds the job's row.
create function ledger.note(
  inout job public.jobs, kind text, message text default '', data jsonb default '{}',
  step text default null, item integer default null, attempt integer default null, actor uuid default null
) language plpgsql as $$
begin
  job.last_seq := job.last_seq + 1;
  insert into public.job_events (job_id, seq, tenant_id, at, kind, stage, step, item, attempt, actor, message, data)
  values (job.id, job.last_seq, job.tenant_id, ledger.now(), kind, job.stage, step, item, attempt, actor, message,
          data || jsonb_build_object('status', job.status, 'percent', job.percent));
end $$;

-- Write the record back and wake those who follow the job.
create function ledger.save(job public.jobs) returns void
language plpgsql as $$
begin
  update public.jobs j set
    status = job.status, stage = job.stage, percent = job.percent, done_weight = job.done_weight,
    progress_current = job.progress_current, progress_total = job.progress_total,
    progress_message = job.progress_message, error_code = job.error_code, error_message = job.error_message,
    natural_key = job.natural_key, last_seq = job.last_seq, started_at = job.started_at,
    finished_at = job.finished_at, updated_at = ledger.now()
  where j.id = job.id;
  perform pg_notify('ledgerline_events', job.id || ' ' || job.last_seq);
end $$;

-- Wake the workers that serve a queue: Procrastinate's own signal, once per queue and transaction.
create function ledger.wake(queue text) returns void language sql volatile as $$
  select pg_notify('procrastinate_queue_v1#' || queue, '{"type": "job_inserted", "job_id": 0}')
$$;

-- Give step runs that are not moving a queue job each, in the order given. The caller holds the job's row, or the step
-- runs' rows.
create function ledger.enqueue(runs uuid[]) returns void
language sql volatile as $$
  select ledger.wake(w.queue) from (select distinct s.queue from public.job_steps s where s.id = any(runs)) w;
  with numbered as materialized (
    select r.id, nextval('procrastinate.procrastinate_jobs_id_seq') as queue_job_id
    from unnest(runs) with ordinality r(id, nr) order by r.nr
  ), moved as (
    update public.job_steps s set
      status = 'queued', queue_job_id = n.queue_job_id, queued_at = ledger.now(), worker_id = null, due_at = null,
      finished_at = null
    from numbered n where s.id = n.id
    returning s.id, s.queue, s.queue_job_id
  )
  insert into procrastinate.procrastinate_jobs (id, queue_name, task_name, args)
  select m.queue_job_id, m.queue, 'run_step', jsonb_build_object('step_run', m.id) from moved m order by m.queue_job_id
$$;

-- Take queue jobs away. Rows that are being claimed right now are skipped: their claim withdraws them.
create function ledger.withdraw(queue_jobs bigint[]) returns void
language sql volatile as $$
  delete from procrastinate.procrastinate_jobs q where q.id in (
    select w.id from procrastinate.procrastinate_jobs w where w.id = any(queue_jobs) for update skip locked
  )
$$;

-- Stop every step run of a job that could still move.
create function ledger.stop_step_runs(of_job uuid) returns integer
language plpgsql as $$
declare
  runs uuid[];
  queue_jobs bigint[];
begin
  select array_agg(l.id), array_agg(l.queue_job_id) filter (where l.queue_job_id is not null) into runs, queue_jobs
  from (select s.id, s.queue_job_id from public.job_steps s
        where s.job_id = of_job and s.status in ('pending', 'queued', 'running', 'retrying') for update) l;
  perform ledger.withdraw(queue_jobs);
  update public.job_steps s set
    status = 'cancelled', queue_job_id = null, worker_id = null, due_at = null, finished_at = ledger.now()
  where s.id = any(runs);
  return coalesce(cardinality(runs), 0);
end $$;

-- Moving forward ----------------------------------------------------------------------------------

-- Let a step move whose inputs are all there. Its items, if it is mapped, were laid out when their source completed.
create function ledger.open_step(inout job public.jobs, step public.pipeline_steps) language plpgsql as $$
declare
  width integer;
begin
  if step.map is null then
    insert into public.job_step_totals (job_id, tenant_id, step, total, opened_at)
    values (job.id, job.tenant_id, step.name, 1, ledger.now());
    with run as (
      insert into public.job_steps (job_id, tenant_id, step, status, queue, queue_job_id, created_at, queued_at)
      values (job.id, job.tenant_id, step.name, 'queued', step.queue,
              nextval('procrastinate.procrastinate_jobs_id_seq'), ledger.now(), ledger.now())
      returning id, queue, queue_job_id
    )
    insert into procrastinate.procrastinate_jobs (id, queue_name, task_name, args)
    select r.queue_job_id, r.queue, 'run_step', jsonb_build_object('step_run', r.id) from run r;
    perform ledger.wake(step.queue);
    return;
  end if;
  update public.job_step_totals t set
    opened_at = ledger.now(), finished_at = case when t.total = 0 then ledger.now() end
  where t.job_id = job.id and t.step = open_step.step.name
  returning t.total into width;
  perform ledger.enqueue(array(select s.id from public.job_steps s
                               where s.job_id = job.id and s.step = open_step.step.name and s.status = 'pending'
                               order by s.item));
  if width = 0 then
    job.done_weight := job.done_weight + step.weight;
    job := ledger.advance(job, step.name);
  end if;
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
  if job.status = 'running' and not exists (
    select from public.pipeline_steps p
    left join public.job_step_totals t on t.job_id = job.id and t.step = p.name
    where p.graph = job.graph and t.finished_at is null)
  then
    job.status := 'completed';
    job.percent := 100;
    job.finished_at := ledger.now();
    job.natural_key := case when job.fresh then null else job.natural_key end;
    job := ledger.note(job, 'completed', 'Everything is done.');
  end if;
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

-- Submit ------------------------------------------------------------------------------------------

-- Make a job, its first step runs, their queue jobs and its first event; or find the job this request already made.
-- Returns {"job": id, "created": bool}. Refuses with a code when the request cannot be a job.
create function ledger.submit(
  job_id uuid, for_tenant uuid, by_user uuid, of_pipeline text, of_graph text, for_document uuid, with_params jsonb,
  idempotency text default null, run_fresh boolean default false
) returns jsonb language plpgsql as $$
declare
  job public.jobs;
  graph public.pipeline_graphs;
  step public.pipeline_steps;
  payload text := encode(sha256(convert_to(concat_ws(chr(31), of_pipeline, coalesce(for_document::text, ''),
                         with_params::text, run_fresh), 'UTF8')), 'hex');
begin
  graph := ledger.check_submission(for_tenant, of_pipeline, of_graph, for_document);
  insert into public.jobs (id, tenant_id, created_by, pipeline, graph, document_id, params, fresh, total_weight,
                           idempotency_key, natural_key, payload_digest, created_at, updated_at)
  values (job_id, for_tenant, by_user, of_pipeline, graph.digest, for_document, with_params, run_fresh,
          graph.total_weight, idempotency,
          case when idempotency is null then payload || ':' || graph.version end, payload, ledger.now(), ledger.now())
  on conflict do nothing
  returning * into job;
  if job.id is null then
    return ledger.find_submitted(for_tenant, idempotency, payload || ':' || graph.version, payload);
  end if;
  job := ledger.note(job, 'submitted', 'Waiting for a worker.', jsonb_build_object('pipeline', of_pipeline),
                     actor => by_user);
  for step in select p.* from public.pipeline_steps p where p.graph = job.graph and p.after = '{}' order by p.position loop
    job := ledger.open_step(job, step);
  end loop;
  perform ledger.save(job);
  return jsonb_build_object('job', job.id, 'created', true);
end $$;

-- The graph a submission will run, or a refusal.
create function ledger.check_submission(for_tenant uuid, of_pipeline text, of_graph text, for_document uuid)
returns public.pipeline_graphs language plpgsql as $$
declare
  graph public.pipeline_graphs;
  kind text;
begin
  select g.* into graph from public.pipelines p join public.pipeline_graphs g on g.digest = p.graph
  where p.name = of_pipeline and p.retired_at is null;
  if graph.digest is null then
    perform ledger.refuse(422, 'unknown_pipeline', 'There is no pipeline of that name.',
                          jsonb_build_object('pipeline', of_pipeline));
  elsif of_graph is not null and graph.digest <> of_graph then
    perform ledger.refuse(409, 'pipeline_changed', 'The pipeline was changed a moment ago. Please send the request again.');
  end if;
  if for_document is not null then
    select d.kind into kind from public.documents d where d.id = for_document and d.tenant_id = for_tenant;
    if kind is null then
      perform ledger.refuse(404, 'document_not_found', 'There is no such document.');
    elsif kind <> all(graph.accepts) then
      perform ledger.refuse(422, 'document_not_accepted',
        format('The pipeline %s does not take %s files.', of_pipeline, upper(kind)),
        jsonb_build_object('kind', kind, 'accepts', graph.accepts));
    end if;
  elsif exists (select from public.pipeline_steps p where p.graph = graph.digest and p.takes && '{document,source}') then
    perform ledger.refuse(422, 'document_required', format('The pipeline %s needs a document.', of_pipeline));
  end if;
  return graph;
end $$;

-- The job that an equal request made before; a refusal when the key was used for something else.
create function ledger.find_submitted(for_tenant uuid, key text, natural_like text, payload text)
returns jsonb language plpgsql as $$
declare
  job public.jobs;
begin
  if key is null then
    select j.* into job from public.jobs j where j.tenant_id = for_tenant and j.natural_key = natural_like
      and j.status in ('queued', 'running', 'awaiting_review', 'completed');
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

-- Attempts ----------------------------------------------------------------------------------------

-- Claim up to `most` queue jobs for a worker. For step runs, claiming is beginning: the attempt gets its number, the
-- job leaves `queued`, and both are seen at once. `work` holds what the attempt needs; null for chores.
create function ledger.claim(of_queues text[], for_worker uuid, queue_worker bigint, most integer)
returns table (
  id bigint, status text, task_name text, queue_name text, priority integer, lock text, queueing_lock text, args jsonb,
  scheduled_at timestamptz, attempts integer, work jsonb
) language plpgsql as $$
declare
  picked procrastinate.procrastinate_jobs[];
  candidate procrastinate.procrastinate_jobs;
begin
  picked := array(
    select q from procrastinate.procrastinate_jobs q
    where q.status = 'todo' and (of_queues is null or q.queue_name = any(of_queues))
      and (q.scheduled_at is null or q.scheduled_at <= pg_catalog.now())
    order by q.priority desc, q.id limit most for update skip locked);
  perform from public.jobs j where j.id in (
    select s.job_id from unnest(picked) p join public.job_steps s on s.id = (p.args ->> 'step_run')::uuid
    where p.task_name = 'run_step') order by j.id for no key update;
  foreach candidate in array picked loop
    work := null;
    if candidate.task_name = 'run_step' then
      work := ledger.begin(candidate.id, (candidate.args ->> 'step_run')::uuid, for_worker);
      if work is null then
        delete from procrastinate.procrastinate_jobs q where q.id = candidate.id;
        continue;
      end if;
    end if;
    update procrastinate.procrastinate_jobs q set status = 'doing', worker_id = queue_worker where q.id = candidate.id;
    return query select candidate.id, 'doing', candidate.task_name::text, candidate.queue_name::text, candidate.priority,
      candidate.lock, candidate.queueing_lock, candidate.args, candidate.scheduled_at, candidate.attempts, work;
  end loop;
end $$;

-- Begin an attempt; null when its step run no longer waits for one. The caller holds the job's row.
create function ledger.begin(from_queue_job bigint, run_id uuid, for_worker uuid) returns jsonb
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
    status = 'running', attempt = run.attempt, identity = run.identity, worker_id = for_worker, started_at = ledger.now(),
    progress_current = 0, progress_total = 0
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

-- The digest of one input: of a step's result, or over all results of a mapped step.
create function ledger.input_digest(of_job uuid, of_step text) returns text
language sql stable as $$
  select case when count(*) = 1 and min(s.item) is null then min(r.digest)
         else encode(sha256(convert_to(coalesce(string_agg(r.digest, ',' order by s.item), ''), 'UTF8')), 'hex') end
  from public.job_steps s join public.step_results r on r.id = s.result_id
  where s.job_id = of_job and s.step = of_step
$$;

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
    parts := parts || ledger.input_digest(job.id, input);
  end loop;
  return encode(sha256(convert_to(array_to_string(parts, chr(31), '-'), 'UTF8')), 'hex');
end $$;

-- Everything an attempt needs, as JSON. Lists of mapped results are left to `ledger.gather`: they can be long.
create function ledger.describe_work(job public.jobs, step public.pipeline_steps, run public.job_steps) returns jsonb
language sql stable as $$
  select jsonb_build_object(
    'step_run', run.id, 'attempt', run.attempt, 'failures', run.failures, 'previous_error', run.error_code,
    'job', job.id, 'tenant', job.tenant_id, 'pipeline', job.pipeline, 'step', step.name, 'item', run.item,
    'item_value', run.item_value, 'params', job.params,
    'document', (select jsonb_build_object('title', d.title, 'filename', d.filename, 'kind', d.kind,
                                           'blob', jsonb_build_object('sha256', d.sha256, 'bytes', d.bytes))
                 from public.documents d where d.id = job.document_id and step.takes && '{document,source}'),
    'inputs', coalesce((
      select jsonb_object_agg(t.step, case when t.mapped then '{"gather": true}'::jsonb
                                           else jsonb_build_object('value', r.value, 'blob', r.blob) end)
      from public.job_step_totals t
      left join public.job_steps s on s.job_id = t.job_id and s.step = t.step and not t.mapped
      left join public.step_results r on r.id = s.result_id
      where t.job_id = job.id and t.step = any(step.inputs)), '{}'),
    'mapped', exists (select from public.pipeline_steps p where p.graph = job.graph and p.map = step.name),
    'deploy', (select g.deploy from public.pipeline_graphs g where g.digest = job.graph),
    'reuse', case when not job.fresh then (
      select jsonb_build_object('result', r.id, 'digest', r.digest, 'value', r.value, 'blob', r.blob)
      from public.step_results r where r.tenant_id = job.tenant_id and r.identity = run.identity
      order by r.id desc limit 1) end)
$$;

-- The results of a mapped step of a job, in item order.
create function ledger.gather(of_job uuid, of_step text) returns table (value jsonb, blob jsonb)
language sql stable as $$
  select r.value, r.blob from public.job_steps s join public.step_results r on r.id = s.result_id
  where s.job_id = of_job and s.step = of_step order by s.item
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
-- `result`: {"digest", "value" | "blob", "artifacts"}, or {"reuse": id}. `items`: for steps that are mapped over.
-- False when the attempt is stale.
create function ledger.complete(run_id uuid, of_attempt integer, result jsonb, items jsonb default null)
returns boolean language plpgsql as $$
declare
  job public.jobs := ledger.lock_job((select s.job_id from public.job_steps s where s.id = run_id));
  run public.job_steps := ledger.end_attempt(run_id, of_attempt, 'completed');
  width public.job_step_totals;
begin
  if run.id is null then
    return false;
  end if;
  run.result_id := ledger.keep_result(job, run, result);
  update public.job_steps s set
    status = 'completed', queue_job_id = null, worker_id = null, result_id = run.result_id, error_code = null,
    error_message = null, finished_at = ledger.now()
  where s.id = run.id;
  update public.job_step_totals t set
    completed = t.completed + 1, finished_at = case when t.completed + 1 = t.total then ledger.now() end
  where t.job_id = job.id and t.step = run.step
  returning * into width;
  job := ledger.measure(job, run, width);
  if result ? 'reuse' then
    job := ledger.note(job, 'reused', 'Done before with the same input; the result is used again.', '{}',
                       run.step, run.item, run.attempt);
  end if;
  job := ledger.note(job, 'step_completed', '', jsonb_build_object('current', width.completed, 'total', width.total),
                     run.step, run.item, run.attempt);
  if items is not null then
    perform ledger.lay_out(job, run.step, items);
  end if;
  if width.finished_at is not null then
    job := ledger.advance(job, run.step);
  end if;
  perform ledger.save(job);
  return true;
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
    job.progress_current := width.completed;
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
    insert into public.step_results (tenant_id, identity, digest, value, blob, artifacts)
    values (job.tenant_id, run.identity, result ->> 'digest', result -> 'value', nullif(result -> 'blob', 'null'),
            coalesce(result -> 'artifacts', '[]'))
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
  share double precision;
begin
  update public.job_steps s set progress_current = report_progress.current, progress_total = report_progress.total
  where s.id = run_id and s.attempt = of_attempt and s.status = 'running' returning * into run;
  if run.id is null then
    return false;
  end if;
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
  perform ledger.save(job);
  return true;
end $$;

-- End an attempt that did not work: try again in `retry_in` seconds, or, when that is null, fail the job.
-- False when the attempt is stale.
create function ledger.fail(
  run_id uuid, of_attempt integer, code text, sentence text, for_operator text, retry_in double precision default null
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
    job := ledger.fail_step(job, run, code, sentence);
  end if;
  perform ledger.save(job);
  return true;
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
  foreach o in array outcomes loop
    accepted := accepted || case o ->> 'verb'
      when 'complete' then ledger.complete((o ->> 'step_run')::uuid, (o ->> 'attempt')::integer, o -> 'result',
                                           nullif(o -> 'items', 'null'))
      when 'fail' then ledger.fail((o ->> 'step_run')::uuid, (o ->> 'attempt')::integer, o ->> 'code', o ->> 'message',
                                   o ->> 'detail', (o ->> 'retry_in')::double precision)
      when 'release' then ledger.release((o ->> 'step_run')::uuid, (o ->> 'attempt')::integer)
    end;
  end loop;
  return accepted;
end $$;

-- What people ask for -----------------------------------------------------------------------------

-- Stop a job. Returns its status before. Refuses when it is already over, or not this tenant's.
create function ledger.cancel(job_id uuid, of_tenant uuid, by_user uuid, reason text default '') returns text
language plpgsql as $$
declare
  job public.jobs := ledger.lock_job(job_id);
  before text := job.status;
begin
  if job.id is null or job.tenant_id <> of_tenant then
    perform ledger.refuse(404, 'job_not_found', 'There is no such job.');
  elsif job.status in ('completed', 'failed', 'cancelled') then
    perform ledger.refuse(409, 'job_is_over', format('This job is already %s.', job.status),
                          jsonb_build_object('status', job.status));
  end if;
  perform ledger.stop_step_runs(job.id);
  job.status := 'cancelled';
  job.finished_at := ledger.now();
  job := ledger.note(job, 'cancelled', coalesce(nullif(reason, ''), 'Cancelled on request.'), actor => by_user);
  perform ledger.save(job);
  return before;
end $$;

-- Reopen a failed job where it failed. Done steps stay done. Refuses when the job did not fail.
create function ledger.retry(job_id uuid, of_tenant uuid, by_user uuid) returns void
language plpgsql as $$
declare
  job public.jobs := ledger.lock_job(job_id);
begin
  if job.id is null or job.tenant_id <> of_tenant then
    perform ledger.refuse(404, 'job_not_found', 'There is no such job.');
  elsif job.status <> 'failed' then
    perform ledger.refuse(409, 'job_did_not_fail', format('Only a failed job can be retried; this one is %s.', job.status),
                          jsonb_build_object('status', job.status));
  end if;
  job.status := 'queued';
  job.error_code := null;
  job.error_message := null;
  job.finished_at := null;
  job := ledger.note(job, 'reopened', 'Trying again from where it failed.', actor => by_user);
  perform ledger.save(job);
  update public.job_steps s set
    status = 'pending', failures = 0, losses = 0, finished_at = null, error_code = null, error_message = null
  where s.job_id = job.id and s.status in ('failed', 'cancelled');
  perform ledger.enqueue(array(
    select s.id from public.job_steps s join public.job_step_totals t on t.job_id = s.job_id and t.step = s.step
    where s.job_id = job.id and s.status = 'pending' and t.opened_at is not null order by s.item));
exception when unique_violation then
  perform ledger.refuse(409, 'newer_job_exists', 'An equal job was started after this one failed; follow that one.');
end $$;

-- Record an uploaded document.
create function ledger.add_document(
  document_id uuid, of_tenant uuid, by_user uuid, title text, filename text, kind text, media_type text,
  bytes bigint, sha256 text
) returns public.documents language sql volatile as $$
  insert into public.documents (id, tenant_id, uploaded_by, title, filename, kind, media_type, bytes, sha256)
  values (document_id, of_tenant, by_user, title, filename, kind, media_type, bytes, sha256)
  returning *
$$;

-- Publish a pipeline's graph and make it the current one of its name.
create function ledger.publish(graph jsonb, graph_digest text, by_deploy text) returns void
language plpgsql as $$
begin
  insert into public.pipeline_graphs (digest, name, version, title, accepts, params_schema, total_weight, deploy)
  values (graph_digest, graph ->> 'name', (graph ->> 'version')::integer, graph ->> 'title',
          array(select jsonb_array_elements_text(graph -> 'accepts')), graph -> 'params_schema',
          (select sum((s ->> 'weight')::double precision) from jsonb_array_elements(graph -> 'steps') s), by_deploy)
  on conflict (digest) do nothing;
  insert into public.pipeline_steps (graph, name, position, stage, queue, version, after, map, inputs, takes,
                                     attempts, timeout_s, weight)
  select graph_digest, s ->> 'name', nr, s ->> 'stage', s ->> 'queue', (s ->> 'version')::integer,
         array(select jsonb_array_elements_text(s -> 'after')), s ->> 'map',
         array(select jsonb_array_elements_text(s -> 'inputs')), array(select jsonb_array_elements_text(s -> 'takes')),
         (s ->> 'attempts')::integer, (s ->> 'timeout_s')::double precision, (s ->> 'weight')::double precision
  from jsonb_array_elements(graph -> 'steps') with ordinality x(s, nr)
  on conflict do nothing;
  insert into public.pipelines (name, graph) values (graph ->> 'name', graph_digest)
  on conflict (name) do update set graph = excluded.graph, retired_at = null;
end $$;

-- Retire the pipelines that this release no longer has. Their jobs in flight keep their graphs.
create function ledger.retire_pipelines(kept text[]) returns void language sql volatile as $$
  update public.pipelines p set retired_at = ledger.now() where p.name <> all(kept) and p.retired_at is null
$$;
