-- Signed uploads: bytes that a client sends straight to the store, and the document that they become when it says that
-- they are there. Until then nothing of them is among the documents.

create table public.uploads (
  id uuid primary key,               -- the future document's
  tenant_id uuid not null references public.tenants on delete cascade,
  created_by uuid,
  filename text not null check (length(filename) between 1 and 500),
  title text not null check (length(title) between 1 and 500),
  bytes bigint not null check (bytes > 0),
  sha256 text check (sha256 ~ '^[0-9a-f]{64}$'),
  status text not null default 'open' check (status in (
    'open',          -- waits for its bytes and their confirmation, until expires_at
    'confirmed'      -- open -> confirmed: the document is there
  )),
  job_id uuid,                       -- that was started along with the document
  created_at timestamptz not null,
  expires_at timestamptz not null,
  cleared_at timestamptz             -- when what was left in the store was removed
);
create index uploads_by_tenant on public.uploads (tenant_id, id);
create index uploads_to_clear on public.uploads (expires_at) where cleared_at is null;
create index uploads_cleared on public.uploads (cleared_at) where cleared_at is not null;

alter table public.uploads enable row level security;
create policy "members see their tenant's uploads" on public.uploads
  for select to authenticated using (tenant_id in (select access.tenants()));
revoke all on public.uploads from anon, authenticated, public;
grant select on public.uploads to authenticated;

-- Announce an upload. Returns when it expires.
create function ledger.open_upload(
  upload_id uuid, of_tenant uuid, by_user uuid, filename text, title text, bytes bigint, sha256 text,
  ttl_s double precision
) returns timestamptz language sql volatile as $$
  insert into public.uploads (id, tenant_id, created_by, filename, title, bytes, sha256, created_at, expires_at)
  values (upload_id, of_tenant, by_user, filename, title, bytes, sha256, ledger.now(),
          ledger.now() + make_interval(secs => ttl_s))
  returning expires_at
$$;

-- An upload that is to be confirmed, with its row locked for the rest of the transaction. Refuses when there is none, or
-- when it has expired. One that was confirmed already is given as it is: its sender may ask twice.
create function ledger.lock_upload(upload_id uuid, of_tenant uuid) returns public.uploads language plpgsql as $$
declare
  upload public.uploads;
begin
  select u.* into upload from public.uploads u where u.id = upload_id and u.tenant_id = of_tenant for update;
  if upload.id is null then
    perform ledger.refuse(404, 'upload_not_found', 'There is no such upload.');
  elsif upload.status = 'open' and upload.expires_at <= ledger.now() then
    perform ledger.refuse(410, 'upload_expired', 'This upload was not confirmed in time. Please start again.',
                          jsonb_build_object('expires_at', upload.expires_at));
  end if;
  return upload;
end $$;

-- The document is there, and perhaps a job on it. The caller has locked the upload in this transaction.
create function ledger.close_upload(upload_id uuid, with_job uuid) returns void language sql volatile as $$
  update public.uploads u set status = 'confirmed', job_id = with_job where u.id = upload_id
$$;

-- Uploads that are over and whose objects may still be in the store. They are given again until `clear_uploads` says
-- that they are gone. What is cleared is forgotten a month later: until then its sender is told that it has expired.
create function ledger.uploads_to_clear(most integer) returns table (id uuid, tenant_id uuid) language plpgsql as $$
begin
  delete from public.uploads u where u.cleared_at < ledger.now() - interval '30 days';
  return query
    select u.id, u.tenant_id from public.uploads u
    where u.cleared_at is null and u.expires_at <= ledger.now() - interval '1 minute'
    order by u.expires_at limit most;
end $$;

create function ledger.clear_uploads(uploads uuid[]) returns void language sql volatile as $$
  update public.uploads u set cleared_at = ledger.now() where u.id = any(uploads)
$$;

revoke all on all functions in schema ledger from anon, authenticated, public;
