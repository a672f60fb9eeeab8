-- A key is a member of its tenant until it is revoked, and its digest is nobody's to see. Run with `supabase test db`, or
-- with pg_prove on a migrated database.
begin;
create extension if not exists pgtap with schema extensions;
set local search_path = extensions, public;
select plan(15);

insert into public.tenants (id, name) values ('00000000-0000-7000-8000-00000000000a', 'A'), ('00000000-0000-7000-8000-00000000000b', 'B');
insert into public.members (tenant_id, user_id, role) values
  ('00000000-0000-7000-8000-00000000000a', '00000000-0000-4000-8000-00000000000a', 'owner'),
  ('00000000-0000-7000-8000-00000000000a', '00000000-0000-4000-8000-00000000000e', 'editor'),
  ('00000000-0000-7000-8000-00000000000b', '00000000-0000-4000-8000-00000000000b', 'owner');
create temp table made as select k.* from ledger.create_key(
  '00000000-0000-7000-8000-00000000000a', '00000000-0000-4000-8000-00000000000a', 'Import', 'editor', 'llk_00000000',
  repeat('d', 64), 30) k;

select results_eq('select m.role from public.members m join made k on m.user_id = k.id', array['editor'], 'a key is a member');
select results_eq($$select expired from ledger.recognise_key(repeat('d', 64))$$, array[false], 'its digest is recognised');
select is_empty($$select * from ledger.recognise_key(repeat('e', 64))$$, 'another digest is not');
select throws_ok(
  $$update public.api_keys set role = 'owner'$$, '23514', null, 'no key is an owner');
select table_privs_are('public', 'api_keys', 'authenticated', '{SELECT}', 'users read keys and do nothing else with them');
select table_privs_are('public', 'api_keys', 'anon', '{}', 'who is not signed in cannot read keys');
select table_privs_are('access', 'key_digests', 'authenticated', '{}', 'users cannot read digests');

select set_config('request.jwt.claims', '{"role": "authenticated", "sub": "00000000-0000-4000-8000-00000000000a"}', true);
set local role authenticated;
select results_eq('select name from public.api_keys', array['Import'], 'an owner sees the keys of the own tenant');
select throws_ok('select * from access.key_digests', '42501', null, 'an owner sees no digest');
select throws_ok('update public.api_keys set revoked_at = null', '42501', null, 'an owner changes no key in SQL');
select set_config('request.jwt.claims', '{"role": "authenticated", "sub": "00000000-0000-4000-8000-00000000000e"}', true);
select is_empty('select name from public.api_keys', 'an editor sees no key');
select set_config('request.jwt.claims', '{"role": "authenticated", "sub": "00000000-0000-4000-8000-00000000000b"}', true);
select is_empty('select name from public.api_keys', 'the owner of another tenant sees none of them');
reset role;

select ledger.revoke_key((select id from made), '00000000-0000-7000-8000-00000000000a', '00000000-0000-4000-8000-00000000000a');
select is_empty('select 1 from public.members m join made k on m.user_id = k.id', 'a revoked key is no member any more');
select is_empty($$select * from ledger.recognise_key(repeat('d', 64))$$, 'and its digest is not recognised');
select isnt((select revoked_at from public.api_keys), null, 'its row stays, and says when');

select * from finish();
rollback;
