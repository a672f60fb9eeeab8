-- Submitting in fewer statements: see claiming, which was made so before. What is to be known of those who submit is read
-- by one, and what is new is written by one.

-- `role`: what the user is to be proven to be, null when nobody asks.
alter type ledger.submission add attribute role text;

create or replace function ledger.submit(
  job_id uuid, for_tenant uuid, by_user uuid, of_pipeline text, of_graph text, for_document uuid, with_params jsonb,
  idempotency text default null, run_fresh boolean default false, deadline_s double precision default null
) returns jsonb language plpgsql as $$
declare
  wanted ledger.submission := row(1, submit.job_id, for_tenant, by_user, of_pipeline, of_graph, for_document, with_params,
                                  idempotency, run_fresh, submit.deadline_s, ledger.current_trace(), null);
begin
  return (select jsonb_build_object('job', s.job_id, 'created', s.created) from ledger.submit_all(array[wanted]) s);
end $$;

-- The job that an equal request made before, null when there is none; a refusal when the key was used for something else.
-- Made anew, with the next: where they were made by an earlier release, both give a JSON object.
drop function ledger.find_submitted(ledger.submission);
drop function ledger.find_equal(ledger.submission);
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
create function ledger.find_submitted(wanted ledger.submission) returns uuid language plpgsql as $$
declare
  found_job uuid := ledger.find_equal(wanted);
begin
  if found_job is null then
    perform ledger.refuse(409, 'try_again', 'An equal job ended at this very moment. Please send the request again.');
  end if;
  return found_job;
end $$;

-- Make jobs, their first step runs, their queue jobs and their first events; or find the job that an equal request made.
-- Refuses all, with a code, when one of them cannot be a job.
create or replace function ledger.submit_all(wanted ledger.submission[])
returns table (nr integer, job_id uuid, created boolean) language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
  moment timestamptz := ledger.now();
  ids uuid[];
  queues text[];
begin
  perform ledger.check_submissions(wanted);
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
    returning j.id as job_id, j.tenant_id, j.created_by, j.pipeline, j.graph, j.stage
  ), history as (
    insert into public.job_events (job_id, seq, tenant_id, at, kind, stage, actor, message, data)
    select b.job_id, 1, b.tenant_id, moment, 'submitted', b.stage, b.created_by, 'Waiting for a worker.',
           jsonb_build_object('pipeline', b.pipeline, 'status', 'queued', 'percent', 0)
    from born b
  ), first as materialized (
    select b.job_id, b.tenant_id, p.name, p.queue, p.position, z.runs,
           row_number() over (partition by b.tenant_id, p.queue, b.job_id order by p.position) as own
    from born b join public.pipeline_steps p on p.graph = b.graph and p.after = '{}'
    join ops.job_sizes z on z.graph = p.graph and z.queue = p.queue
  ), lines as materialized (
    select d.tenant_id, d.queue, ledger.virtual_start(d.tenant_id, d.queue, true) as start,
           ledger.virtual_cost(d.tenant_id, d.queue) as cost, ledger.tenant_paused(d.tenant_id) as paused
    from (select distinct f.tenant_id, f.queue from first f) d
  ), openings as materialized (
    select ledger.uuid7() as id, f.job_id, f.tenant_id, f.name, f.queue,
           ledger.place(l.start, l.cost, f.before::bigint + f.own) as priority,
           case when not l.paused then nextval('procrastinate.procrastinate_jobs_id_seq') end as queue_job_id
    from (select f.*, sum(case f.own when 1 then f.runs else 0 end)
                      over (partition by f.tenant_id, f.queue order by f.job_id) - f.runs as before from first f) f
    join lines l on l.tenant_id = f.tenant_id and l.queue = f.queue
  ), widths as (
    insert into public.job_step_totals (job_id, tenant_id, step, total, opened_at)
    select o.job_id, o.tenant_id, o.name, 1, moment from openings o
  ), runs as (
    insert into public.job_steps (id, job_id, tenant_id, step, status, queue, priority, queue_job_id, created_at, queued_at)
    select o.id, o.job_id, o.tenant_id, o.name, case when o.queue_job_id is null then 'held' else 'queued' end, o.queue,
           o.priority, o.queue_job_id, moment, moment
    from openings o
  ), waiting as (
    insert into procrastinate.procrastinate_jobs (id, queue_name, task_name, priority, args)
    select o.queue_job_id, o.queue, 'run_step', o.priority, ledger.queue_args(o.id, o.tenant_id)
    from openings o where o.queue_job_id is not null
  )
  select array(select b.job_id from born b), array(select l.queue from lines l) into ids, queues;
  perform ledger.wake(q) from unnest(queues) q;
  perform pg_notify('ledgerline_events', i || ' 1') from unnest(ids) i;
  if cardinality(ids) = cardinality(wanted) then
    return query select w.nr, w.job_id, true from unnest(wanted) w;
    return;
  end if;
  return query
    select w.nr, case when w.job_id = any(ids) then w.job_id else ledger.find_submitted(w) end, w.job_id = any(ids)
    from unnest(wanted) w;
end $$;
drop function ledger.bear(ledger.submission[], timestamptz);
drop function ledger.lay_openings(ledger.birth[]);
drop type ledger.birth;
drop type ledger.opening;

-- Refuse what cannot be a job, and who may not submit it.
create or replace function ledger.check_submissions(wanted ledger.submission[]) returns void language plpgsql as $$
declare
  asked record;
begin
  for asked in
    select d.*, g.digest, g.accepts, o.kind, m.role as held, d.document_id is null and exists (
             select from public.pipeline_steps s where s.graph = g.digest and s.takes && '{document,source}') as incomplete
    from (select distinct w.tenant_id, w.user_id, w.role, w.pipeline, w.graph, w.document_id from unnest(wanted) w) d
    left join public.pipelines p on p.name = d.pipeline and p.retired_at is null
    left join public.pipeline_graphs g on g.digest = p.graph
    left join public.documents o on o.id = d.document_id and o.tenant_id = d.tenant_id
    left join public.members m on m.tenant_id = d.tenant_id and m.user_id = d.user_id and d.role is not null
  loop
    if asked.held is distinct from asked.role then
      perform ledger.refuse(409, 'member_changed', 'Your role here was changed a moment ago. Please send the request again.');
    elsif asked.digest is null then
      perform ledger.refuse(422, 'unknown_pipeline', 'There is no pipeline of that name.',
                            jsonb_build_object('pipeline', asked.pipeline));
    elsif asked.digest <> asked.graph then
      perform ledger.refuse(409, 'pipeline_changed', 'The pipeline was changed a moment ago. Please send the request again.');
    elsif asked.incomplete then
      perform ledger.refuse(422, 'document_required', format('The pipeline %s needs a document.', asked.pipeline));
    elsif asked.document_id is not null and asked.kind is null then
      perform ledger.refuse(404, 'document_not_found', 'There is no such document.');
    elsif asked.document_id is not null and asked.kind <> all(asked.accepts) then
      perform ledger.refuse(422, 'document_not_accepted',
        format('The pipeline %s does not take %s files.', asked.pipeline, upper(asked.kind)),
        jsonb_build_object('kind', asked.kind, 'accepts', asked.accepts));
    elsif asked.document_id is not null then
      perform ledger.refuse_quarantined(asked.document_id, asked.pipeline);
    end if;
  end loop;
  begin
    perform ledger.check_limits(d.tenant_id, d.jobs)
    from (select w.tenant_id, count(*) as jobs from unnest(wanted) w group by w.tenant_id) d;
  exception when sqlstate 'LL429' then
    if exists (select from unnest(wanted) w where ledger.find_equal(w) is null) then
      raise;
    end if;
  end;
end $$;
drop function ledger.check_submission(uuid, text, text, uuid);

-- Submit jobs, and let each look at its job as the user of its claims.
create or replace function ledger.grant_orders(orders jsonb, wanted ledger.submission[])
returns table (nr integer, answer jsonb) language plpgsql as $$
#variable_conflict use_column
declare
  asked jsonb;
  one record;
begin
  for one in select s.nr, s.job_id, s.created from ledger.submit_all(wanted) s loop
    asked := orders -> one.nr;
    perform set_config('request.jwt.claims', asked ->> 'claims', true);
    nr := one.nr;
    answer := jsonb_build_object('job', one.job_id, 'created', one.created, 'look', (
      select access.look_at_job(one.job_id, (asked ->> 'tenant_id')::uuid, (asked ->> 'most_ahead')::integer)));
    return next;
  end loop;
end $$;
drop function ledger.prove_roles(jsonb, ledger.submission[]);

revoke all on all functions in schema ledger from anon, authenticated, public;
