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

revoke all on all functions in schema ledger from anon, authenticated, public;
