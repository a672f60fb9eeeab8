-- Webhooks: endpoints of tenants that are told what becomes of their jobs.
--
-- A delivery is born with the event it tells of, in the same transaction, and waits in the ledger until a worker has sent it:
-- events and deliveries cannot disagree, and no endpoint is ever waited for by a job.

create table public.webhooks (
  id uuid primary key,
  tenant_id uuid not null references public.tenants on delete cascade,
  url text not null check (length(url) between 1 and 2000),
  kinds text[] not null check (cardinality(kinds) > 0 and kinds <@ array[
    'submitted', 'awaiting_review', 'completed', 'failed', 'cancelled', 'reopened']),
  created_by uuid,
  created_at timestamptz not null,
  failing_since timestamptz,         -- when the first of the attempts failed that have all failed since
  disabled_at timestamptz,
  disabled_reason text check (disabled_reason in (
    'owner',         -- an owner wanted it so
    'gone',          -- the endpoint answered 410
    'failing'        -- nothing was taken for days
  )),
  check ((disabled_at is null) = (disabled_reason is null))
);
create index webhooks_by_tenant on public.webhooks (tenant_id, id desc);

-- Apart, so that no grant on a webhook can ever be one on its secret. The previous one signs too until its time is over.
create table ops.webhook_secrets (
  webhook_id uuid primary key references public.webhooks on delete cascade,
  secret text not null check (secret ~ '^whsec_'),
  previous text check (previous ~ '^whsec_'),
  previous_until timestamptz,
  check ((previous is null) = (previous_until is null))
);

-- The id is the webhook-id that receivers see: the same at each attempt. The job is named and not referred to: the log of
-- what was sent outlives it.
create table public.webhook_deliveries (
  id uuid primary key default ledger.uuid7(),
  webhook_id uuid not null references public.webhooks on delete cascade,
  tenant_id uuid not null,
  job_id uuid,                       -- null for a ping
  seq integer,
  kind text not null,
  payload jsonb not null,
  status text not null check (status in (
    'pending',       -- due at due_at, and again when whoever took it does not report; failed -> pending: an owner has it tried again
    'delivered',     -- pending -> delivered: the endpoint answered 2xx; terminal
    'failed'         -- pending -> failed: the last attempt failed, or its webhook was disabled; terminal until an owner retries
  )),
  attempts integer not null default 0,         -- the fencing token of whoever sends it
  failures integer not null default 0,         -- attempts that were reported as failed since it was last asked for
  due_at timestamptz,
  answer_status integer,                       -- of the last attempt that was answered
  error_code text,                             -- of the last attempt, if it failed
  error_message text,
  created_at timestamptz not null,
  attempted_at timestamptz,
  finished_at timestamptz,
  check ((status = 'pending') = (due_at is not null)),
  check ((status = 'pending') = (finished_at is null)),
  check ((error_code is null) = (error_message is null)),
  check (status <> 'failed' or error_code is not null),
  check (status <> 'delivered' or error_code is null),
  check ((job_id is null) = (kind = 'ping')),
  check ((job_id is null) = (seq is null)),
  unique (job_id, seq, webhook_id)
);
create index webhook_deliveries_by_webhook on public.webhook_deliveries (webhook_id, id desc);
create index webhook_deliveries_by_status on public.webhook_deliveries (webhook_id, status, id desc);
create index webhook_deliveries_due on public.webhook_deliveries (due_at) where status = 'pending';
create index webhook_deliveries_lanes on public.webhook_deliveries (webhook_id, due_at) where status = 'pending';
create index webhook_deliveries_finished on public.webhook_deliveries (finished_at) where finished_at is not null;

-- Who may see them: owners only. An address may carry a password of the other side.
revoke all on public.webhooks, public.webhook_deliveries, ops.webhook_secrets from anon, authenticated, public;
alter table public.webhooks enable row level security;
alter table public.webhook_deliveries enable row level security;
create policy "owners see their tenant's webhooks" on public.webhooks
  for select to authenticated using (tenant_id in (select access.owned_tenants()));
create policy "owners see their tenant's deliveries" on public.webhook_deliveries
  for select to authenticated using (tenant_id in (select access.owned_tenants()));
grant select on public.webhooks, public.webhook_deliveries to authenticated;

-- Birth ---------------------------------------------------------------------------------------------

-- What a receiver is sent, after the Standard Webhooks: ids and codes, and no text of a document.
create function ledger.describe_event(event public.job_events, job public.jobs) returns jsonb
language sql stable as $$
  select jsonb_build_object(
    'type', 'job.' || event.kind,
    'timestamp', to_char(event.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    'data', jsonb_build_object(
      'tenant_id', event.tenant_id, 'job_id', event.job_id, 'seq', event.seq, 'pipeline', job.pipeline,
      'document_id', job.document_id, 'batch_id', to_jsonb(job) -> 'batch_id', 'status', event.data -> 'status', 'stage', event.stage,
      'percent', event.data -> 'percent',
      'error', case when event.kind = 'failed' then jsonb_build_object('code', event.data -> 'code', 'message', event.message) end))
$$;

-- Deliveries of an event that just happened. A job's transaction must neither wait nor fail because of a webhook: one that
-- somebody is deleting right now is passed over, and one that is found cannot be deleted before the commit.
create function ledger.announce() returns trigger language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
begin
  insert into public.webhook_deliveries (webhook_id, tenant_id, job_id, seq, kind, payload, status, due_at, created_at)
  select w.id, w.tenant_id, new.job_id, new.seq, new.kind, ledger.describe_event(new, j), 'pending', ledger.now(), ledger.now()
  from public.webhooks w join public.jobs j on j.id = new.job_id
  where w.tenant_id = new.tenant_id and w.disabled_at is null and new.kind = any(w.kinds)
  for key share of w skip locked
  on conflict do nothing;
  return null;
end $$;

create trigger announce after insert on public.job_events for each row
when (new.kind in ('submitted', 'awaiting_review', 'completed', 'failed', 'cancelled', 'reopened'))
execute function ledger.announce();

-- What owners do --------------------------------------------------------------------------------------

-- Lock order: a webhook, then its deliveries.
create function ledger.lock_webhook(webhook_id uuid, of_tenant uuid) returns public.webhooks
language plpgsql as $$
declare
  webhook public.webhooks;
begin
  select * into webhook from public.webhooks w where w.id = webhook_id and w.tenant_id = of_tenant for no key update;
  if webhook.id is null then
    perform ledger.refuse(404, 'webhook_not_found', 'There is no such webhook.');
  end if;
  return webhook;
end $$;

create function ledger.add_webhook(
  webhook_id uuid, of_tenant uuid, by_user uuid, to_url text, of_kinds text[], with_secret text, most integer
) returns public.webhooks language plpgsql as $$
declare
  webhook public.webhooks;
begin
  perform from public.tenants t where t.id = of_tenant for no key update;  -- one at a time: they are counted
  if (select count(*) from public.webhooks w where w.tenant_id = of_tenant) >= most then
    perform ledger.refuse(409, 'too_many_webhooks', format('A tenant may have %s webhooks, and this one has them.', most),
                          jsonb_build_object('limit', most));
  end if;
  insert into public.webhooks (id, tenant_id, url, kinds, created_by, created_at)
  values (webhook_id, of_tenant, to_url, of_kinds, by_user, ledger.now()) returning * into webhook;
  insert into ops.webhook_secrets (webhook_id, secret) values (webhook.id, with_secret);
  return webhook;
end $$;

-- What is null stays as it is. Enabling one that failed gives it its days anew.
create function ledger.change_webhook(
  webhook_id uuid, of_tenant uuid, to_url text default null, of_kinds text[] default null, enable boolean default null
) returns public.webhooks language plpgsql as $$
declare
  webhook public.webhooks := ledger.lock_webhook(webhook_id, of_tenant);
begin
  if not enable then
    perform ledger.disable_webhook(webhook.id, 'owner');
  end if;
  update public.webhooks w set
    url = coalesce(to_url, w.url), kinds = coalesce(of_kinds, w.kinds),
    failing_since = case when not coalesce(enable, false) then w.failing_since end,
    disabled_at = case when not coalesce(enable, false) then w.disabled_at end,
    disabled_reason = case when not coalesce(enable, false) then w.disabled_reason end
  where w.id = webhook.id returning * into webhook;
  return webhook;
end $$;

create function ledger.remove_webhook(webhook_id uuid, of_tenant uuid) returns void language plpgsql as $$
begin
  delete from public.webhooks w where w.id = webhook_id and w.tenant_id = of_tenant;
  if not found then
    perform ledger.refuse(404, 'webhook_not_found', 'There is no such webhook.');
  end if;
end $$;

-- Sign with a new secret, and for a while with the one before as well. Returns until when.
create function ledger.rotate_secret(webhook_id uuid, of_tenant uuid, new_secret text, overlap_s double precision)
returns timestamptz language plpgsql as $$
declare
  webhook public.webhooks := ledger.lock_webhook(webhook_id, of_tenant);
  until timestamptz := ledger.now() + make_interval(secs => overlap_s);
begin
  update ops.webhook_secrets s set previous = s.secret, secret = new_secret, previous_until = until
  where s.webhook_id = webhook.id;
  return until;
end $$;

-- A delivery that tells of nothing, to see whether the endpoint takes it.
create function ledger.ping_webhook(webhook_id uuid, of_tenant uuid) returns public.webhook_deliveries
language plpgsql as $$
declare
  webhook public.webhooks := ledger.lock_webhook(webhook_id, of_tenant);
  delivery public.webhook_deliveries;
begin
  perform ledger.refuse_disabled(webhook);
  insert into public.webhook_deliveries (webhook_id, tenant_id, kind, payload, status, due_at, created_at)
  values (webhook.id, webhook.tenant_id, 'ping', jsonb_build_object(
    'type', 'webhook.ping', 'timestamp', to_char(ledger.now() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    'data', jsonb_build_object('tenant_id', webhook.tenant_id, 'webhook_id', webhook.id)), 'pending', ledger.now(), ledger.now())
  returning * into delivery;
  return delivery;
end $$;

create function ledger.refuse_disabled(webhook public.webhooks) returns void language plpgsql as $$
begin
  if webhook.disabled_at is not null then
    perform ledger.refuse(409, 'webhook_disabled', 'This webhook is disabled. Enable it first.',
                          jsonb_build_object('reason', webhook.disabled_reason));
  end if;
end $$;

-- Have a delivery that was not taken tried again at once, with all its attempts before it.
create function ledger.retry_delivery(delivery_id uuid, of_webhook uuid, of_tenant uuid) returns public.webhook_deliveries
language plpgsql as $$
declare
  webhook public.webhooks := ledger.lock_webhook(of_webhook, of_tenant);
  delivery public.webhook_deliveries;
begin
  perform ledger.refuse_disabled(webhook);
  select * into delivery from public.webhook_deliveries d where d.id = delivery_id and d.webhook_id = webhook.id for update;
  if delivery.id is null then
    perform ledger.refuse(404, 'delivery_not_found', 'There is no such delivery.');
  elsif delivery.status = 'delivered' then
    perform ledger.refuse(409, 'already_delivered', 'The endpoint has taken this delivery already.');
  end if;
  update public.webhook_deliveries d set status = 'pending', failures = 0, due_at = ledger.now(), finished_at = null
  where d.id = delivery.id returning * into delivery;
  return delivery;
end $$;

-- What workers do -------------------------------------------------------------------------------------

-- Take up to `most` deliveries that are due, and of each webhook at most `each`, those included that the caller has in hand
-- already (`busy` names their webhooks, one by one): an endpoint that is slow delays nobody else. Taking one moves its due
-- time by the lease, so that it is sent again when whoever took it is never heard of again.
--
-- `lanes` finds each webhook that has something pending by one look into the index, and what it has first: those that are
-- broken have thousands waiting, and none of these is walked over.
create function ledger.claim_deliveries(most integer, each integer, busy uuid[], lease_s double precision)
returns table (id uuid, webhook_id uuid, tenant_id uuid, attempt integer, failures integer, url text, payload jsonb, secrets text[])
language plpgsql set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
begin
  if not exists (select from public.webhook_deliveries d where d.status = 'pending' and d.due_at <= ledger.now()) then
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
    select p.id from (select * from lanes l where l.due_at <= ledger.now() order by l.due_at) l
    cross join lateral (
      select d.id from public.webhook_deliveries d
      where d.status = 'pending' and d.webhook_id = l.lane and d.due_at <= ledger.now()
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

-- Report an attempt. Without a code, it was taken. With one: try again in `retry_in` seconds, or never when that is null.
-- `gone`: the endpoint wants no more. `patience_s`: a webhook that has taken nothing for so long is disabled when one more
-- delivery is given up. Returns whether the webhook was disabled now; null when the attempt is stale.
create function ledger.settle_delivery(
  delivery_id uuid, of_attempt integer, status_answered integer, code text, sentence text, retry_in double precision,
  gone boolean, patience_s double precision
) returns boolean language plpgsql as $$
declare
  delivery public.webhook_deliveries;
  webhook public.webhooks;
begin
  select w.* into webhook from public.webhooks w
  where w.id = (select d.webhook_id from public.webhook_deliveries d where d.id = delivery_id) for no key update;
  update public.webhook_deliveries d set
    status = case when code is null then 'delivered' when retry_in is null then 'failed' else 'pending' end,
    failures = d.failures + (code is not null)::integer,
    due_at = case when code is not null then ledger.now() + make_interval(secs => retry_in) end,
    answer_status = coalesce(status_answered, d.answer_status), error_code = code, error_message = sentence,
    finished_at = case when code is null or retry_in is null then ledger.now() end
  where d.id = delivery_id and d.attempts = of_attempt and d.status = 'pending'
  returning * into delivery;
  if delivery.id is null then
    return null;
  end if;
  if (code is null) <> (webhook.failing_since is null) then
    update public.webhooks w set failing_since = case when code is not null then ledger.now() end where w.id = webhook.id;
  end if;
  if gone then
    return ledger.disable_webhook(webhook.id, 'gone');
  elsif delivery.status = 'failed' and webhook.failing_since < ledger.now() - make_interval(secs => patience_s) then
    return ledger.disable_webhook(webhook.id, 'failing');
  end if;
  return false;
end $$;

-- Send nothing more to a webhook; what is pending fails. The caller holds the webhook's row. Deliveries that somebody is
-- taking right now are passed over, and end when they are due. False when it was disabled already.
create function ledger.disable_webhook(of_webhook uuid, reason text) returns boolean language plpgsql as $$
begin
  update public.webhooks w set disabled_at = ledger.now(), disabled_reason = reason
  where w.id = of_webhook and w.disabled_at is null;
  if not found then
    return false;
  end if;
  update public.webhook_deliveries d set
    status = 'failed', due_at = null, error_code = 'webhook_disabled', error_message = 'The webhook was disabled.',
    finished_at = ledger.now()
  where d.id in (select p.id from public.webhook_deliveries p where p.webhook_id = of_webhook and p.status = 'pending'
                 for update skip locked);
  return true;
end $$;

-- Forget deliveries that ended long ago. At most `most`; returns how many.
create function ledger.prune_deliveries(older_than interval, most integer default 5000) returns integer
language plpgsql as $$
declare
  pruned integer;
begin
  delete from public.webhook_deliveries d where d.id in (
    select o.id from public.webhook_deliveries o where o.finished_at < ledger.now() - older_than
    order by o.finished_at limit most for update skip locked);
  get diagnostics pruned = row_count;
  return pruned;
end $$;

revoke all on all functions in schema ledger from anon, authenticated, public;
