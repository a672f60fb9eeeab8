-- API keys: a key is a member of its tenant that is a machine. Its id is its user id, so roles, policies and the actor of an
-- event need to know nothing of keys.

-- What owners see of their keys. Rows stay when a key is revoked, so that what it did can still be told.
create table public.api_keys (
  id uuid primary key default ledger.uuid7(),   -- and user_id among the members, as long as it is not revoked
  tenant_id uuid not null references public.tenants on delete cascade,
  name text not null check (length(name) between 1 and 100),
  role text not null check (role in ('editor', 'reviewer', 'viewer')),   -- never owner: a key makes no keys
  prefix text not null check (prefix ~ '^llk_[0-9A-Za-z]{8}$'),          -- of the secret, to recognise it by
  created_by uuid not null,
  created_at timestamptz not null default ledger.now(),
  expires_at timestamptz check (expires_at > created_at),                -- null: never
  last_used_at timestamptz,                                              -- give or take five minutes
  revoked_at timestamptz,
  revoked_by uuid,
  check ((revoked_at is null) = (revoked_by is null))
);
create index api_keys_by_tenant on public.api_keys (tenant_id, id desc);

-- What secrets are recognised by. Apart from the table above, so that nobody who may read that one sees a digest; gone when
-- its key is revoked, so that a revoked secret is like any that never was. A secret is 256 random bits: guessing one from its
-- sha256 is hopeless, and a slow hash would only be a way to make us busy.
create table access.key_digests (
  digest text primary key check (digest ~ '^[0-9a-f]{64}$'),
  key_id uuid not null unique references public.api_keys on delete cascade
);
revoke all on access.key_digests from public, anon, authenticated;

-- Make a key and the member it acts as.
create function ledger.create_key(
  of_tenant uuid, by_user uuid, key_name text, key_role text, key_prefix text, key_digest text, expires_in_days integer
) returns public.api_keys language plpgsql as $$
declare
  most constant integer := 100;
  born_at constant timestamptz := ledger.now();
  made public.api_keys;
begin
  -- One at a time, so that counting is counting.
  perform from public.tenants t where t.id = of_tenant for no key update;
  if (select count(*) from public.api_keys k where k.tenant_id = of_tenant and k.revoked_at is null
        and (k.expires_at is null or k.expires_at > ledger.now())) >= most then
    perform ledger.refuse(409, 'too_many_keys', format('A tenant has at most %s keys that work. Revoke one first.', most),
                          jsonb_build_object('limit', most));
  end if;
  insert into public.api_keys (tenant_id, name, role, prefix, created_by, created_at, expires_at)
  values (of_tenant, key_name, key_role, key_prefix, by_user, born_at, born_at + make_interval(hours => 24 * expires_in_days))
  returning * into made;
  insert into access.key_digests (digest, key_id) values (key_digest, made.id);
  insert into public.members (tenant_id, user_id, role) values (of_tenant, made.id, key_role);
  return made;
end $$;

-- Take a key's member and digest away: whatever comes with its secret from now on is refused. Once is enough.
create function ledger.revoke_key(key_id uuid, of_tenant uuid, by_user uuid) returns public.api_keys
language plpgsql as $$
declare
  key public.api_keys;
begin
  select k.* into key from public.api_keys k where k.id = revoke_key.key_id and k.tenant_id = of_tenant for update;
  if key.id is null then
    perform ledger.refuse(404, 'key_not_found', 'There is no such key.');
  elsif key.revoked_at is null then
    delete from access.key_digests d where d.key_id = key.id;
    delete from public.members m where m.tenant_id = of_tenant and m.user_id = key.id;
    update public.api_keys k set revoked_at = ledger.now(), revoked_by = by_user where k.id = key.id returning k.* into key;
  end if;
  return key;
end $$;

-- The key that a secret belongs to, with the role it has now; no row for a secret we do not know. Notes that it was used,
-- but seldom: most calls only read.
create function ledger.recognise_key(
  given_digest text, out key_id uuid, out tenant_id uuid, out role text, out expires_at timestamptz, out expired boolean
) returns setof record language plpgsql as $$
declare
  used_at timestamptz;
begin
  select k.id, k.tenant_id, m.role, k.expires_at, coalesce(k.expires_at <= ledger.now(), false), k.last_used_at
  into key_id, tenant_id, role, expires_at, expired, used_at
  from access.key_digests d
  join public.api_keys k on k.id = d.key_id
  join public.members m on m.tenant_id = k.tenant_id and m.user_id = k.id
  where d.digest = given_digest;
  if not found then
    return;
  end if;
  if not expired and (used_at is null or used_at < ledger.now() - interval '5 minutes') then
    -- Nobody waits for a date: who finds the row locked leaves it to the other.
    update public.api_keys k set last_used_at = ledger.now()
    where k.id = (select l.id from public.api_keys l where l.id = recognise_key.key_id for no key update skip locked);
  end if;
  return next;
end $$;

revoke all on function
  ledger.create_key(uuid, uuid, text, text, text, text, integer), ledger.revoke_key(uuid, uuid, uuid),
  ledger.recognise_key(text)
from public, anon, authenticated;

-- The tenants that the caller owns: what is about how a tenant is set up is shown to owners only.
create function access.owned_tenants() returns setof uuid
language sql stable security definer set search_path = ''
as $$
  select m.tenant_id from public.members m where m.user_id = (select auth.uid()) and m.role = 'owner'
$$;
revoke all on function access.owned_tenants() from public, anon;
grant execute on function access.owned_tenants() to authenticated;

revoke all on public.api_keys from public, anon, authenticated;
alter table public.api_keys enable row level security;
create policy "owners see their tenant's keys" on public.api_keys
  for select to authenticated using (tenant_id in (select access.owned_tenants()));
grant select on public.api_keys to authenticated;
