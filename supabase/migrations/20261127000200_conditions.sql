-- What is looked at whenever a row is written: said once for a statement, and in few words.
--
-- Postgres reads a condition (a CHECK, the WHEN of a trigger) from the catalogue's text again for each statement, which for
-- a statement of one row takes longer than all its indexes do. So lists are single constants, and triggers that have
-- nothing to do are not there.

-- Deliveries of events that just happened. A job's transaction must neither wait nor fail because of a webhook: one that
-- somebody is deleting right now is passed over, and one that is found cannot be deleted before the commit.
drop trigger announce on public.job_events;
create or replace function ledger.announce() returns trigger language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  tenants uuid[] := array(
    select distinct e.tenant_id from fresh e
    where e.kind = any('{submitted,awaiting_review,completed,failed,cancelled,reopened}'::text[]));
begin
  if not exists (select from public.webhooks w where w.tenant_id = any(tenants) and w.disabled_at is null) then
    return null;
  end if;
  insert into public.webhook_deliveries (webhook_id, tenant_id, job_id, seq, kind, payload, status, due_at, created_at)
  select w.id, w.tenant_id, e.job_id, e.seq, e.kind, ledger.describe_event(row(e.*)::public.job_events, j), 'pending',
         ledger.now(), ledger.now()
  from fresh e join public.webhooks w on w.tenant_id = e.tenant_id join public.jobs j on j.id = e.job_id
  where w.disabled_at is null and e.kind = any(w.kinds)
  for key share of w skip locked
  on conflict do nothing;
  return null;
end $$;
create trigger announce after insert on public.job_events referencing new table as fresh
for each statement execute function ledger.announce();

-- The queue's chores keep what they need of Procrastinate's triggers: to be heard, and to leave no schedule behind. Nobody
-- reads their history; when they ran is in `ops.chores`.
drop trigger procrastinate_trigger_status_events_insert_v1 on procrastinate.procrastinate_jobs;
drop trigger procrastinate_trigger_status_events_update_v1 on procrastinate.procrastinate_jobs;
drop trigger procrastinate_trigger_scheduled_events_v1 on procrastinate.procrastinate_jobs;
drop trigger procrastinate_trigger_abort_requested_events_v1 on procrastinate.procrastinate_jobs;
drop trigger forget_chore on procrastinate.procrastinate_jobs;
drop function procrastinate.forget_chore();
delete from procrastinate.procrastinate_events;

-- Not validated: they take what those before them took.
alter table public.jobs
  drop constraint jobs_status_check,
  add constraint jobs_status_check check (
    status = any('{queued,running,awaiting_review,completed,failed,cancelled}'::text[])) not valid,
  drop constraint jobs_check2,
  add constraint jobs_check2 check (
    (status = any('{completed,failed,cancelled}'::text[])) = (finished_at is not null)) not valid;

alter table public.job_steps
  drop constraint job_steps_status_check,
  add constraint job_steps_status_check check (
    status = any('{pending,queued,held,running,retrying,gated,completed,skipped,failed,cancelled}'::text[])) not valid,
  drop constraint job_steps_check,
  add constraint job_steps_check check (
    (status = any('{queued,running}'::text[])) = (queue_job_id is not null)) not valid,
  drop constraint job_steps_check3,
  add constraint job_steps_check3 check (
    (status = any('{completed,skipped}'::text[])) = (result_id is not null)) not valid,
  drop constraint job_steps_check5,
  add constraint job_steps_check5 check (
    (status = any('{completed,skipped,failed,cancelled}'::text[])) = (finished_at is not null)) not valid;

alter table public.job_events
  drop constraint job_events_kind_check,
  add constraint job_events_kind_check check (kind = any(
    '{submitted,started,step_started,progress,step_completed,step_skipped,reused,step_retrying,step_failed,step_released,'
    'gate_opened,gate_assigned,gate_decided,awaiting_review,repaired,completed,failed,cancelled,reopened}'::text[])) not valid;
