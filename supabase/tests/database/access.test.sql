-- Members see their own tenant's rows, nobody writes. Run with `supabase test db`, or with pg_prove on a migrated database.
begin;
create extension if not exists pgtap with schema extensions;
set local search_path = extensions, public;
select plan(9);

insert into public.tenants (id, name) values ('00000000-0000-7000-8000-00000000000a', 'A'), ('00000000-0000-7000-8000-00000000000b', 'B');
insert into public.members (tenant_id, user_id, role) values
  ('00000000-0000-7000-8000-00000000000a', '00000000-0000-4000-8000-00000000000a', 'owner'),
  ('00000000-0000-7000-8000-00000000000b', '00000000-0000-4000-8000-00000000000b', 'owner');

select is_empty(
  $$select c.relname from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'
    and not c.relrowsecurity$$,
  'every table in public has row-level security');
select schema_privs_are('ledger', 'authenticated', '{}', 'users cannot look into the schema ledger');
select schema_privs_are('ops', 'authenticated', '{}', 'users cannot look into the schema ops');
select schema_privs_are('procrastinate', 'authenticated', '{}', 'users cannot look into the queue');
select table_privs_are('public', 'jobs', 'authenticated', '{SELECT}', 'users read jobs and do nothing else with them');
select table_privs_are('public', 'jobs', 'anon', '{}', 'who is not signed in cannot read jobs');

select set_config('request.jwt.claims', '{"role": "authenticated", "sub": "00000000-0000-4000-8000-00000000000a"}', true);
set local role authenticated;
select results_eq('select name from public.tenants', array['A'], 'a member sees the own tenant');
select throws_ok('delete from public.tenants', '42501', null, 'a member cannot delete it');
select set_config('request.jwt.claims', '{"role": "authenticated", "sub": "00000000-0000-4000-8000-0000000000ff"}', true);
select is_empty('select name from public.tenants', 'a stranger sees none');

select * from finish();
rollback;
