-- Submitting, for as many as ask at the same moment.
--
-- What a submission costs is the number of statements, far more than the number of rows; so those that come together share
-- theirs. One by itself goes the same way, as a group of one.

-- A request for a job. `nr`: which one of several; `graph`: what its parameters were checked against, null for what is
-- current; `trace`: what the job's traces belong to.
create type ledger.submission as (
  nr integer, job_id uuid, tenant_id uuid, user_id uuid, pipeline text, graph text, document_id uuid, params jsonb,
  idempotency_key text, fresh boolean, deadline_s double precision, trace text
);

-- What equal requests have in common.
create function ledger.payload_digest(wanted ledger.submission) returns text language sql stable as $$
  select encode(sha256(convert_to(concat_ws(chr(31), wanted.pipeline, coalesce(wanted.document_id::text, ''),
                       wanted.params::text, wanted.fresh), 'UTF8')), 'hex')
$$;

-- What finds the job of an equal request when there is no key. A fresh run answers for its like only while it lasts.
create function ledger.natural_key(payload text, fresh boolean, version integer) returns text language sql immutable as $$
  select payload || ':' || case when fresh then 'fresh' else version::text end
$$;

-- The arguments of a queue job. Stable, as what it calls is: only so is it put into the statements that use it, instead of
-- being planned anew in each.
create or replace function ledger.queue_args(run uuid, of_tenant uuid) returns jsonb language sql stable as $$
  select jsonb_build_object('step_run', run, 'tenant', of_tenant)
$$;

-- A new job.
create type ledger.birth as (job_id uuid, tenant_id uuid, user_id uuid, pipeline text, graph text, stage text);

-- A first step run of a new job, with its queue job unless its tenant is paused.
create type ledger.opening as (
  id uuid, job_id uuid, tenant_id uuid, step text, queue text, priority integer, queue_job_id bigint
);

-- Make jobs, their first step runs, their queue jobs and their first events; or find the job that an equal request made.
-- Refuses all, with a code, when one of them cannot be a job.
create function ledger.submit_all(wanted ledger.submission[])
returns table (nr integer, job_id uuid, created boolean) language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
  moment timestamptz := ledger.now();
  born ledger.birth[];
  openings ledger.opening[];
begin
  perform ledger.check_submissions(wanted);
  born := ledger.bear(wanted, moment);
  insert into public.job_events (job_id, seq, tenant_id, at, kind, stage, actor, message, data)
  select b.job_id, 1, b.tenant_id, moment, 'submitted', b.stage, b.user_id, 'Waiting for a worker.',
         jsonb_build_object('pipeline', b.pipeline, 'status', 'queued', 'percent', 0)
  from unnest(born) b;
  openings := ledger.lay_openings(born);
  insert into public.job_step_totals (job_id, tenant_id, step, total, opened_at)
  select o.job_id, o.tenant_id, o.step, 1, moment from unnest(openings) o;
  insert into public.job_steps (id, job_id, tenant_id, step, status, queue, priority, queue_job_id, created_at, queued_at)
  select o.id, o.job_id, o.tenant_id, o.step, case when o.queue_job_id is null then 'held' else 'queued' end, o.queue,
         o.priority, o.queue_job_id, moment, moment
  from unnest(openings) o;
  insert into procrastinate.procrastinate_jobs (id, queue_name, task_name, priority, args)
  select o.queue_job_id, o.queue, 'run_step', o.priority, ledger.queue_args(o.id, o.tenant_id)
  from unnest(openings) o where o.queue_job_id is not null;
  perform ledger.wake(q.queue) from (select distinct o.queue from unnest(openings) o) q;
  perform pg_notify('ledgerline_events', b.job_id || ' 1') from unnest(born) b;
  if cardinality(born) = cardinality(wanted) then
    return query select w.nr, w.job_id, true from unnest(wanted) w;
    return;
  end if;
  return query
    select w.nr, coalesce(b.job_id, ledger.find_submitted(w)), b.job_id is not null
    from unnest(wanted) w left join unnest(born) b on b.job_id = w.job_id;
end $$;

-- The jobs, those that no equal request has made before.
--
-- Everybody inserts in the order of what makes requests equal, so that no two who submit the same things wait for each other.
create function ledger.bear(wanted ledger.submission[], moment timestamptz) returns ledger.birth[] language plpgsql as $$
declare
  born ledger.birth[];
begin
  with orders as materialized (
    select w.*, ledger.payload_digest(w) as payload, g.digest, g.version, g.total_weight
    from unnest(wanted) w join public.pipelines p on p.name = w.pipeline and p.retired_at is null
    join public.pipeline_graphs g on g.digest = p.graph
    where g.digest = coalesce(w.graph, g.digest)
  ), born as (
    insert into public.jobs as j (
      id, tenant_id, created_by, pipeline, graph, document_id, params, fresh, total_weight, idempotency_key,
      natural_key, payload_digest, deadline_at, trace, last_seq, created_at, updated_at)
    select o.job_id, o.tenant_id, o.user_id, o.pipeline, o.digest, o.document_id, o.params, o.fresh, o.total_weight,
           o.idempotency_key, case when o.idempotency_key is null then ledger.natural_key(o.payload, o.fresh, o.version) end,
           o.payload, moment + make_interval(secs => o.deadline_s), o.trace, 1, moment, moment
    from orders o order by o.tenant_id, o.idempotency_key, o.payload, o.nr
    on conflict do nothing
    returning row(j.id, j.tenant_id, j.created_by, j.pipeline, j.graph, j.stage)::ledger.birth as birth, j.id
  )
  select coalesce(array_agg(b.birth order by b.id), '{}') into born from born b;
  return born;
end $$;

-- What a graph begins with: its first steps wait for nothing, so they are neither mapped nor gates. Each job stands behind
-- what those before it will take of their tenant's share of a queue.
create function ledger.lay_openings(born ledger.birth[]) returns ledger.opening[] language plpgsql as $$
declare
  openings ledger.opening[];
begin
  with first as materialized (
    select b.job_id, b.tenant_id, p.name, p.queue, p.position, b.ordinality as nr, z.runs,
           row_number() over (partition by b.tenant_id, p.queue, b.ordinality order by p.position) as own
    from unnest(born) with ordinality b
    join public.pipeline_steps p on p.graph = b.graph and p.after = '{}'
    join ops.job_sizes z on z.graph = p.graph and z.queue = p.queue
  ), lines as materialized (
    select d.tenant_id, d.queue, ledger.virtual_start(d.tenant_id, d.queue, true) as start,
           ledger.virtual_cost(d.tenant_id, d.queue) as cost, ledger.tenant_paused(d.tenant_id) as paused
    from (select distinct f.tenant_id, f.queue from first f) d
  )
  select array_agg(row(ledger.uuid7(), f.job_id, f.tenant_id, f.name, f.queue, ledger.place(l.start, l.cost, f.before::bigint + f.own),
    case when not l.paused then nextval('procrastinate.procrastinate_jobs_id_seq') end)::ledger.opening order by f.nr, f.position)
  into openings
  from (select f.*, sum(case f.own when 1 then f.runs else 0 end) over (partition by f.tenant_id, f.queue order by f.nr) - f.runs as before
        from first f) f join lines l on l.tenant_id = f.tenant_id and l.queue = f.queue;
  return openings;
end $$;

-- The same for one, by itself. Returns {"job": id, "created": bool}.
create or replace function ledger.submit(
  job_id uuid, for_tenant uuid, by_user uuid, of_pipeline text, of_graph text, for_document uuid, with_params jsonb,
  idempotency text default null, run_fresh boolean default false, deadline_s double precision default null
) returns jsonb language plpgsql as $$
declare
  wanted ledger.submission := row(1, submit.job_id, for_tenant, by_user, of_pipeline, of_graph, for_document, with_params,
                                  idempotency, run_fresh, submit.deadline_s, ledger.current_trace());
begin
  return (select jsonb_build_object('job', s.job_id, 'created', s.created) from ledger.submit_all(array[wanted]) s);
end $$;

-- The trace that whoever submits has said its transaction belongs to.
create function ledger.current_trace() returns text language sql stable as $$
  select nullif(current_setting('ledger.trace', true), '')
$$;

-- Refuse when one of these cannot be a job. What several have in common is looked at once. A limit refuses nobody whose
-- request has its job already.
create function ledger.check_submissions(wanted ledger.submission[]) returns void language plpgsql as $$
begin
  perform ledger.check_submission(d.tenant_id, d.pipeline, d.graph, d.document_id)
  from (select distinct w.tenant_id, w.pipeline, w.graph, w.document_id from unnest(wanted) w) d;
  begin
    perform ledger.check_limits(d.tenant_id, d.jobs)
    from (select w.tenant_id, count(*) as jobs from unnest(wanted) w group by w.tenant_id) d;
  exception when sqlstate 'LL429' then
    if exists (select from unnest(wanted) w where ledger.find_equal(w) is null) then
      raise;
    end if;
  end;
end $$;

-- Refuse what cannot be a job, whoever may have how many.
drop function ledger.check_submission(uuid, text, text, uuid);
create function ledger.check_submission(for_tenant uuid, of_pipeline text, of_graph text, for_document uuid) returns void
language plpgsql as $$
declare
  graph record;
  kind text;
begin
  select g.digest, g.accepts into graph from public.pipelines p join public.pipeline_graphs g on g.digest = p.graph
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
end $$;

-- Refuse so many more jobs of a tenant when it would have more than it may have, or when as much waits as may wait. What is
-- known and good is found in one look: this is asked for each group of jobs.
drop function ledger.check_limits(uuid);
create function ledger.check_limits(for_tenant uuid, more bigint default 1) returns void language plpgsql as $$
declare
  look record;
  as_of timestamptz := ledger.now();
begin
  select coalesce(own.active_jobs, every.active_jobs) as most_jobs, every.queue_depth as most_depth,
         case when known.good_until > as_of then known.amount end as jobs,
         (select case when min(c.good_until) > as_of then sum(c.amount) end from ops.counts c where c.kind = 'queue') as depth
  into look
  from ops.limits every
  left join public.tenant_limits own on own.tenant_id = for_tenant
  left join ops.tenant_loads known on known.tenant_id = for_tenant and known.kind = 'active_jobs';
  if not found then
    return;
  end if;
  if look.jobs is null or look.jobs >= look.most_jobs - 1000 then
    look.jobs := ledger.active_jobs(for_tenant, look.most_jobs);
  end if;
  if look.depth is null then
    look.depth := ledger.queue_depth();
  end if;
  if look.jobs + more > look.most_jobs then
    perform ledger.refuse_limit('active_jobs_limit_reached', format(
      'There are %s active jobs already, and %s is the limit. Please wait until some of them are over.',
      look.jobs, look.most_jobs), 'active_jobs', look.most_jobs, look.jobs, 10);
  elsif look.depth >= look.most_depth then
    perform ledger.refuse_limit('queue_depth_limit_reached',
      'Too much work is waiting at the moment. Please try again in a while.',
      'queue_depth', look.most_depth, look.depth, 30);
  end if;
end $$;

-- The job that an equal request made before, null when there is none; a refusal when the key was used for something else.
create function ledger.find_equal(wanted ledger.submission) returns uuid language plpgsql as $$
declare
  job public.jobs;
  payload text := ledger.payload_digest(wanted);
begin
  if wanted.idempotency_key is not null then
    select j.* into job from public.jobs j
    where j.tenant_id = wanted.tenant_id and j.idempotency_key = wanted.idempotency_key;
  else
    select j.* into job from public.pipelines p join public.pipeline_graphs g on g.digest = p.graph
    join public.jobs j on j.tenant_id = wanted.tenant_id and (j.ended is null or j.ended = 'completed')
      and j.natural_key = ledger.natural_key(payload, wanted.fresh, g.version)
    where p.name = wanted.pipeline;
  end if;
  if job.payload_digest <> payload then
    perform ledger.refuse(422, 'idempotency_key_reused',
      format('This Idempotency-Key was already used for another request, which made job %s.', job.id),
      jsonb_build_object('job_id', job.id));
  end if;
  return job.id;
end $$;

-- The same, where there was one a moment ago.
drop function ledger.find_submitted(uuid, text, text, text);
create function ledger.find_submitted(wanted ledger.submission) returns uuid language plpgsql as $$
declare
  found_job uuid := ledger.find_equal(wanted);
begin
  if found_job is null then
    perform ledger.refuse(409, 'try_again', 'An equal job ended at this very moment. Please send the request again.');
  end if;
  return found_job;
end $$;

-- Together -----------------------------------------------------------------------------------------------

-- Submit jobs for several at once, and let each look at its job as the user of its claims. `orders`: submissions, each
-- with `claims`, `most_ahead`, and the `role` that its user is to be proven to have, null when that is known. Each is answered with {"job", "created", "look"}, or {"refused": ...}: when one is refused,
-- each goes by itself, so that it is refused to that one alone.
drop function ledger.submit_together(jsonb);
create function ledger.submit_together(orders jsonb) returns table (nr integer, answer jsonb) language plpgsql as $$
#variable_conflict use_column
declare
  wanted ledger.submission[] := array(select o from jsonb_populate_recordset(null::ledger.submission, orders) o);
  one ledger.submission;
begin
  begin
    return query select g.nr, g.answer from ledger.grant_orders(orders, wanted) g;
    return;
  exception when others then
    if sqlstate not like 'LL%' then
      raise;
    end if;
  end;
  foreach one in array wanted loop
    nr := one.nr;
    answer := ledger.answer_order(orders, one);
    return next;
  end loop;
end $$;

-- Refuse when one of those who are to be proven is not what they were taken for.
create function ledger.prove_roles(orders jsonb, wanted ledger.submission[]) returns void language plpgsql as $$
begin
  if exists (
    select from (select distinct w.tenant_id, w.user_id, o.role
                 from unnest(wanted) w join jsonb_to_recordset(orders) o(nr integer, role text) on o.nr = w.nr
                 where o.role is not null) o
    left join public.members m on m.tenant_id = o.tenant_id and m.user_id = o.user_id and m.role = o.role
    where m.role is null)
  then
    perform ledger.refuse(409, 'member_changed', 'Your role here was changed a moment ago. Please send the request again.');
  end if;
end $$;

-- Submit them all, and look at each job as the one who asked. Refuses all when one is refused.
create function ledger.grant_orders(orders jsonb, wanted ledger.submission[]) returns table (nr integer, answer jsonb)
language plpgsql as $$
#variable_conflict use_column
declare
  one record;
begin
  perform ledger.prove_roles(orders, wanted);
  for one in
    select s.nr, s.job_id, s.created, o.tenant_id, o.claims, o.most_ahead
    from ledger.submit_all(wanted) s
    join jsonb_to_recordset(orders) o(nr integer, tenant_id uuid, claims text, most_ahead integer) using (nr)
  loop
    perform set_config('request.jwt.claims', one.claims, true);
    nr := one.nr;
    answer := jsonb_build_object('job', one.job_id, 'created', one.created, 'look', (
      select access.look_at_job(one.job_id, one.tenant_id, one.most_ahead)));
    return next;
  end loop;
end $$;

-- Submit one of them, by itself.
create function ledger.answer_order(orders jsonb, wanted ledger.submission) returns jsonb language plpgsql as $$
declare
  answer jsonb;
  sentence text;
  code text;
  told text;
begin
  select g.answer into answer from ledger.grant_orders(orders, array[wanted]) g;
  return answer;
exception when others then
  if sqlstate not like 'LL%' then
    raise;
  end if;
  get stacked diagnostics sentence = message_text, code = pg_exception_hint, told = pg_exception_detail;
  return jsonb_build_object('refused', jsonb_build_object(
    'state', sqlstate, 'message', sentence, 'code', code, 'details', coalesce(nullif(told, ''), '{}')::jsonb));
end $$;

revoke all on all functions in schema ledger from anon, authenticated, public;
