-- What has come due is found by an index. `ledger.now()` may change from row to row, so no index can be asked for it: a
-- look for what is due walked over all that was not, each time. Asked as `(select ledger.now())` it is one moment.

-- Queue the step runs whose retry is due. Returns how many, and the seconds until the next one (null: none waits).
create or replace function ledger.promote_due(most integer, out promoted integer, out next_in double precision)
language plpgsql as $$
declare
  runs uuid[] := array(
    select s.id from public.job_steps s where s.status = 'retrying' and s.due_at <= (select ledger.now())
    order by s.due_at limit most for update skip locked);
begin
  perform ledger.enqueue(runs);
  promoted := cardinality(runs);
  select extract(epoch from min(s.due_at) - ledger.now()) into next_in from public.job_steps s where s.status = 'retrying';
end $$;

-- Reviews nobody decided in time.
create or replace function ledger.expire_gates(only_job uuid default null) returns integer
language plpgsql as $$
declare
  review public.reviews;
  job public.jobs;
  expired integer := 0;
begin
  for review in
    select d.* from (
      select r.* from public.reviews r
      where r.status = 'open' and r.expires_at <= (select ledger.now()) and (only_job is null or r.job_id = only_job)
      order by r.expires_at limit 1000) d
    order by d.job_id
  loop
    job := ledger.try_lock_job(review.job_id);
    continue when job.id is null or not exists (
      select from public.reviews r where r.id = review.id and r.status = 'open');
    update public.reviews r set status = 'expired', decided_at = ledger.now() where r.id = review.id;
    job.status := 'running';
    job := ledger.close_gate(job, review.step_run, 'gate_expired', 'Nobody decided in time.');
    perform ledger.save(job);
    expired := expired + 1;
  end loop;
  return expired;
end $$;

-- Jobs that were not done in the time they were given.
create or replace function ledger.expire_jobs(only_job uuid default null) returns integer
language plpgsql as $$
declare
  late record;
  job public.jobs;
  expired integer := 0;
begin
  for late in
    select d.id from (
      select j.id from public.jobs j
      where j.deadline_at <= (select ledger.now()) and j.finished_at is null and (only_job is null or j.id = only_job)
      order by j.deadline_at limit 1000) d
    order by d.id
  loop
    job := ledger.try_lock_job(late.id);
    continue when job.id is null or job.finished_at is not null;
    job := ledger.fail_job(job, 'deadline_exceeded', 'It was not done in the time it was given.');
    perform ledger.save(job);
    expired := expired + 1;
  end loop;
  return expired;
end $$;

-- Take up to `most` deliveries that are due, and of each webhook at most `each`, those included that the caller has in hand
-- already (`busy` names their webhooks, one by one): an endpoint that is slow delays nobody else. Taking one moves its due
-- time by the lease, so that it is sent again when whoever took it is never heard of again.
--
-- `lanes` finds each webhook that has something pending by one look into the index, and what it has first: those that are
-- broken have thousands waiting, and none of these is walked over.
create or replace function ledger.claim_deliveries(most integer, each integer, busy uuid[], lease_s double precision)
returns table (id uuid, webhook_id uuid, tenant_id uuid, attempt integer, failures integer, url text, payload jsonb,
               secrets text[])
language plpgsql set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
begin
  if not exists (select from public.webhook_deliveries d where d.status = 'pending' and d.due_at <= (select ledger.now())) then
    return;
  end if;
  return query
  with recursive lanes as (
    (select d.webhook_id as lane, d.due_at from public.webhook_deliveries d where d.status = 'pending'
     order by d.webhook_id, d.due_at limit 1)
    union all
    select n.webhook_id, n.due_at from lanes l cross join lateral (
      select d.webhook_id, d.due_at from public.webhook_deliveries d where d.status = 'pending' and d.webhook_id > l.lane
      order by d.webhook_id, d.due_at limit 1) n
  ), picked as materialized (
    select p.id from (select * from lanes l where l.due_at <= (select ledger.now()) order by l.due_at) l
    cross join lateral (
      select d.id from public.webhook_deliveries d
      where d.status = 'pending' and d.webhook_id = l.lane and d.due_at <= (select ledger.now())
      order by d.due_at limit greatest(0, each - coalesce(cardinality(array_positions(busy, l.lane)), 0))
      for update skip locked) p
    limit most
  ), taken as (
    -- One that was born while its webhook was being disabled ends here.
    update public.webhook_deliveries d set
      status = case when w.disabled_at is null then 'pending' else 'failed' end,
      attempts = d.attempts + (w.disabled_at is null)::integer,
      attempted_at = case when w.disabled_at is null then ledger.now() else d.attempted_at end,
      due_at = case when w.disabled_at is null then ledger.now() + make_interval(secs => lease_s) end,
      error_code = case when w.disabled_at is null then d.error_code else 'webhook_disabled' end,
      error_message = case when w.disabled_at is null then d.error_message else 'The webhook was disabled.' end,
      finished_at = case when w.disabled_at is not null then ledger.now() end
    from picked p, public.webhooks w where d.id = p.id and w.id = d.webhook_id
    returning d.*, w.url
  )
  select t.id, t.webhook_id, t.tenant_id, t.attempts, t.failures, t.url, t.payload,
         s.secret || case when s.previous_until > ledger.now() then array[s.previous] else '{}' end
  from taken t join ops.webhook_secrets s on s.webhook_id = t.webhook_id where t.status = 'pending';
end $$;

-- Forget results that no job refers to and that nobody has used for a time. At most `most`; returns how many.
create or replace function ledger.prune_results(older_than interval, most integer default 5000) returns integer
language plpgsql as $$
declare
  pruned integer;
begin
  delete from public.step_results r where r.id in (
    select o.id from public.step_results o
    where o.used_at < (select ledger.now()) - older_than
      and not exists (select from public.job_steps s where s.result_id = o.id)
    order by o.used_at limit most for update skip locked);
  get diagnostics pruned = row_count;
  return pruned;
end $$;

-- Forget deliveries that ended long ago. At most `most`; returns how many.
create or replace function ledger.prune_deliveries(older_than interval, most integer default 5000) returns integer
language plpgsql as $$
declare
  pruned integer;
begin
  delete from public.webhook_deliveries d where d.id in (
    select o.id from public.webhook_deliveries o where o.finished_at < (select ledger.now()) - older_than
    order by o.finished_at limit most for update skip locked);
  get diagnostics pruned = row_count;
  return pruned;
end $$;

-- Uploads that are over and whose objects may still be in the store. They are given again until `clear_uploads` says
-- that they are gone. What is cleared is forgotten a month later: until then its sender is told that it has expired.
create or replace function ledger.uploads_to_clear(most integer) returns table (id uuid, tenant_id uuid)
language plpgsql as $$
begin
  delete from public.uploads u where u.cleared_at < (select ledger.now()) - interval '30 days';
  return query
    select u.id, u.tenant_id from public.uploads u
    where u.cleared_at is null and u.expires_at <= (select ledger.now()) - interval '1 minute'
    order by u.expires_at limit most;
end $$;

-- What is due, at most so much of it: how much was looked at, and the bytes that must go, as {"tenant", "sha256"}. Their
-- rows stay locked until the transaction ends, so that nobody stores the same bytes again in between: delete them there.
create or replace function ledger.take_loose_bytes(most integer, out looked_at integer, out nameless jsonb)
language plpgsql as $$
declare
  due ops.loose_bytes[];
begin
  -- As long as there are results of which nobody knows what they point to, anything may be named.
  due := case when exists (select from public.step_results r where r.blobs is null) then '{}' else array(
    select l from ops.loose_bytes l where l.due_at <= (select ledger.now()) order by l.due_at limit most for update skip locked) end;
  looked_at := cardinality(due);
  -- Names are looked for only now: whatever was announced before the rows were locked has been seen.
  select coalesce(jsonb_agg(jsonb_build_object('tenant', d.tenant_id, 'sha256', d.sha256)), '[]') into nameless
  from unnest(due) d where not ledger.bytes_are_named(d.tenant_id, d.sha256);
  delete from ops.loose_bytes l using unnest(due) d where l.tenant_id = d.tenant_id and l.sha256 = d.sha256;
end $$;

-- One chunk of the batch whose turn it is. Items with a document become jobs here; of those with a path, up to
-- `most_paths` are given to the worker to read (`claimed`), and again to another when that worker dies.
-- `next_in`: seconds until there is more to do; null: nothing is known to come.
--
-- The head of a batch is found by an index of what waits, however much of it is over and whatever a plan was made for: a
-- plan that was made while there was little would later walk over all that is done.
create or replace function ledger.take_in(
  by_worker uuid, lease_s double precision, most integer, most_paths integer,
  out batch jsonb, out claimed jsonb, out next_in double precision
) language plpgsql set enable_seqscan = off as $$
declare
  one public.batches;
  pause interval;
begin
  select b.* into one from public.batches b where b.due_at <= (select ledger.now())
  order by b.due_at limit 1 for no key update skip locked;
  if one.id is not null then
    perform ledger.for_batch(one.id);
    if one.wish is not null then
      pause := ledger.grant_wish(one, most);
    else
      claimed := ledger.claim_paths(one, by_worker, lease_s, most, most_paths);
      pause := coalesce(ledger.admit_items(one, most), case when claimed = '[]' then interval '1 second' end);
    end if;
    perform ledger.for_batch(null);
    update public.batches b set due_at = case
        when b.wish is not null or exists (select from public.batch_items i where i.batch_id = b.id and i.outcome = 'waiting')
        then ledger.now() + coalesce(pause, interval '0') end
    where b.id = one.id;
    batch := jsonb_build_object('id', one.id, 'tenant_id', one.tenant_id, 'user_id', one.created_by);
  end if;
  claimed := coalesce(claimed, '[]');
  select extract(epoch from min(b.due_at) - ledger.now()) into next_in from public.batches b where b.due_at is not null;
end $$;

revoke all on all functions in schema ledger from anon, authenticated, public;
