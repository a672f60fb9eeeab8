-- A job's way through the ledger, in SQL alone: submitted, claimed, failed, reopened, completed; stale writes refused.
begin;
create extension if not exists pgtap with schema extensions;
set local search_path = extensions, public;
select plan(12);

insert into public.tenants (id, name) values ('00000000-0000-7000-8000-00000000000a', 'A');
select ledger.publish(jsonb_build_object(
  'name', 'tapped', 'version', 1, 'title', 'Tapped', 'accepts', '[]'::jsonb, 'params_schema', '{}'::jsonb,
  'steps', jsonb_build_array(jsonb_build_object(
    'name', 'only', 'stage', 'analyzing', 'queue', 'llm', 'version', 1, 'after', '[]'::jsonb, 'map', null,
    'inputs', '[]'::jsonb, 'takes', '[]'::jsonb, 'along', '[]'::jsonb, 'gate', false, 'expires_s', null,
    'allow_failures', 0, 'attempts', 3, 'timeout_s', 60, 'weight', 1))), repeat('a', 64), 'tests');

create temp table job as select (ledger.submit(
  '00000000-0000-7000-8000-0000000000aa', '00000000-0000-7000-8000-00000000000a', null, 'tapped', null, null, '{}')
  ->> 'job')::uuid as id;
create function pg_temp.status() returns text language sql as $$select j.status from public.jobs j join job using (id)$$;

select is(pg_temp.status(), 'queued', 'a job begins queued');
select is_empty('select * from ops.drift', 'and nothing drifts');

create temp table work as
select c.work from ledger.claim('{llm}', '00000000-0000-7000-8000-0000000000bb', null, 1) c;
select is(pg_temp.status(), 'running', 'claiming moves it out of queued');
select is((select (w.work ->> 'attempt')::integer from work w), 1, 'under the first attempt number');

create function pg_temp.fail() returns boolean language sql as $$
  select ledger.fail((w.work ->> 'step_run')::uuid, (w.work ->> 'attempt')::integer, 'broken', 'It broke.', 'secret')
  from work w$$;
select ok(pg_temp.fail(), 'the attempt may fail');
select ok(not pg_temp.fail(), 'once');
select is(pg_temp.status(), 'failed', 'and the job with it');

select throws_like(
  $$select ledger.cancel('00000000-0000-7000-8000-0000000000aa', '00000000-0000-7000-8000-00000000000a', null)$$,
  '%already failed%', 'a failed job cannot be cancelled');
select ledger.retry('00000000-0000-7000-8000-0000000000aa', '00000000-0000-7000-8000-00000000000a', null);
select is(pg_temp.status(), 'queued', 'a person may reopen it');

select ok((
  select ledger.complete((c.work ->> 'step_run')::uuid, (c.work ->> 'attempt')::integer,
                         jsonb_build_object('digest', repeat('d', 64), 'value', 1))
  from ledger.claim('{llm}', '00000000-0000-7000-8000-0000000000bb', null, 1) c), 'the second attempt completes');
select is(pg_temp.status(), 'completed', 'and the job with it');
select results_eq(
  'select e.seq from public.job_events e join job on job.id = e.job_id order by e.seq',
  'select generate_series(1, j.last_seq) from public.jobs j join job using (id)',
  'its history is numbered without a gap');

select * from finish();
rollback;
