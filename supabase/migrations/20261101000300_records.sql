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
language plpgsql as $$
declare
  job public.jobs;
begin
  select * into job from public.jobs j where j.id = job_id for no key update;
  return job;
end $$;

-- The same, but null when somebody else is moving the job right now. For repairs, which must never wait for a lock.
create function ledger.try_lock_job(job_id uuid) returns public.jobs
language plpgsql as $$
declare
  job public.jobs;
begin
  select * into job from public.jobs j where j.id = job_id for no key update skip locked;
  return job;
end $$;

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
  perform ledger.tell(job);
end $$;

-- Wake those who follow the job.
create function ledger.tell(job public.jobs) returns void language plpgsql as $$
begin
  perform pg_notify('ledgerline_events', job.id || ' ' || job.last_seq);
end $$;

-- Wake the workers that serve a queue: Procrastinate's own signal, once per queue and transaction.
create function ledger.wake(queue text) returns void language plpgsql volatile as $$
begin
  perform pg_notify('procrastinate_queue_v1#' || queue, '{"type": "job_inserted", "job_id": 0}');
end $$;

-- Fairness: a queue job's priority is minus the virtual time at which its tenant's share of the queue reaches it. The
-- queue's virtual now is that of its head. A job's first steps line up behind what its tenant has queued already and what
-- that will take; the steps that follow line up right behind the head, so that what was begun is finished before more is.
--
-- A plan made while the queue is empty is used when it is deep: it is left nothing but the indexes in their order.
create function ledger.virtual_start(of_tenant uuid, of_queue text, behind_own boolean, for_job uuid default null)
returns integer language plpgsql stable
set enable_seqscan = off set enable_sort = off set enable_hashjoin = off set enable_mergejoin = off as $$
begin
  return greatest(
    (select -s.priority from public.job_steps s where s.status = 'queued' and s.queue = of_queue
     order by -s.priority limit 1),
    case when behind_own then (
      select least(-s.priority + case when j.status = 'queued' and j.id is distinct from for_job
                                 then (z.runs - 1) * ledger.virtual_cost(of_tenant, of_queue) else 0 end, 2147483647)
      from public.job_steps s join public.jobs j on j.id = s.job_id
      join ops.job_sizes z on z.graph = j.graph and z.queue = s.queue
      where s.status = 'queued' and s.tenant_id = of_tenant and s.queue = of_queue order by s.priority limit 1) end,
    0)::integer;
end $$;

-- What one step run costs its tenant in virtual time: less with more weight.
create function ledger.virtual_cost(of_tenant uuid, of_queue text) returns integer language plpgsql stable as $$
begin
  return greatest(1, round(10 / coalesce(
    (select h.weight from ops.shares h where h.tenant_id = of_tenant and h.queue = of_queue), 1)))::integer;
end $$;

-- The priority of the nr-th step run after a virtual start. Virtual time is zero again whenever its queue is empty. In a
-- queue that never is, it ends after two hundred million step runs of one tenant: from there on, first come, first served.
create function ledger.place(start integer, cost integer, nr bigint) returns integer language plpgsql immutable as $$
begin
  return -least(start + cost * nr, 2147483647)::integer;
end $$;

-- Whoever holds step runs back because of a pause keeps the pause from ending until that is committed: ending it must
-- find them.
create function ledger.tenant_paused(of_tenant uuid) returns boolean language plpgsql volatile as $$
begin
  perform from ops.pauses p where p.scope = 'tenant' and p.name = of_tenant::text for key share;
  return found;
end $$;

-- Give step runs that are not moving a queue job each, in the order given, or hold them while their tenant is paused.
-- The caller holds the job's row, or the step runs' rows.
create function ledger.enqueue(runs uuid[], behind_own boolean default false) returns void
language plpgsql as $$
begin
  perform ledger.wake(w.queue) from (select distinct s.queue from public.job_steps s where s.id = any(runs)) w;
  with runs as materialized (
    select s.id, s.tenant_id, s.queue,
           (sum(coalesce(z.runs, 1)) over (partition by s.tenant_id, s.queue order by r.nr)
            - coalesce(z.runs, 1))::bigint + 1 as nr
    from unnest(enqueue.runs) with ordinality r(id, nr) join public.job_steps s on s.id = r.id
    left join public.jobs j on behind_own and j.id = s.job_id and j.status = 'queued'
    left join ops.job_sizes z on z.graph = j.graph and z.queue = s.queue
  ), shares as materialized (
    select d.tenant_id, d.queue, ledger.virtual_start(d.tenant_id, d.queue, behind_own) as start,
           ledger.virtual_cost(d.tenant_id, d.queue) as cost, ledger.tenant_paused(d.tenant_id) as paused
    from (select distinct r.tenant_id, r.queue from runs r) d
  ), moved as (
    update public.job_steps s set
      status = case when h.paused then 'held' else 'queued' end,
      queue_job_id = case when not h.paused then nextval('procrastinate.procrastinate_jobs_id_seq') end,
      priority = ledger.place(h.start, h.cost, r.nr), queued_at = ledger.now(), worker_id = null, due_at = null, finished_at = null
    from runs r join shares h using (tenant_id, queue)
    where s.id = r.id
    returning s.id, s.queue, s.queue_job_id, s.priority
  )
  insert into procrastinate.procrastinate_jobs (id, queue_name, task_name, priority, args)
  select m.queue_job_id, m.queue, 'run_step', m.priority, jsonb_build_object('step_run', m.id)
  from moved m where m.queue_job_id is not null;
end $$;

-- Take queue jobs away. Rows that are being claimed right now are skipped: their claim withdraws them.
create function ledger.withdraw(queue_jobs bigint[]) returns void
language plpgsql as $$
begin
  delete from procrastinate.procrastinate_jobs q where q.id in (
    select w.id from procrastinate.procrastinate_jobs w where w.id = any(queue_jobs) for update skip locked
  );
end $$;

-- Stop every step run of a job that could still move; or of some of its steps only.
create function ledger.stop_step_runs(of_job uuid, of_steps text[] default null) returns integer
language plpgsql as $$
declare
  runs uuid[];
  queue_jobs bigint[];
begin
  select array_agg(l.id), array_agg(l.queue_job_id) filter (where l.queue_job_id is not null) into runs, queue_jobs
  from (select s.id, s.queue_job_id from public.job_steps s
        where s.job_id = of_job and s.status in ('pending', 'queued', 'held', 'running', 'retrying', 'gated')
          and (of_steps is null or s.step = any(of_steps))
        for update) l;
  perform ledger.withdraw(queue_jobs);
  update public.job_steps s set
    status = 'cancelled', queue_job_id = null, worker_id = null, due_at = null, finished_at = ledger.now()
  where s.id = any(runs);
  update public.reviews r set status = 'withdrawn', decided_at = ledger.now()
  where r.job_id = of_job and r.status = 'open' and (of_steps is null or r.step = any(of_steps));
  return coalesce(cardinality(runs), 0);
end $$;
