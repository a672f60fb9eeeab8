-- What each statement that writes pays again: Postgres prepares an index's expression anew for every INSERT, and for a
-- function in SQL that means to parse its text. So the expressions of indexes are spelled out, in functions that are built
-- in; queries go on to say `ledger.short_key`, which is put into them when they are planned, and is the same.

-- What stands for a key of a tenant in an index: 16 bytes of a digest of both. The cast to bytea is one that the planner knows
-- to be immutable, as `convert_to` is not; it reads backslashes, of which neither digests nor ids have any.
create or replace function ledger.short_key(of_tenant uuid, key text) returns uuid language sql immutable parallel safe as $$
  select substr(encode(sha256((of_tenant::text || key)::bytea), 'hex'), 1, 32)::uuid
$$;

drop index public.jobs_natural_key;
create unique index jobs_natural_key
  on public.jobs ((substr(encode(sha256((tenant_id::text || natural_key)::bytea), 'hex'), 1, 32)::uuid))
  where natural_key is not null and (ended is null or ended = 'completed');
drop index public.step_results_by_identity;
create index step_results_by_identity
  on public.step_results ((substr(encode(sha256((tenant_id::text || identity)::bytea), 'hex'), 1, 32)::uuid), id desc);

-- Deliveries of events that just happened: who has no webhook is told so by one look. It sets nothing: each setting of a
-- function costs as much as that look, and whoever writes many events has them set already.
create function ledger.deliver(news public.job_events[]) returns void language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
begin
  -- A job's transaction must neither wait nor fail because of a webhook: one that somebody is deleting right now is passed
  -- over, and one that is found cannot be deleted before the commit.
  insert into public.webhook_deliveries (webhook_id, tenant_id, job_id, seq, kind, payload, status, due_at, created_at)
  select w.id, w.tenant_id, e.job_id, e.seq, e.kind, ledger.describe_event(row(e.*)::public.job_events, j), 'pending',
         ledger.now(), ledger.now()
  from unnest(news) e join public.webhooks w on w.tenant_id = e.tenant_id join public.jobs j on j.id = e.job_id
  where w.disabled_at is null and e.kind = any(w.kinds)
  for key share of w skip locked
  on conflict do nothing;
end $$;

create or replace function ledger.announce() returns trigger language plpgsql as $$
declare
  news public.job_events[] := array(
    select e from fresh e
    where exists (select from public.webhooks w where w.tenant_id = e.tenant_id and w.disabled_at is null));
begin
  if news <> '{}' then
    perform ledger.deliver(news);
  end if;
  return null;
end $$;

revoke all on all functions in schema ledger from anon, authenticated, public;
