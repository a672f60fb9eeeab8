-- Limits, and what is counted for them and for those who watch.
--
-- Nothing is added to a row for each job: rows are counted when somebody asks. Up to a thousand are counted each time, when the
-- limit is near; any other count is kept, and taken again by one of those who ask, once it is a second old and one more for
-- every 50,000 rows. So counting takes about a hundredth of the time, and what is kept is wrong by what happened meanwhile.

-- What differs for one tenant; null: as for everybody.
create table public.tenant_limits (
  tenant_id uuid primary key references public.tenants on delete cascade,
  active_jobs bigint check (active_jobs >= 0),
  stored_bytes bigint check (stored_bytes >= 0),
  upload_bytes bigint check (upload_bytes > 0),
  requests_per_minute integer check (requests_per_minute > 0)
);
alter table public.tenant_limits enable row level security;
create policy "members see their tenant's limits" on public.tenant_limits
  for select to authenticated using (tenant_id in (select access.tenants()));
revoke all on public.tenant_limits from anon, authenticated, public;
grant select on public.tenant_limits to authenticated;

-- What holds for everybody. Written by each release; nothing is limited before the first one.
create table ops.limits (
  singleton boolean primary key default true check (singleton),
  active_jobs bigint not null,
  stored_bytes bigint not null,
  queue_depth bigint not null
);

-- Counts of tenants that have more than is counted each time.
create table ops.tenant_loads (
  tenant_id uuid not null references public.tenants on delete cascade,
  kind text not null check (kind in ('active_jobs', 'stored_bytes')),
  amount bigint not null,
  rows_counted bigint not null,
  good_until timestamptz not null,
  primary key (tenant_id, kind)
);

-- Counts over all tenants: queue jobs that wait by queue, and jobs that are not over by status.
create table ops.counts (
  kind text not null check (kind in ('queue', 'status')),
  name text not null,
  amount bigint not null,
  good_until timestamptz not null,
  primary key (kind, name)
);

create index artifacts_by_tenant on public.artifacts (tenant_id) include (bytes);

create function ledger.release_limits(jobs bigint, bytes bigint, depth bigint) returns void language sql volatile as $$
  insert into ops.limits (active_jobs, stored_bytes, queue_depth) values (jobs, bytes, depth)
  on conflict (singleton) do update set active_jobs = excluded.active_jobs, stored_bytes = excluded.stored_bytes,
    queue_depth = excluded.queue_depth
$$;

-- Set the limits of one tenant: of those in `own` by name; null takes one back. Gives what the tenant has then.
create function ledger.limit_tenant(of_tenant uuid, own jsonb) returns public.tenant_limits language plpgsql as $$
declare
  held public.tenant_limits;
begin
  insert into public.tenant_limits (tenant_id) values (of_tenant) on conflict do nothing;
  select * into held from public.tenant_limits l where l.tenant_id = of_tenant for update;
  held := jsonb_populate_record(held, own - 'tenant_id');
  update public.tenant_limits l set
    active_jobs = held.active_jobs, stored_bytes = held.stored_bytes, upload_bytes = held.upload_bytes,
    requests_per_minute = held.requests_per_minute
  where l.tenant_id = of_tenant;
  delete from public.tenant_limits l
  where l.tenant_id = of_tenant
    and num_nonnulls(l.active_jobs, l.stored_bytes, l.upload_bytes, l.requests_per_minute) = 0;
  return held;
end $$;

-- Until when a count of so many rows will do.
create function ledger.good_until(rows_counted bigint) returns timestamptz language sql volatile as $$
  select ledger.now() + make_interval(secs => 1 + coalesce(rows_counted, 0) / 50000.0)
$$;

-- True for one transaction at a time, until it ends: the others use what is known.
create function ledger.may_count(what text) returns boolean language plpgsql volatile as $$
begin
  return pg_try_advisory_xact_lock(hashtextextended('ledgerline count ' || what, 0));
end $$;

-- How many jobs of a tenant are not over; exact up to a thousand, if it can be as many as `most` soon.
--
-- Left nothing but indexes, it walks that of what is not over, whatever was in the tables when the plan was made.
create function ledger.active_jobs(of_tenant uuid, most bigint) returns bigint language plpgsql
set enable_seqscan = off set enable_bitmapscan = off as $$
declare
  known ops.tenant_loads;
  found_jobs bigint;
begin
  select * into known from ops.tenant_loads t where t.tenant_id = of_tenant and t.kind = 'active_jobs';
  if (known.amount > 1000 or known.amount < most - 1000)
     and known.good_until > ledger.now() then
    return known.amount;
  end if;
  found_jobs := (select count(*) from (
    select from public.jobs j where j.tenant_id = of_tenant and j.finished_at is null limit 1001) few);
  if found_jobs <= 20 or found_jobs <= 1000 and found_jobs >= most - 1000 then
    return found_jobs;
  elsif not ledger.may_count('active_jobs ' || of_tenant) then
    return greatest(known.amount, found_jobs);
  elsif found_jobs > 1000 then
    found_jobs := (select count(*) from (
      select from public.jobs j where j.tenant_id = of_tenant and j.finished_at is null) every);
  end if;
  perform ledger.remember_load(of_tenant, 'active_jobs', found_jobs, found_jobs);
  return found_jobs;
end $$;

-- How many bytes a tenant's documents and artifacts have. Each counts with its size, also where the same bytes are kept once.
create function ledger.stored_bytes(of_tenant uuid) returns bigint language plpgsql set enable_seqscan = off as $$
declare
  known ops.tenant_loads;
  total bigint;
  found_rows bigint;
begin
  select * into known from ops.tenant_loads t where t.tenant_id = of_tenant and t.kind = 'stored_bytes';
  if known.rows_counted > 1000
     and (known.good_until > ledger.now() or not ledger.may_count('stored_bytes ' || of_tenant)) then
    return known.amount;
  end if;
  select coalesce(sum(kept.bytes), 0), count(*) into total, found_rows from (
    select d.bytes from public.documents d where d.tenant_id = of_tenant
    union all select a.bytes from public.artifacts a where a.tenant_id = of_tenant) kept;
  if found_rows > 1000 and ledger.may_count('stored_bytes ' || of_tenant) then
    perform ledger.remember_load(of_tenant, 'stored_bytes', total, found_rows);
  end if;
  return total;
end $$;

create function ledger.remember_load(of_tenant uuid, of_kind text, new_amount bigint, counted bigint) returns void
language sql volatile as $$
  insert into ops.tenant_loads (tenant_id, kind, amount, rows_counted, good_until)
  values (of_tenant, of_kind, new_amount, counted, ledger.good_until(counted))
  on conflict (tenant_id, kind) do update set
    amount = excluded.amount, rows_counted = excluded.rows_counted, good_until = excluded.good_until
$$;

-- How many queue jobs wait, over all queues.
create function ledger.queue_depth() returns bigint language plpgsql set enable_seqscan = off as $$
declare
  known record;
  depth bigint;
begin
  select sum(c.amount) as depth, min(c.good_until) as good_until into known from ops.counts c where c.kind = 'queue';
  if known.good_until > ledger.now() or not ledger.may_count('queue') then
    return coalesce(known.depth, 0);
  end if;
  with counted as materialized (
    select j.queue_name, count(*) as waiting from procrastinate.procrastinate_jobs j
    where j.status = 'todo' group by j.queue_name
  ), kept as (
    insert into ops.counts (kind, name, amount, good_until)
    select 'queue', q.name, coalesce(c.waiting, 0), ledger.good_until((select sum(waiting)::bigint from counted))
    from unnest('{cpu,llm,media,maintenance}'::text[]) q(name) left join counted c on c.queue_name = q.name
    on conflict (kind, name) do update set amount = excluded.amount, good_until = excluded.good_until
    returning amount
  )
  select sum(k.amount) into depth from kept k;
  return depth;
end $$;

-- Count the jobs that are not over by their status, when that is due. For those who watch.
create function ledger.count_statuses() returns void language plpgsql set enable_seqscan = off as $$
begin
  if exists (select from ops.counts c where c.kind = 'status' and c.good_until > ledger.now())
     or not ledger.may_count('status') then
    return;
  end if;
  with counted as materialized (
    select j.status, count(*) as jobs from public.jobs j where j.finished_at is null group by j.status
  )
  insert into ops.counts (kind, name, amount, good_until)
  select 'status', s.name, coalesce(c.jobs, 0), ledger.good_until((select sum(jobs)::bigint from counted))
  from unnest('{queued,running,awaiting_review}'::text[]) s(name) left join counted c on c.status = s.name
  on conflict (kind, name) do update set amount = excluded.amount, good_until = excluded.good_until;
end $$;

-- Refuse one more job of a tenant when it has as many as it may have, or when as much waits as may wait. What is known and
-- good is found in one look: this is asked for each job.
create function ledger.check_limits(for_tenant uuid) returns void language plpgsql as $$
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
  if look.jobs >= look.most_jobs then
    perform ledger.refuse_limit('active_jobs_limit_reached', format(
      'There are %s active jobs already, and %s is the limit. Please wait until some of them are over.',
      look.jobs, look.most_jobs), 'active_jobs', look.most_jobs, look.jobs, 10);
  elsif look.depth >= look.most_depth then
    perform ledger.refuse_limit('queue_depth_limit_reached',
      'Too much work is waiting at the moment. Please try again in a while.',
      'queue_depth', look.most_depth, look.depth, 30);
  end if;
end $$;

-- Refuse so many more bytes when a tenant would have more than it may have.
create function ledger.check_storage(for_tenant uuid, more bigint) returns void language plpgsql as $$
declare
  most bigint := coalesce((select l.stored_bytes from public.tenant_limits l where l.tenant_id = for_tenant),
                          (select d.stored_bytes from ops.limits d));
  counted bigint;
begin
  if most is not null then
    counted := ledger.stored_bytes(for_tenant);
    if counted + more > most then
      perform ledger.refuse_limit('storage_limit_reached', format(
        'This needs %s bytes, and %s of %s are in use. Please delete what is no longer needed.', more, counted, most),
        'stored_bytes', most, counted, 3600);
    end if;
  end if;
end $$;

create function ledger.refuse_limit(
  code text, sentence text, name text, most bigint, counted numeric, retry_after_s integer
) returns void language plpgsql as $$
begin
  perform ledger.refuse(429, code, sentence, jsonb_build_object(
    'limit', name, 'value', most, 'current', counted, 'retry_after_s', retry_after_s));
end $$;

-- The graph a submission will run, or a refusal.
create or replace function ledger.check_submission(for_tenant uuid, of_pipeline text, of_graph text, for_document uuid)
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
  perform ledger.check_limits(for_tenant);
  return graph;
end $$;

-- Reopen a failed job where it failed. Done steps stay done. Refuses when the job did not fail, and at a limit.
create or replace function ledger.retry(job_id uuid, of_tenant uuid, by_user uuid) returns void
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
  perform ledger.check_limits(of_tenant);
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

-- Watching ------------------------------------------------------------------------------------------

-- What became of attempts, and how long they took, by worker's word; each worker adds its own every few seconds.
create table ops.attempt_counts (
  pipeline text not null,
  step text not null,
  outcome text not null check (outcome in ('completed', 'reused', 'skipped', 'retrying', 'failed', 'stale')),
  code text not null default '',     -- of what failed, now or for good
  attempts bigint not null,
  seconds double precision not null,
  buckets bigint[] not null,         -- how many took up to 0.01, 0.1, 1, 5, 30, 120, 600, 3600 s, and longer
  primary key (pipeline, step, outcome, code)
);

-- Add what a worker counted since it last told. In the order of the key: two workers must not wait for each other.
create function ledger.count_attempts(told jsonb) returns integer language plpgsql as $$
declare
  kinds integer;
begin
  insert into ops.attempt_counts as c (pipeline, step, outcome, code, attempts, seconds, buckets)
  select t.pipeline, t.step, t.outcome, t.code, t.attempts, t.seconds, t.buckets
  from jsonb_to_recordset(told) t(pipeline text, step text, outcome text, code text, attempts bigint,
                                  seconds double precision, buckets bigint[])
  order by t.pipeline, t.step, t.outcome, t.code
  on conflict (pipeline, step, outcome, code) do update set
    attempts = c.attempts + excluded.attempts, seconds = c.seconds + excluded.seconds,
    buckets = array(select b.was + b.more from unnest(c.buckets, excluded.buckets) with ordinality b(was, more, nr)
                    order by b.nr);
  get diagnostics kinds = row_count;
  return kinds;
end $$;

-- The trace that the submission was part of, as a W3C traceparent. Whoever submits says it for its transaction
-- (`ledger.trace`), so that no function on the way has to hand it on.
alter table public.jobs add column trace text default nullif(current_setting('ledger.trace', true), '')
  check (trace ~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$');

revoke all on all tables in schema ops from anon, authenticated, public;
revoke all on all functions in schema ledger from anon, authenticated, public;
