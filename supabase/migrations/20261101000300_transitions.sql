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
    natural_key = job.natural_key, last_seq = job.last_seq, reused = job.reused, fresh = job.fresh,
    started_at = job.started_at,
    finished_at = job.finished_at, updated_at = ledger.now()
  where j.id = job.id;
  perform pg_notify('ledgerline_events', job.id || ' ' || job.last_seq);
end $$;

-- Wake the workers that serve a queue: Procrastinate's own signal, once per queue and transaction.
create function ledger.wake(queue text) returns void language sql volatile as $$
  select pg_notify('procrastinate_queue_v1#' || queue, '{"type": "job_inserted", "job_id": 0}')
$$;

-- Fairness: a queue job's priority is minus the virtual time at which its tenant's share of the queue reaches it. The
-- queue's virtual now is that of its head. A job's first steps line up behind what its tenant has queued already; the
-- steps that follow line up right behind the head, so that what was begun is finished before more is begun.
create function ledger.virtual_start(of_tenant uuid, of_queue text, behind_own boolean) returns integer
language sql stable as $$
  select greatest(
    (select -max(s.priority) from public.job_steps s where s.status = 'queued' and s.queue = of_queue),
    case when behind_own then (select -min(s.priority) from public.job_steps s
      where s.status = 'queued' and s.tenant_id = of_tenant and s.queue = of_queue) end,
    0)
$$;

-- What one step run costs its tenant in virtual time: less with more weight.
create function ledger.virtual_cost(of_tenant uuid, of_queue text) returns integer language sql stable as $$
  select greatest(1, round(10 / coalesce(
    (select h.weight from ops.shares h where h.tenant_id = of_tenant and h.queue = of_queue), 1)))::integer
$$;

create function ledger.tenant_paused(of_tenant uuid) returns boolean language sql stable as $$
  select exists (select from ops.pauses p where p.scope = 'tenant' and p.name = of_tenant::text)
$$;

-- Give step runs that are not moving a queue job each, in the order given, or hold them while their tenant is paused.
-- The caller holds the job's row, or the step runs' rows.
create function ledger.enqueue(runs uuid[], behind_own boolean default false) returns void
language sql volatile as $$
  select ledger.wake(w.queue) from (select distinct s.queue from public.job_steps s where s.id = any(runs)) w;
  with runs as materialized (
    select s.id, s.tenant_id, s.queue, row_number() over (partition by s.tenant_id, s.queue order by r.nr) as nr
    from unnest(enqueue.runs) with ordinality r(id, nr) join public.job_steps s on s.id = r.id
  ), shares as materialized (
    select d.tenant_id, d.queue, ledger.virtual_start(d.tenant_id, d.queue, behind_own) as start,
           ledger.virtual_cost(d.tenant_id, d.queue) as cost, ledger.tenant_paused(d.tenant_id) as paused
    from (select distinct r.tenant_id, r.queue from runs r) d
  ), moved as (
    update public.job_steps s set
      status = case when h.paused then 'held' else 'queued' end,
      queue_job_id = case when not h.paused then nextval('procrastinate.procrastinate_jobs_id_seq') end,
      priority = -(h.start + h.cost * r.nr), queued_at = ledger.now(), worker_id = null, due_at = null, finished_at = null
    from runs r join shares h using (tenant_id, queue)
    where s.id = r.id
    returning s.id, s.queue, s.queue_job_id, s.priority
  )
  insert into procrastinate.procrastinate_jobs (id, queue_name, task_name, priority, args)
  select m.queue_job_id, m.queue, 'run_step', m.priority, jsonb_build_object('step_run', m.id)
  from moved m where m.queue_job_id is not null
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
        where s.job_id = of_job and s.status in ('pending', 'queued', 'held', 'running', 'retrying', 'gated')
        for update) l;
  perform ledger.withdraw(queue_jobs);
  update public.job_steps s set
    status = 'cancelled', queue_job_id = null, worker_id = null, due_at = null, finished_at = ledger.now()
  where s.id = any(runs);
  update public.reviews r set status = 'withdrawn', decided_at = ledger.now() where r.job_id = of_job and r.status = 'open';
  return coalesce(cardinality(runs), 0);
end $$;

-- Moving forward ----------------------------------------------------------------------------------

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
            -(ledger.virtual_start(job.tenant_id, step.queue, job.status = 'queued')
              + ledger.virtual_cost(job.tenant_id, step.queue)),
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
language sql stable as $$
  select not exists (
    select from unnest(step.along) upstream
    join public.job_steps u on u.job_id = run.job_id and u.step = upstream and u.item = run.item
    where u.status not in ('completed', 'skipped'))
$$;

-- An item is done: queue the same item of the steps that go along with it.
create function ledger.follow(job public.jobs, run public.job_steps) returns void language sql volatile as $$
  select ledger.enqueue(array[s.id])
  from public.pipeline_steps p
  join public.job_step_totals t on t.job_id = job.id and t.step = p.name and t.opened_at is not null
  join public.job_steps s on s.job_id = job.id and s.step = p.name and s.item = run.item and s.status = 'pending'
  where p.graph = job.graph and run.step = any(p.along) and ledger.item_ready(s, p)
$$;

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
  elsif job.status = 'running' and ledger.only_gates_left(job.id) then
    job.status := 'awaiting_review';
    job.progress_message := 'Waiting for a reviewer.';
    job := ledger.note(job, 'awaiting_review', job.progress_message);
  end if;
end $$;

-- Whether nothing but open gates could move a job.
create function ledger.only_gates_left(of_job uuid) returns boolean language sql stable as $$
  select exists (select from public.reviews r where r.job_id = of_job and r.status = 'open')
    and not exists (select from public.job_steps s
                    where s.job_id = of_job and s.status in ('queued', 'held', 'running', 'retrying'))
$$;

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
  idempotency text default null, run_fresh boolean default false, deadline_s double precision default null
) returns jsonb language plpgsql as $$
declare
  job public.jobs;
  graph public.pipeline_graphs;
  step public.pipeline_steps;
  natural_like text;
  payload text := encode(sha256(convert_to(concat_ws(chr(31), of_pipeline, coalesce(for_document::text, ''),
                         with_params::text, run_fresh), 'UTF8')), 'hex');
begin
  graph := ledger.check_submission(for_tenant, of_pipeline, of_graph, for_document);
  -- A fresh run answers for its like only while it lasts.
  natural_like := payload || ':' || case when run_fresh then 'fresh' else graph.version::text end;
  insert into public.jobs (id, tenant_id, created_by, pipeline, graph, document_id, params, fresh, total_weight,
                           idempotency_key, natural_key, payload_digest, deadline_at, created_at, updated_at)
  values (job_id, for_tenant, by_user, of_pipeline, graph.digest, for_document, with_params, run_fresh,
          graph.total_weight, idempotency,
          case when idempotency is null then natural_like end, payload,
          ledger.now() + make_interval(secs => deadline_s), ledger.now(), ledger.now())
  on conflict do nothing
  returning * into job;
  if job.id is null then
    return ledger.find_submitted(for_tenant, idempotency, natural_like, payload);
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
    perform ledger.refuse_quarantined(for_document, of_pipeline);
  elsif exists (select from public.pipeline_steps p where p.graph = graph.digest and p.takes && '{document,source}') then
    perform ledger.refuse(422, 'document_required', format('The pipeline %s needs a document.', of_pipeline));
  end if;
  return graph;
end $$;

-- A document whose last job killed its workers is not given to more of them until a person retries that job.
create function ledger.refuse_quarantined(for_document uuid, of_pipeline text) returns void
language plpgsql as $$
declare
  last public.jobs;
begin
  select j.* into last from public.jobs j where j.document_id = for_document and j.pipeline = of_pipeline
  order by j.id desc limit 1;
  if last.error_code = 'worker_lost' then
    perform ledger.refuse(409, 'document_quarantined', format(
      'Job %s with this document stopped its workers several times. Retry that job if you think it can work now.', last.id),
      jsonb_build_object('job_id', last.id));
  end if;
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

-- The queues that may be taken from: not paused, and not slowed down by a provider.
create function ledger.open_queues(of_queues text[]) returns text[] language sql stable as $$
  select array(
    select q from unnest(of_queues) q
    where not exists (select from ops.pauses p where p.scope = 'queue' and p.name = q)
      and not exists (select from ops.slowdowns d where d.queue = q and d.until > ledger.now()))
$$;

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
    where q.status = 'todo' and q.queue_name = any(ledger.open_queues(of_queues))
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

-- The digest of one input: of a step's result, of one item's, or over all results of a mapped step.
create function ledger.input_digest(of_job uuid, of_step text, of_item integer) returns text
language sql stable as $$
  select case when count(*) = 1 and (of_item is not null or min(s.item) is null) then min(r.digest)
         else encode(sha256(convert_to(coalesce(string_agg(r.digest, ',' order by s.item), ''), 'UTF8')), 'hex') end
  from public.job_steps s join public.step_results r on r.id = s.result_id
  where s.job_id = of_job and s.step = of_step and (of_item is null or s.item = of_item)
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
    parts := parts || ledger.input_digest(job.id, input, case when input = any(step.along) then run.item end);
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
      select jsonb_object_agg(t.step, case when s.id is null then '{"gather": true}'::jsonb
                                           else jsonb_build_object('value', r.value, 'blob', r.blob) end)
      from public.job_step_totals t
      left join public.job_steps s on s.job_id = t.job_id and s.step = t.step
        and (not t.mapped or t.step = any(step.along) and s.item = run.item)
      left join public.step_results r on r.id = s.result_id
      where t.job_id = job.id and t.step = any(step.inputs)), '{}'),
    'mapped', exists (select from public.pipeline_steps p where p.graph = job.graph and p.map = step.name),
    'deploy', (select g.deploy from public.pipeline_graphs g where g.digest = job.graph),
    'reuse', case when not job.fresh then (
      select jsonb_build_object('result', r.id, 'digest', r.digest, 'value', r.value, 'blob', r.blob,
                                'skipped', r.skipped)
      from public.step_results r where r.tenant_id = job.tenant_id and r.identity = run.identity
      order by r.id desc limit 1) end)
$$;

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
-- `result`: {"digest", "value" | "blob", "artifacts", "used"}, or {"reuse": id}; with "skipped": why, when the step had
-- nothing to do. `items`: for steps that are mapped over. False when the attempt is stale.
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
  job := ledger.finish_run(job, run, ledger.keep_result(job, run, result), result);
  if items is not null then
    perform ledger.lay_out(job, run.step, items);
  end if;
  job := ledger.count_run(job, run);
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
    values (job.tenant_id, run.identity, result ->> 'digest', result -> 'value', nullif(result -> 'blob', 'null'),
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
  loop
    job := ledger.fail_item(job, next, code, sentence);
  end loop;
  job := ledger.count_run(job, run, sentence);
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
                                   o ->> 'detail', (o ->> 'retry_in')::double precision,
                                   (o ->> 'slow_s')::double precision)
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
  job := ledger.reopen_all(job);
  perform ledger.save(job);
exception when unique_violation then
  perform ledger.refuse(409, 'newer_job_exists', 'An equal job was started after this one failed; follow that one.');
end $$;

-- Make the step runs of unfinished steps ready to be opened again. A deadline that passed has done its work.
create function ledger.reset_unfinished(inout job public.jobs) language plpgsql as $$
begin
  update public.jobs j set deadline_at = null where j.id = job.id;
  update public.job_steps s set
    status = 'pending', failures = 0, losses = 0, finished_at = null, error_code = null, error_message = null
  from public.job_step_totals t
  where s.job_id = job.id and s.status in ('failed', 'cancelled') and t.job_id = s.job_id and t.step = s.step
    and t.finished_at is null;
  job.done_weight := job.done_weight - coalesce((
    select sum(p.weight * t.failed / t.total) from public.job_step_totals t
    join public.pipeline_steps p on p.graph = job.graph and p.name = t.step
    where t.job_id = job.id and t.finished_at is null and t.total > 0), 0);
  update public.job_step_totals t set failed = 0 where t.job_id = job.id and t.finished_at is null and t.failed > 0;
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
  insert into public.pipeline_steps (graph, name, position, stage, queue, version, after, map, inputs, takes, along, gate,
                                     expires_s, allow_failures, attempts, timeout_s, weight)
  select graph_digest, s ->> 'name', nr, s ->> 'stage', s ->> 'queue', (s ->> 'version')::integer,
         array(select jsonb_array_elements_text(s -> 'after')), s ->> 'map',
         array(select jsonb_array_elements_text(s -> 'inputs')), array(select jsonb_array_elements_text(s -> 'takes')),
         array(select jsonb_array_elements_text(s -> 'along')), (s ->> 'gate')::boolean,
         (s ->> 'expires_s')::double precision, (s ->> 'allow_failures')::integer,
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
