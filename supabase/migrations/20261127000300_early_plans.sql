-- Plans that are made while there is next to nothing in the tables, and used when there is much.
--
-- With one page in each table any way of reading costs the same, and a connection keeps what it chose then for as long as it
-- lives. So what is asked for each job is asked row by row, by keys that are known when the statement begins, or is left
-- nothing but the indexes.

-- Fairness: a queue job's priority is minus the virtual time at which its tenant's share of the queue reaches it. The
-- queue's virtual now is that of its head. A job's first steps line up behind what its tenant has queued already and what
-- that will take; the steps that follow line up right behind the head, so that what was begun is finished before more is.
create or replace function ledger.virtual_start(of_tenant uuid, of_queue text, behind_own boolean, for_job uuid default null)
returns integer language plpgsql stable
set enable_seqscan = off set enable_sort = off set enable_bitmapscan = off set jit = off as $$
declare
  head integer := (
    select -q.priority from procrastinate.procrastinate_jobs q where q.status = 'todo' and q.queue_name = of_queue
    order by q.priority desc, q.id limit 1);
  tail record;
begin
  if behind_own then
    select -q.priority as place, (q.args ->> 'step_run')::uuid as run into tail from procrastinate.procrastinate_jobs q
    where q.status = 'todo' and q.args ->> 'tenant' = of_tenant::text and q.queue_name = of_queue
    order by -q.priority desc limit 1;
    if found then
      return greatest(head, 0, least(tail.place + ledger.still_to_come(tail.run, of_queue, for_job)
                                                * ledger.virtual_cost(of_tenant, of_queue), 2147483647))::integer;
    end if;
  end if;
  return greatest(head, 0);
end $$;

-- How many step runs the job of one will still have in a queue, beside that one; none when the job is begun, or is `for_job`.
create function ledger.still_to_come(run_id uuid, of_queue text, for_job uuid) returns double precision
language plpgsql stable set enable_seqscan = off as $$
declare
  job record;
begin
  select j.id, j.graph, j.status into job from public.jobs j
  where j.id = (select s.job_id from public.job_steps s where s.id = run_id);
  if job.status <> 'queued' or job.id = for_job then
    return 0;
  end if;
  return (select z.runs - 1 from ops.job_sizes z where z.graph = job.graph and z.queue = of_queue);
end $$;

-- How many queue jobs of a queue come before one, counted up to `most`.
create or replace function ledger.queue_ahead(of_queue text, queue_job bigint, most integer) returns integer
language plpgsql stable set enable_seqscan = off set enable_bitmapscan = off as $$
declare
  mine integer := (select q.priority from procrastinate.procrastinate_jobs q where q.id = queue_job);
begin
  return (
    select count(*) from (
      select from procrastinate.procrastinate_jobs q
      where q.status = 'todo' and q.queue_name = of_queue and q.priority >= mine
        and (q.priority > mine or q.id < queue_job) limit most) ahead);
end $$;

-- What a job waits for, for people: null when it is over or being worked on. Callable by users for their own jobs.
-- `most_ahead`: how far the queue before it is counted.
create or replace function access.waiting_for(of_job uuid, most_ahead integer default 1000) returns jsonb
language plpgsql stable security definer set search_path = '' set enable_seqscan = off as $$
declare
  run record;
begin
  select s.status, s.tenant_id, s.step, s.queue, s.queue_job_id, s.due_at, s.error_code, s.error_message into run
  from public.job_steps s
  where s.job_id = of_job and s.finished_at is null and s.status <> 'pending'
  order by array_position('{running,queued,retrying,gated,held}', s.status), coalesce(s.due_at, s.queued_at) limit 1;
  if not exists (select from public.members m where m.tenant_id = run.tenant_id and m.user_id = auth.uid()) then
    return null;
  end if;
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
      return coalesce(ledger.obstacle(run.queue), ledger.standing_in(run.queue, run.queue_job_id, most_ahead));
    else
      return null;
  end case;
end $$;

-- Why nothing of a queue is begun at the moment, for people; null when there is nothing in the way.
create function ledger.obstacle(of_queue text) returns jsonb language plpgsql stable as $$
begin
  if exists (select from ops.pauses p where p.scope = 'queue' and p.name = of_queue)
     or exists (select from ops.slowdowns d where d.queue = of_queue and d.until > ledger.now()) then
    return ledger.closed_queue(of_queue);
  elsif not ledger.served(of_queue) then
    return jsonb_build_object('reason', 'no_worker', 'queue', of_queue,
      'message', format('No worker is running for the queue "%s".', of_queue));
  end if;
  return null;
end $$;

-- These two were functions in SQL, which are planned anew in each statement that they cannot be put into.

-- Whether a worker that is alive (by a generous measure) serves a queue.
create or replace function ledger.served(of_queue text) returns boolean language plpgsql stable as $$
begin
  return exists (select from ops.workers w where of_queue = any(w.queues) and not w.stopping
                 and w.heartbeat_at > ledger.now() - interval '60 seconds');
end $$;

-- Seconds until as many step runs of a queue have been begun, at the rate of the last minutes; null: not known.
create or replace function ledger.estimate_s(of_queue text, ahead integer) returns integer language plpgsql stable as $$
begin
  return (
    select ceil((ahead + 1) / u.per_s)::integer from ops.pickups u
    where u.queue = of_queue and u.per_s > 0 and u.at > ledger.now() - interval '5 minutes');
end $$;

alter function access.look_at_job(uuid, uuid, integer) set enable_seqscan = off;
alter function access.look_at_job(uuid, uuid, integer) set enable_hashjoin = off;
alter function access.look_at_job(uuid, uuid, integer) set enable_mergejoin = off;

revoke all on all functions in schema ledger from anon, authenticated, public;
