-- Batches: many jobs submitted together. The front door copies the items in, as they came; workers turn them into jobs, a
-- chunk and a transaction at a time, so that nobody waits behind a batch.

create table public.batches (
  id uuid primary key,
  tenant_id uuid not null references public.tenants on delete cascade,
  created_by uuid,
  pipeline text not null,
  items integer not null default 0 check (items >= 0),
  idempotency_key text,
  payload_digest text not null default '',
  due_at timestamptz,                -- when a worker looks at it next; null: all that was asked of it has been done
  wish text check (wish in ('cancel', 'retry')),   -- what a person asks of all its jobs ...
  wish_after uuid,                   -- ... and the last job that was asked
  wished_by uuid,
  reason text not null default '',
  created_at timestamptz not null,
  cancelled_at timestamptz,
  check (wish is null or due_at is not null)
);
create index batches_by_tenant on public.batches (tenant_id, id desc);
create index batches_due on public.batches (due_at) where due_at is not null;
create unique index batches_idempotency_key on public.batches (tenant_id, idempotency_key);

create table public.batch_items (
  batch_id uuid not null references public.batches on delete cascade,
  nr integer not null check (nr > 0),          -- of its line
  tenant_id uuid not null,
  key text check (length(key) between 1 and 255),
  document_id uuid,
  path text,                                   -- in the tenant's incoming area, until it is a document
  title text,
  params jsonb not null default '{}',
  outcome text not null default 'waiting' check (outcome in (
    'waiting',       -- its turn has not come, or a limit does not let it in yet
    'created',       -- waiting -> created: a job of its own
    'duplicate',     -- waiting -> duplicate: an equal request had made a job before
    'refused'        -- waiting -> refused, with a code; a line that cannot be read is born so
  )),
  code text,
  message text,
  job_id uuid,
  claimed_by uuid,                             -- the worker that reads what lies at its path
  primary key (batch_id, nr),
  check ((outcome = 'refused') = (code is not null)),
  check ((code is null) = (message is null)),
  check ((outcome in ('created', 'duplicate')) = (job_id is not null))
);
create index batch_items_by_outcome on public.batch_items (batch_id, outcome, nr);
create index batch_items_waiting on public.batch_items (batch_id, nr) where outcome = 'waiting';

-- The batch that a job came in with. Whoever submits for a batch says so for its transaction: see ledger.for_batch.
alter table public.jobs add column batch_id uuid references public.batches;
alter table public.jobs alter column batch_id set default nullif(current_setting('ledger.batch', true), '')::uuid;
create index jobs_by_batch on public.jobs (batch_id, id) where batch_id is not null;

alter table public.batches enable row level security;
alter table public.batch_items enable row level security;
create policy "members see their tenant's batches" on public.batches
  for select to authenticated using (tenant_id in (select access.tenants()));
create policy "members see their tenant's batch items" on public.batch_items
  for select to authenticated using (tenant_id in (select access.tenants()));
revoke all on public.batches, public.batch_items from anon, authenticated, public;
grant select on public.batches, public.batch_items to authenticated;

-- Making one --------------------------------------------------------------------------------------------
-- Opened, its items copied in, and closed, in one transaction. Until that is committed nobody sees anything of it.

create function ledger.open_batch(batch_id uuid, of_tenant uuid, by_user uuid, of_pipeline text) returns void
language sql volatile as $$
  insert into public.batches (id, tenant_id, created_by, pipeline, due_at, created_at)
  values (batch_id, of_tenant, by_user, of_pipeline, ledger.now(), ledger.now())
$$;

create function ledger.close_batch(batch_id uuid, of_items integer, key text, digest text) returns void
language plpgsql as $$
begin
  update public.batches b set items = of_items, idempotency_key = key, payload_digest = digest where b.id = batch_id;
exception when unique_violation then
  perform ledger.refuse(409, 'try_again', 'An equal batch was made at this very moment. Please send the request again.');
end $$;

-- The batch that an equal request made before, or null; a refusal when the key was used for something else.
create function ledger.find_batch(of_tenant uuid, key text, digest text) returns uuid language plpgsql as $$
declare
  batch public.batches;
begin
  select b.* into batch from public.batches b where b.tenant_id = of_tenant and b.idempotency_key = key;
  if batch.payload_digest <> digest then
    perform ledger.refuse(422, 'idempotency_key_reused',
      format('This Idempotency-Key was already used for another request, which made batch %s.', batch.id),
      jsonb_build_object('batch_id', batch.id));
  end if;
  return batch.id;
end $$;

-- Taking in ---------------------------------------------------------------------------------------------
-- Lock order: the batch, then its items, then whatever submitting locks. One chunk of a batch at a time, and the batch
-- that has waited longest first: a small one is not behind a large one.

-- Jobs that are submitted in this transaction belong to a batch; null: to none again.
create function ledger.for_batch(batch_id uuid) returns void language plpgsql as $$
begin
  perform set_config('ledger.batch', coalesce(batch_id::text, ''), true);
end $$;

-- One chunk of the batch whose turn it is. Items with a document become jobs here; of those with a path, up to
-- `most_paths` are given to the worker to read (`claimed`), and again to another when that worker dies.
-- `next_in`: seconds until there is more to do; null: nothing is known to come.
--
-- The head of a batch is found by an index of what waits, however much of it is over and whatever a plan was made for: a
-- plan that was made while there was little would later walk over all that is done.
create function ledger.take_in(
  by_worker uuid, lease_s double precision, most integer, most_paths integer,
  out batch jsonb, out claimed jsonb, out next_in double precision
) language plpgsql set enable_seqscan = off as $$
declare
  one public.batches;
  pause interval;
begin
  select b.* into one from public.batches b where b.due_at <= ledger.now()
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

-- The items at the head of a batch that have a path, for a worker that will read what lies there: those that no worker
-- has, or one that is dead, or this one, which would not ask if it still had them in hand.
create function ledger.claim_paths(
  batch public.batches, by_worker uuid, lease_s double precision, most integer, most_paths integer
) returns jsonb language plpgsql as $$
declare
  claimed jsonb;
begin
  with head as materialized (
    select i.nr, i.path, i.title, i.document_id, i.claimed_by from public.batch_items i
    where i.batch_id = batch.id and i.outcome = 'waiting' order by i.nr limit most for update skip locked
  ), free as (
    select h.nr, h.path, h.title from head h
    where h.path is not null and h.document_id is null
      and (h.claimed_by is null or h.claimed_by = by_worker
           or not exists (select from ops.workers w where w.id = h.claimed_by
                          and w.heartbeat_at > ledger.now() - make_interval(secs => lease_s)))
    order by h.nr limit most_paths
  ), taken as (
    update public.batch_items i set claimed_by = by_worker from free f
    where i.batch_id = batch.id and i.nr = f.nr
    returning i.nr, i.path, i.title
  )
  select coalesce(jsonb_agg(to_jsonb(t) order by t.nr), '[]') into claimed from taken t;
  return claimed;
end $$;

-- Submit the items at the head of a batch that have all they need. Returns how long to wait before the next chunk when a
-- limit was met or nothing could be done, else null.
create function ledger.admit_items(batch public.batches, most integer) returns interval language plpgsql as $$
declare
  item public.batch_items;
  admitted integer := 0;
begin
  for item in
    select i.* from public.batch_items i
    where i.batch_id = batch.id and i.outcome = 'waiting' order by i.nr limit most for update skip locked
  loop
    continue when item.path is not null and item.document_id is null;
    if ledger.admit_item(batch, item, item.document_id) = 'waiting' then
      return interval '5 seconds';
    end if;
    admitted := admitted + 1;
  end loop;
  return case when admitted > 0 then interval '0' end;
end $$;

-- Submit one item, and write down its outcome; a refusal is one. Limits refuse nothing: the item goes on waiting.
create function ledger.admit_item(batch public.batches, item public.batch_items, for_document uuid) returns text
language plpgsql as $$
declare
  made jsonb;
  state text;
  why text;
  sentence text;
  result text;
begin
  begin
    made := ledger.submit(ledger.uuid7(), batch.tenant_id, batch.created_by, batch.pipeline, null, for_document,
                          item.params, item.key);
    result := case when (made ->> 'created')::boolean then 'created' else 'duplicate' end;
  exception when others then
    get stacked diagnostics state = returned_sqlstate, why = pg_exception_hint, sentence = message_text;
    if state = 'LL429' or why = 'try_again' then
      return 'waiting';
    elsif state ~ '^(22|23)' then   -- it cannot be stored as it is: one item must not hold up the others
      why := 'internal_error';
      sentence := 'Something went wrong with this item.';
    elsif state !~ '^LL' then
      raise;
    end if;
    result := 'refused';
  end;
  update public.batch_items i set outcome = result, job_id = (made ->> 'job')::uuid, code = why, message = sentence,
    document_id = for_document, claimed_by = null
  where i.batch_id = item.batch_id and i.nr = item.nr;
  return result;
end $$;

-- What lay at an item's path is stored as content: make it a document, or find the one that has the same content, and
-- submit. Returns the outcome; null when the item is not waiting for this any more; `full` when the tenant may not have
-- so many bytes, so that it waits.
create function ledger.admit_path(of_batch uuid, of_nr integer, document jsonb) returns text language plpgsql as $$
declare
  batch public.batches;
  item public.batch_items;
  known uuid;
  made uuid;
  outcome text;
begin
  select b.* into batch from public.batches b where b.id = of_batch for share;
  select i.* into item from public.batch_items i where i.batch_id = of_batch and i.nr = of_nr for update;
  if item.outcome is distinct from 'waiting' or item.document_id is not null then
    return null;
  end if;
  -- Two items with the same content, taken in at the same moment, find each other's document.
  perform pg_advisory_xact_lock(hashtextextended(batch.tenant_id || (document ->> 'sha256'), 20261126));
  select d.id into known from public.documents d
  where d.tenant_id = batch.tenant_id and d.sha256 = document ->> 'sha256' and d.kind = document ->> 'kind'
  order by d.id limit 1;
  if known is null then
    begin
      perform ledger.check_storage(batch.tenant_id, (document ->> 'bytes')::bigint);
    exception when sqlstate 'LL429' then
      return 'full';
    end;
    made := (ledger.add_document(
      (document ->> 'id')::uuid, batch.tenant_id, batch.created_by, document ->> 'title', document ->> 'filename',
      document ->> 'kind', document ->> 'media_type', (document ->> 'bytes')::bigint, document ->> 'sha256')).id;
  end if;
  perform ledger.for_batch(batch.id);
  outcome := ledger.admit_item(batch, item, coalesce(known, made));
  perform ledger.for_batch(null);
  if outcome = 'waiting' then      -- a limit: it has its document now, and is not read again
    update public.batch_items i set document_id = coalesce(known, made), claimed_by = null
    where i.batch_id = of_batch and i.nr = of_nr;
  elsif outcome = 'refused' and made is not null then
    update public.batch_items i set document_id = null where i.batch_id = of_batch and i.nr = of_nr;
    delete from public.documents d where d.id = made;
  end if;
  return outcome;
end $$;

-- What lies at an item's path is of no use.
create function ledger.refuse_item(of_batch uuid, of_nr integer, why text, sentence text) returns void
language sql volatile as $$
  update public.batch_items i set outcome = 'refused', code = why, message = sentence, claimed_by = null
  where i.batch_id = of_batch and i.nr = of_nr and i.outcome = 'waiting'
$$;

-- Leave a batch alone for a while: the store is away, or a limit was met.
create function ledger.put_off_batch(of_batch uuid, for_s double precision) returns void language sql volatile as $$
  update public.batches b set due_at = ledger.now() + make_interval(secs => for_s)
  where b.id = of_batch and b.due_at is not null
$$;

-- What people ask of a whole batch ----------------------------------------------------------------------

create function ledger.lock_batch(batch_id uuid, of_tenant uuid) returns public.batches language plpgsql as $$
declare
  batch public.batches;
begin
  select b.* into batch from public.batches b where b.id = batch_id and b.tenant_id = of_tenant for no key update;
  if batch.id is null then
    perform ledger.refuse(404, 'batch_not_found', 'There is no such batch.');
  elsif batch.cancelled_at is not null then
    perform ledger.refuse(409, 'batch_is_over', 'This batch was cancelled already.',
                          jsonb_build_object('cancelled_at', batch.cancelled_at));
  end if;
  return batch;
end $$;

-- No further item becomes a job from now on; workers refuse what waits and cancel what is live.
create function ledger.cancel_batch(batch_id uuid, of_tenant uuid, by_user uuid, why text) returns void
language plpgsql as $$
declare
  batch public.batches := ledger.lock_batch(batch_id, of_tenant);
begin
  if batch.due_at is null
     and not exists (select from public.jobs j where j.batch_id = batch.id and j.finished_at is null) then
    perform ledger.refuse(409, 'batch_is_over', 'All of this batch is over already.');
  end if;
  update public.batches b set cancelled_at = ledger.now(), wish = 'cancel', wish_after = null, wished_by = by_user,
    reason = why, due_at = ledger.now()
  where b.id = batch.id;
end $$;

-- Workers reopen the jobs that have failed. Those that fail while that is going on may be among them.
create function ledger.retry_batch(batch_id uuid, of_tenant uuid, by_user uuid) returns void language plpgsql as $$
declare
  batch public.batches := ledger.lock_batch(batch_id, of_tenant);
begin
  if not exists (select from public.jobs j where j.batch_id = batch.id and j.status = 'failed') then
    perform ledger.refuse(409, 'nothing_failed', 'No job of this batch has failed.');
  end if;
  update public.batches b set wish = 'retry', wish_after = null, wished_by = by_user, due_at = ledger.now()
  where b.id = batch.id;
end $$;

-- Do what was asked, for a chunk. Returns how long to wait when a limit was met, else null.
create function ledger.grant_wish(batch public.batches, most integer) returns interval language plpgsql as $$
declare
  asked uuid;
  last uuid := coalesce(batch.wish_after, '00000000-0000-0000-0000-000000000000');
  count integer := 0;
begin
  if batch.wish = 'cancel' then
    update public.batch_items i set outcome = 'refused', code = 'batch_cancelled', claimed_by = null,
      message = coalesce(nullif(batch.reason, ''), 'The batch was cancelled.')
    where i.batch_id = batch.id and i.nr in (
      select w.nr from public.batch_items w where w.batch_id = batch.id and w.outcome = 'waiting' order by w.nr
      limit most * 10);
    if found then
      return null;
    end if;
  end if;
  for asked in
    select j.id from public.jobs j where j.batch_id = batch.id and j.id > last
      and case batch.wish when 'cancel' then j.finished_at is null else j.status = 'failed' end
    order by j.id limit most
  loop
    begin
      if batch.wish = 'cancel' then
        perform ledger.cancel(asked, batch.tenant_id, batch.wished_by, batch.reason);
      else
        perform ledger.retry(asked, batch.tenant_id, batch.wished_by);
      end if;
    exception when others then
      if sqlstate = 'LL429' then
        update public.batches b set wish_after = last where b.id = batch.id;
        return interval '5 seconds';
      elsif sqlstate !~ '^LL' then
        raise;
      end if;   -- refused: it is over by now, or a newer job is there
    end;
    last := asked;
    count := count + 1;
  end loop;
  update public.batches b set wish_after = last, wish = case when count = most then b.wish end where b.id = batch.id;
  return null;
end $$;

revoke all on all functions in schema ledger from anon, authenticated, public;
