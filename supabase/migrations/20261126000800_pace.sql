-- Pace: the three calls that every job goes through, each a few statements however many jobs it moves.
--
-- What a transition costs is the number of its statements: a row costs a few microseconds, a statement ten times that. So
-- what is common is written for a whole group at once: a job is submitted in one statement, a group of step runs begun
-- in one, and the completions of a group share theirs as long as what follows is plain. What is not plain goes one by one
-- through the functions that were there before, and both ways write the same rows.

-- Submitting ------------------------------------------------------------------------------------------

-- Make a job, its first step runs, their queue jobs and its first event; or find the job this request already made. A
-- graph's first steps wait for nothing, so they are neither mapped nor gates.
-- Returns {"job": id, "created": bool}. Refuses with a code when the request cannot be a job.
create or replace function ledger.submit(
  job_id uuid, for_tenant uuid, by_user uuid, of_pipeline text, of_graph text, for_document uuid, with_params jsonb,
  idempotency text default null, run_fresh boolean default false, deadline_s double precision default null
) returns jsonb language plpgsql as $$
declare
  graph public.pipeline_graphs := ledger.check_submission(for_tenant, of_pipeline, of_graph, for_document);
  payload text := encode(sha256(convert_to(concat_ws(chr(31), of_pipeline, coalesce(for_document::text, ''),
                         with_params::text, run_fresh), 'UTF8')), 'hex');
  -- A fresh run answers for its like only while it lasts.
  natural_like text := payload || ':' || case when run_fresh then 'fresh' else graph.version::text end;
  paused boolean := ledger.tenant_paused(for_tenant);
  moment timestamptz := ledger.now();
  opened text[];
begin
  with born as (
    insert into public.jobs (id, tenant_id, created_by, pipeline, graph, document_id, params, fresh, total_weight,
                             idempotency_key, natural_key, payload_digest, deadline_at, last_seq, created_at, updated_at)
    values (job_id, for_tenant, by_user, of_pipeline, graph.digest, for_document, with_params, run_fresh,
            graph.total_weight, idempotency, case when idempotency is null then natural_like end, payload,
            moment + make_interval(secs => deadline_s), 1, moment, moment)
    on conflict do nothing
    returning id, stage
  ), history as (
    insert into public.job_events (job_id, seq, tenant_id, at, kind, stage, actor, message, data)
    select b.id, 1, for_tenant, moment, 'submitted', b.stage, by_user, 'Waiting for a worker.',
           jsonb_build_object('pipeline', of_pipeline, 'status', 'queued', 'percent', 0)
    from born b
  ), first as materialized (
    select p.name, p.queue, p.position, row_number() over (partition by p.queue order by p.position) as nr
    from born b join public.pipeline_steps p on p.graph = graph.digest and p.after = '{}'
  ), places as materialized (
    select q.queue, ledger.virtual_start(for_tenant, q.queue, true) as start, ledger.virtual_cost(for_tenant, q.queue) as cost
    from (select distinct f.queue from first f) q
  ), widths as (
    insert into public.job_step_totals (job_id, tenant_id, step, total, opened_at)
    select submit.job_id, for_tenant, f.name, 1, moment from first f
  ), runs as (
    insert into public.job_steps (job_id, tenant_id, step, status, queue, priority, queue_job_id, created_at, queued_at)
    select submit.job_id, for_tenant, f.name, case when paused then 'held' else 'queued' end, f.queue,
           ledger.place(p.start, p.cost, f.nr),
           case when not paused then nextval('procrastinate.procrastinate_jobs_id_seq') end, ledger.now(), ledger.now()
    from first f join places p using (queue) order by f.position
    returning id, tenant_id, queue, priority, queue_job_id
  ), waiting as (
    insert into procrastinate.procrastinate_jobs (id, queue_name, task_name, priority, args)
    select r.queue_job_id, r.queue, 'run_step', r.priority, ledger.queue_args(r.id, r.tenant_id)
    from runs r where r.queue_job_id is not null
  )
  select array(select distinct f.queue from first f) into opened from born;
  if not found then
    return ledger.find_submitted(for_tenant, idempotency, natural_like, payload);
  end if;
  perform ledger.wake(q) from unnest(opened) q;
  perform pg_notify('ledgerline_events', job_id || ' 1');
  return jsonb_build_object('job', job_id, 'created', true);
end $$;

-- Beginning -------------------------------------------------------------------------------------------
--
-- Plans are left nothing but indexes (see the attempts), and so no hash to join by: what belongs together is carried along,
-- not joined again. And they are not compiled: with ways forbidden they look dearer than they are.

-- Claim up to `most` queue jobs for a worker. For step runs, claiming is beginning: the attempt gets its number, the
-- job leaves `queued`, and both are seen at once. `work` holds what the attempt needs; null for chores.
--
-- A queue job that is taken gets a new row: the old one is deleted, not updated. Two claims may look at the same row;
-- when the first has updated and committed it, the second would follow the update, lock the new version, find that it is
-- taken, and keep it locked, while the first wants to complete it: a deadlock. A deleted row is passed over.
create or replace function ledger.claim(of_queues text[], for_worker uuid, queue_worker bigint, most integer)
returns table (
  id bigint, status text, task_name text, queue_name text, priority integer, lock text, queueing_lock text, args jsonb,
  scheduled_at timestamptz, attempts integer, work jsonb
) language plpgsql set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan as $$
declare
  picked procrastinate.procrastinate_jobs[] := ledger.pick(of_queues, most);
  begun procrastinate.procrastinate_jobs[];
begin
  if picked = '{}' then
    return;
  end if;
  begun := ledger.begin(picked, for_worker);
  delete from procrastinate.procrastinate_jobs q where q.id = any(array(select p.id from unnest(picked) p)) and q.task_name = 'run_step';
  insert into procrastinate.procrastinate_jobs (id, queue_name, task_name, priority, args, status)
  select b.id, b.queue_name, b.task_name, b.priority, b.args, 'doing' from unnest(begun) b;
  return query
    select b.id, 'doing', b.task_name::text, b.queue_name::text, b.priority, b.lock, b.queueing_lock, b.args, b.scheduled_at,
           b.attempts, (select w.work from ledger.work w where w.step_run = (b.args ->> 'step_run')::uuid)
    from unnest(begun) b;
  return query
    update procrastinate.procrastinate_jobs q set status = 'doing', worker_id = queue_worker from unnest(picked) p
    where q.id = p.id and p.task_name <> 'run_step'
    returning q.id, 'doing', q.task_name::text, q.queue_name::text, q.priority, q.lock, q.queueing_lock, q.args,
              q.scheduled_at, q.attempts, null::jsonb;
end $$;

-- Queue jobs that nobody holds, locked: of each queue the first ones. The queues come in any order, because priorities of
-- different queues say nothing about each other, and so that none of them always comes first.
create or replace function ledger.pick(of_queues text[], most integer) returns procrastinate.procrastinate_jobs[]
language plpgsql set enable_seqscan = off set enable_sort = off set jit = off set plan_cache_mode = force_generic_plan as $$
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

-- Begin the attempts of queue jobs, all in one statement. Returns those whose step run began: it may no longer wait for
-- this queue job.
drop function ledger.begin(procrastinate.procrastinate_jobs[], uuid);
create function ledger.begin(picked procrastinate.procrastinate_jobs[], for_worker uuid)
returns procrastinate.procrastinate_jobs[] language plpgsql as $$
declare
  begun procrastinate.procrastinate_jobs[];
  tidings text[];
begin
  perform from public.jobs j where j.id = any(array(
    select s.job_id from unnest(picked) p join public.job_steps s on s.id = (p.args ->> 'step_run')::uuid
    where p.task_name = 'run_step')) order by j.id for no key update;
  with held as materialized (
    select s.id, p.ordinality as nr, s.status = 'queued' and s.queue_job_id = p.id as waits
    from unnest(picked) with ordinality p join public.job_steps s on s.id = (p.args ->> 'step_run')::uuid
    where p.task_name = 'run_step'
    for update of s
  ), begun as (
    update public.job_steps s set
      status = 'running', attempt = s.attempt + 1, identity = ledger.identify(j, p, s), worker_id = for_worker,
      started_at = ledger.now(), progress_current = 0, progress_total = 0
    from held h, public.jobs j, public.pipeline_steps p
    where h.waits and s.id = h.id and j.id = s.job_id and p.graph = j.graph and p.name = s.step
    returning h.nr, s.job_id, s.tenant_id, s.step, s.item, s.attempt, p.stage, j.stage as left_stage, j.last_seq,
              j.status = 'queued' as first, jsonb_build_object(
                'status', case j.status when 'queued' then 'running' else j.status end, 'percent', j.percent) as standing
  ), told as (
    select b.*, b.last_seq + b.first::integer + row_number() over (partition by b.job_id order by b.nr) as seq,
           row_number() over (partition by b.job_id order by b.nr) = 1 as leads,
           row_number() over (partition by b.job_id order by b.nr desc) = 1 as ends,
           bool_or(b.item is null) over (partition by b.job_id) as alone
    from begun b
  ), moved as (
    update public.jobs j set
      status = case when t.first then 'running' else j.status end,
      started_at = case when t.first then coalesce(j.started_at, ledger.now()) else j.started_at end,
      stage = t.stage, progress_message = case when j.stage = t.stage then j.progress_message else '' end,
      progress_current = case when t.alone then 0 else j.progress_current end,
      progress_total = case when t.alone then 0 else j.progress_total end,
      last_seq = t.seq, updated_at = ledger.now()
    from told t where j.id = t.job_id and t.ends
  ), history as (
    insert into public.job_events (job_id, seq, tenant_id, at, kind, stage, step, item, attempt, message, data)
    select t.job_id, t.seq - 1, t.tenant_id, ledger.now(), 'started', t.left_stage, null, null, null,
           'A worker has picked it up.', t.standing
    from told t where t.first and t.leads
    union all
    select t.job_id, t.seq, t.tenant_id, ledger.now(), 'step_started', t.stage, t.step, t.item, t.attempt, '', t.standing
    from told t
  )
  select array_agg(picked[t.nr] order by t.nr), array_agg(t.job_id || ' ' || t.seq) filter (where t.ends) into begun, tidings
  from told t;
  perform pg_notify('ledgerline_events', t) from unnest(tidings) t;
  return coalesce(begun, '{}');
end $$;

-- Everything an attempt needs, as JSON. Lists of mapped results are left to `ledger.gather`: they can be long.
drop function ledger.describe_work(public.jobs, public.pipeline_steps, public.job_steps);
create view ledger.work as
  select s.id as step_run, jsonb_build_object(
    'step_run', s.id, 'attempt', s.attempt, 'failures', s.failures, 'previous_error', s.error_code,
    'age_s', extract(epoch from ledger.now() - s.created_at),
    'job', j.id, 'tenant', j.tenant_id, 'pipeline', j.pipeline, 'step', s.step, 'item', s.item,
    'item_value', s.item_value, 'params', j.params,
    'document', case when p.takes && '{document,source}' then (
      select jsonb_build_object('title', d.title, 'filename', d.filename, 'kind', d.kind,
                                'blob', jsonb_build_object('sha256', d.sha256, 'bytes', d.bytes))
      from public.documents d where d.id = j.document_id) end,
    'inputs', case when p.inputs = '{}' then '{}' else (
      select coalesce(jsonb_object_agg(t.step, case when u.id is null then '{"gather": true}'::jsonb
                                               else jsonb_build_object('value', r.value, 'blob', r.blob) end), '{}')
      from public.job_step_totals t
      left join public.job_steps u on u.job_id = t.job_id and u.step = t.step
        and (not t.mapped or t.step = any(p.along) and u.item = s.item)
      left join public.step_results r on r.id = u.result_id
      where t.job_id = j.id and t.step = any(p.inputs)) end,
    'mapped', exists (select from public.pipeline_steps m where m.graph = j.graph and m.map = s.step),
    'version', p.version, 'deploy', (select g.deploy from public.pipeline_graphs g where g.digest = j.graph),
    'reuse', case when not j.fresh then (
      select jsonb_build_object('result', r.id, 'digest', r.digest, 'value', r.value, 'blob', r.blob, 'skipped', r.skipped,
                                'text', r.description -> 'text')
      from public.step_results r where r.tenant_id = j.tenant_id and r.identity = s.identity
      order by r.id desc limit 1) end) as work
  from public.job_steps s join public.jobs j on j.id = s.job_id
  join public.pipeline_steps p on p.graph = j.graph and p.name = s.step;
revoke all on ledger.work from anon, authenticated, public;

-- Completing ------------------------------------------------------------------------------------------

-- What `ledger.file_results` wrote of one attempt: its place among the outcomes, its step run as it is now, and what is left
-- to tell of it.
create type ledger.filed as (nr bigint, run public.job_steps, result jsonb, items jsonb);

-- How far step runs that ended together bring their job, when that is plain: all are of one step, and after that step
-- comes nothing, or steps that wait for nothing else. Of the job and the step: what they were before.
create type ledger.move as (
  job_id uuid, tenant_id uuid, graph text, step text,
  runs integer,                  -- of the step, that ended
  weight double precision,       -- of each of them
  done integer, total integer, mapped boolean,
  ends boolean,                  -- the step
  closes boolean,                -- the job
  last_seq integer, stage text, percent integer, done_weight double precision, total_weight double precision
);

-- Settle many attempts in one transaction, so that their commits share one flush; completions that follow each other share
-- their statements too. Each outcome: {"verb": "complete" | "fail" | "release", "step_run", "attempt", ...}. Returns for
-- each whether it was accepted, in order.
create or replace function ledger.settle(outcomes jsonb[]) returns boolean[]
language plpgsql set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan as $$
declare
  accepted boolean[] := '{}';
  completed jsonb[] := '{}';
  o jsonb;
begin
  perform from public.jobs j where j.id = any(array(
    select s.job_id from unnest(outcomes) x(o) join public.job_steps s on s.id = (x.o ->> 'step_run')::uuid
  )) order by j.id for no key update;
  if exists (select from unnest(outcomes) x(o) where x.o -> 'result' ?| '{reuse,description}') then
    perform ledger.lock_touched(outcomes);
    outcomes := ledger.mark_forgotten(outcomes);
  end if;
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
      when 'redo' then ledger.redo((o ->> 'step_run')::uuid, (o ->> 'attempt')::integer)
    end;
  end loop;
  return accepted || ledger.complete_all(completed);
end $$;

-- Results that are used again are counted, and documents are described: two groups that share some must touch them in one
-- order. The caller holds the jobs' rows.
create function ledger.lock_touched(outcomes jsonb[]) returns void language plpgsql as $$
begin
  perform from public.step_results r where r.id = any(array(
    select (x.o #>> '{result,reuse}')::uuid from unnest(outcomes) x(o)
  )) order by r.id for no key update;
  perform from public.documents d where d.id = any(array(
    select j.document_id from unnest(outcomes) x(o)
    join public.job_steps s on s.id = (x.o ->> 'step_run')::uuid join public.jobs j on j.id = s.job_id
    where x.o -> 'result' ?| '{reuse,description}'
  )) order by d.id for no key update;
end $$;

-- A result may be forgotten while an attempt is about to use it again: a reviewer sends back the job that made it, or its
-- document is deleted. Then there is nothing to use, and no reason to fail: the step run is given back, and does the work.
--
-- The outcomes, in order; those that would use a result that is gone are to be done again. The caller has locked the
-- results that are still there.
create function ledger.mark_forgotten(outcomes jsonb[]) returns jsonb[] language sql volatile as $$
  select array_agg(case when x.o -> 'result' ? 'reuse' and not exists (
                     select from public.step_results r where r.id = (x.o #>> '{result,reuse}')::uuid)
                   then x.o || '{"verb": "redo"}' else x.o end order by x.nr)
  from unnest(outcomes) with ordinality x(o, nr)
$$;

-- Give an attempt back whose result was forgotten. Nothing of it is accepted: always false.
create function ledger.redo(run_id uuid, of_attempt integer) returns boolean language plpgsql as $$
declare
  job public.jobs := ledger.lock_job((select s.job_id from public.job_steps s where s.id = run_id));
  run public.job_steps := ledger.end_attempt(run_id, of_attempt, 'queued');
begin
  if run.id is not null then
    perform ledger.enqueue(array[run.id]);
    job := ledger.note(job, 'step_released', 'The result it was about to use again is gone; it is done anew.', '{}',
                       run.step, run.item, run.attempt);
    perform ledger.save(job);
  end if;
  return false;
end $$;

-- Complete attempts; the caller holds their jobs' rows. Returns for each whether it was accepted, in order.
create or replace function ledger.complete_all(outcomes jsonb[]) returns boolean[] language plpgsql as $$
declare
  filed ledger.filed[] := ledger.file_results(outcomes);
  plain ledger.move[] := ledger.plain_moves(filed);
  job public.jobs;
  done ledger.filed;
begin
  if plain <> '{}' then
    perform ledger.move_on(plain, filed);
    perform ledger.lead_on(plain) from unnest(plain) m having bool_or(m.ends and not m.closes);
  end if;
  for done in
    select f.* from unnest(filed) f where (f.run).job_id not in (select m.job_id from unnest(plain) m)
    order by (f.run).job_id, f.nr
  loop
    if job.id is distinct from (done.run).job_id then
      perform ledger.save(job) where job.id is not null;
      job := ledger.lock_job((done.run).job_id);
    end if;
    job := ledger.finish_run(job, done.run, done.result, done.items);
  end loop;
  perform ledger.save(job) where job.id is not null;
  return array(select n in (select f.nr from unnest(filed) f) from generate_series(1, cardinality(outcomes)) n order by n);
end $$;

-- What completing writes of each attempt by itself, for many attempts in one statement: the result under its identity, the
-- artifacts under the job (a rerun overwrites its own), the step run's row; and its queue job goes. Stale ones are left out.
drop function ledger.file_results(jsonb[]);
create function ledger.file_results(outcomes jsonb[]) returns ledger.filed[] language plpgsql as $$
declare
  filed ledger.filed[];
begin
  with told as (
    select o.nr, (o.said ->> 'step_run')::uuid as id, (o.said ->> 'attempt')::integer as attempt, o.said -> 'result' as result,
           nullif(o.said -> 'items', 'null') as items
    from unnest(outcomes) with ordinality o(said, nr)
  ), held as materialized (
    select t.nr, t.result, t.items, s.id, s.job_id, s.tenant_id, s.step, s.item, s.queue_job_id, s.identity,
           s.attempt = t.attempt and s.status = 'running' as ours, t.result ? 'reuse' as reused
    from told t join public.job_steps s on s.id = t.id for update of s
  ), ended as materialized (
    select h.*, case when h.reused then (
             select r.id from public.step_results r where r.id = (h.result ->> 'reuse')::uuid and r.tenant_id = h.tenant_id)
           else ledger.uuid7() end as kept
    from held h where h.ours
  ), withdrawn as (
    delete from procrastinate.procrastinate_jobs q using ended e where q.id = e.queue_job_id
  ), filed as (
    insert into public.step_results (id, tenant_id, identity, digest, value, blob, artifacts, skipped, description, blobs)
    select e.kept, e.tenant_id,
           -- What another version of the step made is not what this job's version would have made.
           case when e.result ? 'version'
                then encode(sha256(convert_to(concat_ws(chr(31), e.identity, e.result ->> 'version'), 'UTF8')), 'hex')
                else e.identity end,
           e.result ->> 'digest', e.result -> 'value', nullif(e.result -> 'blob', 'null'),
           coalesce(e.result -> 'artifacts', '[]'), e.result ? 'skipped', e.result -> 'description',
           case when e.result ? 'blobs' then array(select jsonb_array_elements_text(e.result -> 'blobs')) else '{}' end
    from ended e where not e.reused
  ), hit as (
    update public.step_results r set
      hits = r.hits + (select count(*) from ended e where e.reused and e.kept = r.id), used_at = ledger.now()
    where r.id = any(array(select e.kept from ended e where e.reused))
  ), named as (
    insert into public.artifacts (job_id, tenant_id, step, item, name, media_type, bytes, sha256, created_at)
    select e.job_id, e.tenant_id, e.step, e.item, a ->> 'name', a ->> 'media_type', (a ->> 'bytes')::bigint, a ->> 'sha256',
           ledger.now()
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
    from ended e where s.id = e.id
    returning e.nr, s as run, e.result, e.items
  )
  select array_agg(row(f.nr, f.run, f.result, f.items)::ledger.filed) into filed from finished f;
  return coalesce(filed, '{}');
end $$;

-- The moves that are plain among what was filed. Whatever else belongs to the job in hand: it is left to those who look at
-- each step run.
create function ledger.plain_moves(filed ledger.filed[]) returns ledger.move[] language plpgsql stable as $$
declare
  moves ledger.move[];
begin
  with ended as (
    select (f.run).job_id, min((f.run).step) as step, count(*)::integer as runs from unnest(filed) f
    group by (f.run).job_id
    having min((f.run).step) = max((f.run).step) and bool_and(f.items is null and not f.result ?| '{progress,reuse,description}')
  ), standing as materialized (
    select j.id, j.tenant_id, j.graph, e.step, e.runs, t.completed + t.failed as done, t.total, t.mapped,
           t.completed + t.failed + e.runs = t.total and t.opened_at is not null as ends,
           j.last_seq, j.stage, j.percent, j.done_weight, j.total_weight
    from ended e join public.jobs j on j.id = e.job_id
    join public.job_step_totals t on t.job_id = j.id and t.step = e.step
    where j.status = 'running'
  ), places as materialized (
    select d.graph, d.step, p.weight,
           exists (select from public.pipeline_steps n where n.graph = d.graph and d.step = any(n.along)) as followed,
           -- null when nothing comes after the step
           (select bool_and(n.after = array[d.step] and n.map is null and not n.gate) from public.pipeline_steps n
            where n.graph = d.graph and d.step = any(n.after)) as leads_on,
           (select count(*) from public.pipeline_steps n where n.graph = d.graph) as steps,
           exists (select from public.pipeline_steps n where n.graph = d.graph and n.map is not null) as learns
    from (select distinct s.graph, s.step from standing s) d
    join public.pipeline_steps p on p.graph = d.graph and p.name = d.step
  )
  select array_agg(row(s.id, s.tenant_id, s.graph, s.step, s.runs, p.weight / s.total, s.done, s.total, s.mapped, s.ends,
                       s.ends and p.leads_on is null, s.last_seq, s.stage, s.percent, s.done_weight,
                       s.total_weight)::ledger.move) into moves
  from standing s join places p on p.graph = s.graph and p.step = s.step
  where not p.followed and (not s.ends or coalesce(p.leads_on, not p.learns and p.steps = 1 + (
    select count(*) from public.job_step_totals t where t.job_id = s.id and t.finished_at is not null)));
  return coalesce(moves, '{}');
end $$;

-- Count in what ended, tell it, and close the jobs that are done.
create function ledger.move_on(moves ledger.move[], filed ledger.filed[]) returns void language plpgsql as $$
declare
  tidings text[];
begin
  with counted as (
    update public.job_step_totals t set
      completed = t.completed + m.runs, finished_at = case when m.ends then ledger.now() end
    from unnest(moves) m where t.job_id = m.job_id and t.step = m.step
  ), ended as materialized (
    select m.*, (f.run).item, (f.run).attempt, (f.run).status, f.result,
           row_number() over (partition by m.job_id order by f.nr) as nr
    from unnest(filed) f join unnest(moves) m on m.job_id = (f.run).job_id
  ), moved as (
    update public.jobs j set
      status = case when m.closes then 'completed' else j.status end,
      percent = case when m.closes then 100 else ledger.percent(j.percent, j.done_weight + m.runs * m.weight, j.total_weight) end,
      done_weight = j.done_weight + m.runs * m.weight,
      progress_current = case when m.mapped then m.done + m.runs else j.progress_current end,
      progress_total = case when m.mapped then m.total else j.progress_total end,
      finished_at = case when m.closes then ledger.now() end,
      natural_key = case when m.closes then nullif(j.natural_key, j.payload_digest || ':fresh') else j.natural_key end,
      last_seq = j.last_seq + m.runs + m.closes::integer, updated_at = ledger.now()
    from unnest(moves) m where j.id = m.job_id
    returning j.id, j.tenant_id, j.last_seq, j.stage, m.closes
  ), history as (
    insert into public.job_events (job_id, seq, tenant_id, at, kind, stage, step, item, attempt, message, data)
    select e.job_id, e.last_seq + e.nr, e.tenant_id, ledger.now(),
           case e.status when 'skipped' then 'step_skipped' else 'step_completed' end, e.stage, e.step, e.item, e.attempt,
           ledger.remark(e.result), jsonb_build_object(
             'status', 'running', 'percent', ledger.percent(e.percent, e.done_weight + e.nr * e.weight, e.total_weight),
             'current', e.done + e.nr, 'total', e.total)
    from ended e
    union all
    select m.id, m.last_seq, m.tenant_id, ledger.now(), 'completed', m.stage, null, null, null, 'Everything is done.',
           '{"status": "completed", "percent": 100}'
    from moved m where m.closes
  )
  select array_agg(m.id || ' ' || m.last_seq) into tidings from moved m;
  perform pg_notify('ledgerline_events', t) from unnest(tidings) t;
end $$;

-- Open what comes after the steps that ended: single step runs, right behind the head of their queue.
create function ledger.lead_on(moves ledger.move[]) returns void language plpgsql as $$
declare
  queues text[];
begin
  with next as materialized (
    select m.job_id, m.tenant_id, p.name, p.queue, p.position
    from unnest(moves) m join public.pipeline_steps p on p.graph = m.graph and m.step = any(p.after) where m.ends
  ), places as materialized (
    select d.tenant_id, d.queue, ledger.tenant_paused(d.tenant_id) as paused, ledger.place(
             ledger.virtual_start(d.tenant_id, d.queue, false), ledger.virtual_cost(d.tenant_id, d.queue), 1) as priority
    from (select distinct n.tenant_id, n.queue from next n) d
  ), widths as (
    insert into public.job_step_totals (job_id, tenant_id, step, total, opened_at)
    select n.job_id, n.tenant_id, n.name, 1, ledger.now() from next n
  ), runs as (
    insert into public.job_steps (job_id, tenant_id, step, status, queue, priority, queue_job_id, created_at, queued_at)
    select n.job_id, n.tenant_id, n.name, case when p.paused then 'held' else 'queued' end, n.queue, p.priority,
           case when not p.paused then nextval('procrastinate.procrastinate_jobs_id_seq') end, ledger.now(), ledger.now()
    from next n join places p using (tenant_id, queue) order by n.job_id, n.position
    returning id, tenant_id, queue, priority, queue_job_id
  ), waiting as (
    insert into procrastinate.procrastinate_jobs (id, queue_name, task_name, priority, args)
    select r.queue_job_id, r.queue, 'run_step', r.priority, ledger.queue_args(r.id, r.tenant_id)
    from runs r where r.queue_job_id is not null
  )
  select array(select p.queue from places p) into queues;
  perform ledger.wake(q) from unnest(queues) q;
end $$;

-- Percent after so much weight is done. It never goes back, and 100 is for jobs that are over.
create function ledger.percent(before integer, done double precision, total double precision) returns integer
language sql immutable as $$
  select greatest(before, least(99, floor(100 * done / total + 1e-6)))::integer
$$;

-- What a step's end has to say.
create function ledger.remark(result jsonb) returns text language sql immutable as $$
  select coalesce(
    result ->> 'skipped',
    'Done by version ' || (result ->> 'version') || ' of this step, which is not the one the job was submitted with.', '')
$$;

-- What is not plain, one by one ------------------------------------------------------------------------

-- A step run has its result: its lines in the history, the items it laid out, and what may go on now.
create or replace function ledger.finish_run(inout job public.jobs, run public.job_steps, result jsonb, items jsonb)
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
  if result ?| '{reuse,description}' then
    perform ledger.describe_document(job, run, result ->> 'text');
  end if;
  if items is not null then
    perform ledger.lay_out(job, run.step, items);
  end if;
  job := ledger.count_run(job, run, ledger.remark(result));
end $$;

-- Progress after one more step run is done. Percent never goes back.
create or replace function ledger.measure(inout job public.jobs, run public.job_steps, width public.job_step_totals)
language plpgsql as $$
declare
  weight double precision;
begin
  select p.weight into weight from public.pipeline_steps p where p.graph = job.graph and p.name = run.step;
  job.done_weight := job.done_weight + weight / width.total;
  job.percent := ledger.percent(job.percent, job.done_weight, job.total_weight);
  if width.mapped then
    job.progress_current := width.completed + width.failed;
    job.progress_total := width.total;
  end if;
end $$;
