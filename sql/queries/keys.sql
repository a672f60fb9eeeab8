-- API keys. Reading the list runs as the caller, under row-level security.

-- name: key_create
-- Make a key and the member it acts as.
select k.*, true as works from ledger.create_key(
  %(tenant_id)s, %(user_id)s, %(name)s, %(role)s, %(prefix)s, %(digest)s, %(expires_in_days)s) k

-- name: key_revoke
-- Revoke a key; the row as it is then.
select k.*, false as works from ledger.revoke_key(%(key_id)s, %(tenant_id)s, %(user_id)s) k

-- name: api_keys
-- A page of a tenant's keys, newest first, those included that do not work any more.
select k.*, k.revoked_at is null and (k.expires_at is null or k.expires_at > clock_timestamp()) as works
from public.api_keys k
where k.tenant_id = %(tenant_id)s and (%(before)s::uuid is null or k.id < %(before)s::uuid)
order by k.id desc limit %(most)s

-- name: api_enter_by_key
-- Like api_enter, for the machine that a key belongs to: one row, or none when the key is not known. A key stays in its
-- tenant, wherever else somebody has made its id a member.
select k.key_id, k.expires_at, k.expired, e.*
from ledger.recognise_key(%(digest)s) k cross join ledger.enter(k.key_id, %(pipeline)s, %(known)s) e
where e.tenant_id = k.tenant_id
