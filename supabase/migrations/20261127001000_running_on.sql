-- A worker that settles a step and has room goes on with the one step that follows it. That step is begun in the same
-- transaction: it never waits in the queue, and no claim is needed for it. A worker without room asks for nothing, so what
-- follows takes its place in the queue, and those who wait there lose nothing.

-- Claiming in fewer statements -------------------------------------------------------------------------
--
-- On an idle machine a statement costs more to start than to run. So what has begun is described by the statement that
-- begins it, and its queue job moves by one. (Why it is deleted and written again: see `claim` in the pace.)

-- Queue jobs that are locked, and the step runs they are for (null: a chore).
create type ledger.picked as (ids bigint[], runs uuid[]);

-- Those of them whose step run began, and what a worker is told about each.
create type ledger.begun as (ids bigint[], works jsonb[]);

drop function ledger.pick(text[], integer);
create function ledger.pick(of_queues text[], most integer) returns ledger.picked
language plpgsql set enable_sort = off as $$
declare
  queue text;
  picked ledger.picked := row('{}', '{}');
begin
  foreach queue in array ledger.open_queues(of_queues) loop
    select picked.ids || coalesce(array_agg(q.id), '{}'), picked.runs || coalesce(array_agg(q.run), '{}') into picked
    from (
      select q.id, case q.task_name when 'run_step' then (q.args ->> 'step_run')::uuid end as run
      from procrastinate.procrastinate_jobs q
      where q.status = 'todo' and q.queue_name = queue and (q.scheduled_at is null or q.scheduled_at <= pg_catalog.now())
      order by q.priority desc, q.id limit most - cardinality(picked.ids) for update skip locked) q;
    exit when cardinality(picked.ids) >= most;
  end loop;
  return picked;
end $$;

-- What a step run was given by an earlier step: the digest of one result, or of all results of a mapped step in the order of
-- their items. One result is the common case, and is looked up instead of being gathered. Here, as below, results are looked
-- up by what is known, not joined: of a join, a plan that was made when there was little walks through a whole index.
create or replace function ledger.input_digest(of_job uuid, of_step text, of_item integer) returns text
language plpgsql stable as $$
declare
  one text := (
    select (select r.digest from public.step_results r where r.id = s.result_id) from public.job_steps s
    where s.job_id = of_job and s.step = of_step and s.item is not distinct from of_item);
begin
  if one is not null then
    return one;
  end if;
  return (
    select encode(sha256(convert_to(coalesce(string_agg(
      (select r.digest from public.step_results r where r.id = s.result_id), ',' order by s.item), ''), 'UTF8')), 'hex')
    from public.job_steps s where s.job_id = of_job and s.step = of_step and (of_item is null or s.item = of_item));
end $$;

-- Begin the attempts of queue jobs, all in one statement: of those whose step run still waits for its queue job. What it
-- says of each is everything an attempt needs; but lists of mapped results are left to `ledger.gather`: they can be long.
drop view ledger.work;
drop function ledger.begin(procrastinate.procrastinate_jobs[], uuid);
create function ledger.begin(picked ledger.picked, for_worker uuid) returns ledger.begun language plpgsql as $$
declare
  ids bigint[];
  works jsonb[];
  tidings text[];
begin
  perform from public.jobs j where j.id = any(array(select s.job_id from public.job_steps s where s.id = any(picked.runs)))
  order by j.id for no key update;
  with begun as (
    update public.job_steps s set
      status = 'running', attempt = s.attempt + 1, identity = ledger.identify(j, p, s), worker_id = for_worker,
      started_at = ledger.now(), progress_current = 0, progress_total = 0
    from public.jobs j, public.pipeline_steps p
    where s.id = any(picked.runs) and s.status = 'queued' and s.queue_job_id = any(picked.ids)
      and j.id = any(array[s.job_id]) and p.graph = j.graph and p.name = s.step
    returning array_position(picked.ids, s.queue_job_id) as nr, s.queue_job_id as id, s.job_id, s.tenant_id, s.step, s.item,
              s.attempt, p.stage, j.stage as left_stage, j.last_seq, j.status = 'queued' as first, jsonb_build_object(
                'status', case j.status when 'queued' then 'running' else j.status end, 'percent', j.percent) as standing,
              jsonb_build_object(
                'step_run', s.id, 'attempt', s.attempt, 'failures', s.failures, 'previous_error', s.error_code,
                'age_s', extract(epoch from ledger.now() - s.created_at),
                'job', j.id, 'tenant', j.tenant_id, 'pipeline', j.pipeline, 'step', s.step, 'item', s.item,
                'item_value', s.item_value, 'params', j.params,
                'document', case when p.takes && '{document,source}' then (
                  select jsonb_build_object('title', d.title, 'filename', d.filename, 'kind', d.kind,
                                            'blob', jsonb_build_object('sha256', d.sha256, 'bytes', d.bytes))
                  from public.documents d where d.id = j.document_id) end,
                'inputs', case when p.inputs = '{}' then '{}' else (
                  select coalesce(jsonb_object_agg(t.step, coalesce((
                    select coalesce((select jsonb_build_object('value', r.value, 'blob', r.blob)
                                     from public.step_results r where r.id = u.result_id), '{"value": null, "blob": null}')
                    from public.job_steps u where u.job_id = t.job_id and u.step = t.step
                      and (not t.mapped or t.step = any(p.along) and u.item = s.item)), '{"gather": true}')), '{}')
                  from public.job_step_totals t where t.job_id = j.id and t.step = any(p.inputs)) end,
                'mapped', exists (select from public.pipeline_steps m where m.graph = j.graph and m.map = s.step),
                'version', p.version, 'deploy', (select g.deploy from public.pipeline_graphs g where g.digest = j.graph),
                'reuse', case when not j.fresh then (
                  select jsonb_build_object('result', r.id, 'digest', r.digest, 'value', r.value, 'blob', r.blob,
                                              'skipped', r.skipped, 'text', r.description -> 'text')
                  from public.step_results r where r.tenant_id = j.tenant_id and r.identity = s.identity
                  order by r.id desc limit 1) end) as work
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
  select array_agg(t.id), array_agg(t.work), array_agg(t.job_id || ' ' || t.seq) filter (where t.ends)
  into ids, works, tidings from told t;
  perform pg_notify('ledgerline_events', t) from unnest(tidings) t;
  return row(coalesce(ids, '{}'), coalesce(works, '{}'));
end $$;

-- Claim up to `most` queue jobs for a worker. For step runs, claiming is beginning: the attempt gets its number, the
-- job leaves `queued`, and both are seen at once. `work` holds what the attempt needs; null for chores.
create or replace function ledger.claim(of_queues text[], for_worker uuid, queue_worker bigint, most integer)
returns table (
  id bigint, status text, task_name text, queue_name text, priority integer, lock text, queueing_lock text, args jsonb,
  scheduled_at timestamptz, attempts integer, work jsonb
) language plpgsql set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan as $$
declare
  picked ledger.picked := ledger.pick(of_queues, most);
  begun ledger.begun;
begin
  if picked.ids = '{}' then
    return;
  end if;
  begun := ledger.begin(picked, for_worker);
  return query
    with gone as (
      delete from procrastinate.procrastinate_jobs q where q.id = any(picked.ids) and q.task_name = 'run_step'
      returning q.id, q.queue_name, q.task_name, q.priority, q.args
    )
    insert into procrastinate.procrastinate_jobs as q (id, queue_name, task_name, priority, args, status)
    select g.id, g.queue_name, g.task_name, g.priority, g.args, 'doing' from gone g where g.id = any(begun.ids)
    order by array_position(picked.ids, g.id)
    returning q.id, 'doing', q.task_name::text, q.queue_name::text, q.priority, q.lock, q.queueing_lock, q.args,
              q.scheduled_at, q.attempts, begun.works[array_position(begun.ids, q.id)];
  if array_position(picked.runs, null) is not null then
    return query
      update procrastinate.procrastinate_jobs q set status = 'doing', worker_id = queue_worker
      where q.id = any(picked.ids) and q.task_name <> 'run_step'
      returning q.id, 'doing', q.task_name::text, q.queue_name::text, q.priority, q.lock, q.queueing_lock, q.args,
                q.scheduled_at, q.attempts, null::jsonb;
  end if;
end $$;

-- Running on -------------------------------------------------------------------------------------------

-- A step run that is to be begun without having been queued. `nr`: of the outcome that it follows; `id`: its queue job.
create type ledger.follower as (nr integer, id bigint, run uuid);

-- Open the steps that follow these moves. Gives those that the worker wants to go on with: the only one that follows, of
-- an open queue that the outcome names in `run_on`. The others are queued.
drop function ledger.lead_on(ledger.move[]);
create function ledger.lead_on(moves ledger.move[], filed ledger.filed[], outcomes jsonb[]) returns ledger.follower[]
language plpgsql as $$
declare
  followers ledger.follower[];
  queues text[];
begin
  with ending as (
    select m.job_id, m.tenant_id, m.graph, m.step, max(f.nr)::integer as nr
    from unnest(moves) m join unnest(filed) f on (f.run).job_id = m.job_id
    where m.ends and not m.closes group by m.job_id, m.tenant_id, m.graph, m.step
  ), next as materialized (
    select e.job_id, e.tenant_id, e.nr, p.name, p.queue, p.position, ledger.uuid7() as id,
           count(*) over (partition by e.job_id) = 1 and coalesce(outcomes[e.nr] -> 'run_on' ? p.queue, false) as wanted
    from ending e join public.pipeline_steps p on p.graph = e.graph and e.step = any(p.after)
  ), places as materialized (
    select d.tenant_id, d.queue, ledger.tenant_paused(d.tenant_id) as paused,
           d.wanted and ledger.open_queues(array[d.queue]) <> '{}' as open, ledger.place(
             ledger.virtual_start(d.tenant_id, d.queue, false), ledger.virtual_cost(d.tenant_id, d.queue), 1) as priority
    from (select n.tenant_id, n.queue, bool_or(n.wanted) as wanted from next n group by n.tenant_id, n.queue) d
  ), laid as materialized (
    select n.*, p.priority, n.wanted and p.open and not p.paused as goes,
           case when not p.paused then nextval('procrastinate.procrastinate_jobs_id_seq') end as queue_job_id
    from next n join places p using (tenant_id, queue) order by n.job_id, n.position
  ), widths as (
    insert into public.job_step_totals (job_id, tenant_id, step, total, opened_at)
    select l.job_id, l.tenant_id, l.name, 1, ledger.now() from laid l
  ), runs as (
    insert into public.job_steps (id, job_id, tenant_id, step, status, queue, priority, queue_job_id, created_at, queued_at)
    select l.id, l.job_id, l.tenant_id, l.name, case when l.queue_job_id is null then 'held' else 'queued' end, l.queue,
           l.priority, l.queue_job_id, ledger.now(), ledger.now()
    from laid l
  ), waiting as (
    insert into procrastinate.procrastinate_jobs (id, queue_name, task_name, priority, args, status)
    select l.queue_job_id, l.queue, 'run_step', l.priority, ledger.queue_args(l.id, l.tenant_id),
           case when l.goes then 'doing' else 'todo' end::procrastinate.procrastinate_job_status
    from laid l where l.queue_job_id is not null
  )
  select array_agg(row(l.nr, l.queue_job_id, l.id)::ledger.follower) filter (where l.goes),
         array_agg(distinct l.queue) filter (where not l.goes)
  into followers, queues from laid l;
  perform ledger.wake(q) from unnest(queues) q;
  return coalesce(followers, '{}');
end $$;

-- Complete attempts; the caller holds their jobs' rows. Returns for each, in order, what `settle` returns.
drop function ledger.complete_all(jsonb[]);
create function ledger.complete_all(outcomes jsonb[], for_worker uuid) returns jsonb[] language plpgsql as $$
declare
  filed ledger.filed[] := ledger.file_results(outcomes);
  plain ledger.move[] := ledger.plain_moves(filed);
  followers ledger.follower[] := '{}';
  answers jsonb[];
  job public.jobs;
  done ledger.filed;
  begun ledger.begun;
  nr integer;
  place integer;
begin
  answers := array(select to_jsonb(n in (select f.nr from unnest(filed) f))
                   from generate_series(1, cardinality(outcomes)) n order by n);
  if plain <> '{}' then
    perform ledger.move_on(plain, filed);
    if exists (select from unnest(plain) m where m.ends and not m.closes) then
      followers := ledger.lead_on(plain, filed, outcomes);
    end if;
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
  if followers <> '{}' then
    begun := ledger.begin(row(array(select f.id from unnest(followers) f), array(select f.run from unnest(followers) f)),
                          for_worker);
    for nr, place in select f.nr, array_position(begun.ids, f.id) from unnest(followers) f loop
      answers[nr] := begun.works[place];
    end loop;
  end if;
  return answers;
end $$;

-- End attempts, in the given order: {"verb": "complete" | "fail" | "release" | "redo", "step_run", "attempt", ...}, where
-- "complete" may say "run_on": in which queues the worker has room for a step that follows. Returns what became of each:
-- false when it was stale and nothing of it was kept, true when it was kept; or the work that the worker goes on with, as
-- a claim gives it.
drop function ledger.settle(jsonb[]);
create function ledger.settle(outcomes jsonb[], for_worker uuid default null) returns jsonb[]
language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan as $$
declare
  answers jsonb[] := '{}';
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
    answers := answers || ledger.complete_all(completed, for_worker);
    completed := '{}';
    answers := answers || to_jsonb(case o ->> 'verb'
      when 'fail' then ledger.fail((o ->> 'step_run')::uuid, (o ->> 'attempt')::integer, o ->> 'code', o ->> 'message',
                                   o ->> 'detail', (o ->> 'retry_in')::double precision,
                                   (o ->> 'slow_s')::double precision)
      when 'release' then ledger.release((o ->> 'step_run')::uuid, (o ->> 'attempt')::integer)
      when 'redo' then ledger.redo((o ->> 'step_run')::uuid, (o ->> 'attempt')::integer)
    end);
  end loop;
  return answers || ledger.complete_all(completed, for_worker);
end $$;

create or replace function ledger.complete(run_id uuid, of_attempt integer, result jsonb, items jsonb default null)
returns boolean language plpgsql as $$
begin
  return (ledger.settle(array[jsonb_build_object(
    'verb', 'complete', 'step_run', run_id, 'attempt', of_attempt, 'result', result, 'items', items)]))[1] = 'true';
end $$;

revoke all on all functions in schema ledger from anon, authenticated, public;
