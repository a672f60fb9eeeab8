-- What the front door shows of one job, as functions: a function's plan is kept by the connection, also behind a transaction
-- pool, where a statement would be planned anew each time. Planning it took longer than all else that a look at a job does.

-- What a job waits for, for people: null when it is over or being worked on. Callable by users for their own jobs.
-- `most_ahead`: how far the queue before it is counted.
drop function access.waiting_for(uuid);
drop function ledger.queue_ahead(text, bigint);

create function access.waiting_for(of_job uuid, most_ahead integer default 1000) returns jsonb
language plpgsql stable security definer set search_path = '' as $$
declare
  run record;
begin
  select s.status, s.tenant_id, s.step, s.queue, s.queue_job_id, s.due_at, s.error_code, s.error_message,
         exists (select from ops.pauses p where p.scope = 'queue' and p.name = s.queue)
         or exists (select from ops.slowdowns d where d.queue = s.queue and d.until > ledger.now()) as closed
  into run
  from public.jobs j join public.job_steps s on s.job_id = j.id
  join public.members m on m.tenant_id = j.tenant_id and m.user_id = auth.uid()
  where j.id = of_job and j.finished_at is null
    and s.status in ('running', 'queued', 'retrying', 'gated', 'held')
  order by array_position('{running,queued,retrying,gated,held}', s.status), coalesce(s.due_at, s.queued_at) limit 1;
  case run.status
    when 'retrying' then
      return jsonb_build_object('reason', 'retry', 'until', run.due_at, 'code', run.error_code,
        'message', format('It tries again at %s. %s', to_char(run.due_at at time zone 'UTC', 'HH24:MI:SS "UTC"'),
                          run.error_message));
    when 'gated' then
      return jsonb_build_object('reason', 'review', 'step', run.step, 'message', 'A reviewer has to decide.');
    when 'held' then
      return jsonb_build_object('reason', 'tenant_paused', 'message', concat_ws(
        ' ', 'All work of this tenant is paused.', ledger.pause_reason('tenant', run.tenant_id::text)));
    when 'queued' then
      if run.closed then
        return ledger.closed_queue(run.queue);
      elsif not ledger.served(run.queue) then
        return jsonb_build_object('reason', 'no_worker', 'queue', run.queue,
          'message', format('No worker is running for the queue "%s".', run.queue));
      end if;
      return ledger.standing_in(run.queue, run.queue_job_id, most_ahead);
    else
      return null;
  end case;
end $$;
revoke all on function access.waiting_for(uuid, integer) from public, anon;
grant execute on function access.waiting_for(uuid, integer) to authenticated;

-- Where a queue job stands in its queue, for people.
create function ledger.standing_in(of_queue text, queue_job bigint, most_ahead integer) returns jsonb
language plpgsql stable as $$
declare
  ahead integer := ledger.queue_ahead(of_queue, queue_job, most_ahead);
begin
  return jsonb_build_object('reason', 'queue', 'queue', of_queue, 'ahead', ahead,
    'estimate_s', ledger.estimate_s(of_queue, ahead), 'message',
    case when ahead = 0 then 'It is next in line.'
         when ahead >= most_ahead then format('More than %s steps are ahead of it.', most_ahead)
         else format('%s %s ahead of it.', ahead, case ahead when 1 then 'step is' else 'steps are' end) end);
end $$;

-- How many queue jobs of a queue come before one, counted up to `most`.
create function ledger.queue_ahead(of_queue text, queue_job bigint, most integer) returns integer
language plpgsql stable as $$
begin
  return (
    select count(*) from (
      select from procrastinate.procrastinate_jobs q, procrastinate.procrastinate_jobs mine
      where mine.id = queue_job and q.status = 'todo' and q.queue_name = of_queue
        and (q.priority > mine.priority or (q.priority = mine.priority and q.id < mine.id)) limit most) ahead);
end $$;
revoke all on function ledger.standing_in(text, bigint, integer), ledger.queue_ahead(text, bigint, integer)
from public, anon, authenticated;

-- One job with its steps counted and what it waits for, as JSON; no row when the caller may not see it. `silent_s`: how long
-- nothing was written about it. It asks once whether the caller is a member, as the policies of four tables would each.
create function access.look_at_job(of_job uuid, of_tenant uuid, most_ahead integer) returns setof jsonb
language plpgsql stable security definer set search_path = '' as $$
begin
  if not exists (select from public.members m where m.tenant_id = of_tenant and m.user_id = auth.uid()) then
    return;
  end if;
  return query
  select jsonb_build_object(
    'id', j.id, 'pipeline', j.pipeline, 'document_id', j.document_id, 'batch_id', j.batch_id, 'created_by', j.created_by, 'status', j.status,
    'stage', j.stage, 'percent', j.percent, 'progress_current', j.progress_current, 'progress_total', j.progress_total,
    'progress_message', j.progress_message, 'error_code', j.error_code, 'error_message', j.error_message,
    'created_at', j.created_at, 'started_at', j.started_at, 'finished_at', j.finished_at, 'params', j.params,
    'fresh', j.fresh, 'deadline_at', j.deadline_at, 'last_seq', j.last_seq,
    'silent_s', extract(epoch from clock_timestamp() - j.updated_at),
    'review_id', case when j.status in ('running', 'awaiting_review') then (
      select r.id from public.reviews r where r.job_id = j.id and r.status = 'open' order by r.id limit 1) end,
    'waiting_for', case when j.finished_at is null then access.waiting_for(j.id, most_ahead) end,
    'steps', (
      select jsonb_agg(jsonb_build_object(
        'name', p.name, 'stage', p.stage, 'mapped', p.map is not null, 'gate', p.gate, 'total', t.total,
        'finished', t.finished_at is not null, 'queued', 0, 'held', 0, 'running', 0, 'retrying', 0, 'gated', 0,
        'completed', 0, 'skipped', 0, 'failed', 0, 'cancelled', 0) || coalesce(c.counted, '{}') order by p.position)
      from public.pipeline_steps p
      left join public.job_step_totals t on t.job_id = j.id and t.step = p.name
      left join (
        select s.step, jsonb_object_agg(s.status, s.runs) as counted
        from (select r.step, r.status, count(*) as runs from public.job_steps r
              where r.job_id = j.id group by r.step, r.status) s
        group by s.step) c on c.step = p.name
      where p.graph = j.graph))
  from public.jobs j where j.id = of_job and j.tenant_id = of_tenant;
end $$;
revoke all on function access.look_at_job(uuid, uuid, integer) from public, anon;
grant execute on function access.look_at_job(uuid, uuid, integer) to authenticated;

-- Submit jobs for several at once, and let each look at its job as the user of its claims. What one is refused is refused to
-- that one alone.
--
-- Everybody goes through their orders in the same order, so that no two who submit the same things wait for each other.
create function ledger.submit_together(orders jsonb) returns table (nr integer, answer jsonb) language plpgsql as $$
declare
  wanted record;
  sentence text;
  code text;
  told text;
begin
  for wanted in
    select o.* from jsonb_to_recordset(orders) o(
      nr integer, job_id uuid, tenant_id uuid, user_id uuid, pipeline text, graph text, document_id uuid, params jsonb,
      idempotency_key text, fresh boolean, deadline_s double precision, claims text, most_ahead integer, trace text)
    order by o.tenant_id, o.idempotency_key, o.pipeline, o.document_id, o.params, o.fresh
  loop
    nr := wanted.nr;
    begin
      perform set_config('ledger.trace', coalesce(wanted.trace, ''), true),
              set_config('request.jwt.claims', wanted.claims, true);
      answer := ledger.submit(wanted.job_id, wanted.tenant_id, wanted.user_id, wanted.pipeline, wanted.graph,
                              wanted.document_id, wanted.params, wanted.idempotency_key, wanted.fresh, wanted.deadline_s);
      answer := answer || jsonb_build_object('look', (
        select access.look_at_job((answer ->> 'job')::uuid, wanted.tenant_id, wanted.most_ahead)));
    exception when others then
      if sqlstate not like 'LL%' then
        raise;
      end if;
      get stacked diagnostics sentence = message_text, code = pg_exception_hint, told = pg_exception_detail;
      answer := jsonb_build_object('refused', jsonb_build_object(
        'state', sqlstate, 'message', sentence, 'code', code, 'details', coalesce(nullif(told, ''), '{}')::jsonb));
    end;
    return next;
  end loop;
end $$;
revoke all on function ledger.submit_together(jsonb) from public, anon, authenticated;

-- Who somebody is here: their tenants, roles and limits; beside each the pipeline asked for, with its schema unless the
-- caller of this knows it by its digest. The first thing every call asks.
create function ledger.enter(of_user uuid, wanted text, known text)
returns table (
  tenant_id uuid, name text, role text, upload_bytes bigint, requests_per_minute integer, graph text, params_schema jsonb
) language plpgsql stable as $$
begin
  return query
  select m.tenant_id, t.name, m.role, l.upload_bytes, l.requests_per_minute, g.digest,
         case when g.digest is distinct from known then g.params_schema end
  from public.members m
  join public.tenants t on t.id = m.tenant_id
  left join public.tenant_limits l on l.tenant_id = m.tenant_id
  left join public.pipelines p on p.name = wanted and p.retired_at is null
  left join public.pipeline_graphs g on g.digest = p.graph
  where m.user_id = of_user
  order by t.name, m.tenant_id limit 500;
end $$;
revoke all on function ledger.enter(uuid, text, text) from public, anon, authenticated;
