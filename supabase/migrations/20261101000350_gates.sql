-- Gates: steps that wait for a person. A gate holds no worker and no queue job; it is a row that is decided once.

create function ledger.open_gate(inout job public.jobs, step public.pipeline_steps) language plpgsql as $$
declare
  run public.job_steps;
begin
  insert into public.job_step_totals (job_id, tenant_id, step, total, opened_at)
  values (job.id, job.tenant_id, step.name, 1, ledger.now());
  insert into public.job_steps (job_id, tenant_id, step, status, queue, created_at)
  values (job.id, job.tenant_id, step.name, 'gated', step.queue, ledger.now()) returning * into run;
  job := ledger.ask_reviewer(job, step, run);
end $$;

create function ledger.ask_reviewer(inout job public.jobs, step public.pipeline_steps, run public.job_steps)
language plpgsql as $$
begin
  insert into public.reviews (job_id, tenant_id, pipeline, document_id, step, step_run, opened_at, expires_at)
  values (job.id, job.tenant_id, job.pipeline, job.document_id, step.name, run.id, ledger.now(),
          ledger.now() + make_interval(secs => step.expires_s));
  job.stage := step.stage;
  job := ledger.note(job, 'gate_opened', 'A person has to decide here.', '{}', step.name);
end $$;

-- Open the gates again that were closed because their job ended.
create function ledger.reopen_gates(inout job public.jobs) language plpgsql as $$
declare
  run public.job_steps;
  step public.pipeline_steps;
begin
  for run in
    select s.* from public.job_steps s join public.pipeline_steps p on p.graph = job.graph and p.name = s.step
    where s.job_id = job.id and s.status = 'pending' and p.gate
  loop
    update public.job_steps s set status = 'gated' where s.id = run.id;
    select * into step from public.pipeline_steps p where p.graph = job.graph and p.name = run.step;
    job := ledger.ask_reviewer(job, step, run);
  end loop;
  if ledger.only_gates_left(job.id) then
    job.status := 'awaiting_review';
    job := ledger.note(job, 'awaiting_review', 'Waiting for a reviewer.');
  end if;
end $$;

-- Decide an open gate: 'approved' (the job goes on), 'rejected' (it fails), 'reprocessed' (it runs again from a step).
-- Refuses when somebody was faster, and says who.
create function ledger.decide(
  review_id uuid, of_tenant uuid, by_user uuid, decision text, with_comment text default '', from_step text default null
) returns uuid language plpgsql as $$
declare
  job public.jobs := ledger.lock_job((select r.job_id from public.reviews r
                                      where r.id = review_id and r.tenant_id = of_tenant));
  review public.reviews;
begin
  select r.* into review from public.reviews r where r.id = review_id and r.tenant_id = of_tenant;
  if review.id is null then
    perform ledger.refuse(404, 'review_not_found', 'There is no such review.');
  elsif review.status <> 'open' then
    perform ledger.refuse(409, 'already_decided', format('This was already %s.', review.status), jsonb_build_object(
      'status', review.status, 'decided_by', review.decided_by, 'decided_at', review.decided_at));
  end if;
  update public.reviews r set
    status = decision, comment = with_comment, decided_by = by_user, decided_at = ledger.now()
  where r.id = review.id;
  job.status := 'running';
  job.started_at := coalesce(job.started_at, ledger.now());
  job := ledger.note(job, 'gate_decided', with_comment, jsonb_build_object('decision', decision, 'from_step', from_step),
                     review.step, actor => by_user);
  if decision = 'approved' then
    job := ledger.pass_gate(job, review, by_user, with_comment);
  elsif decision = 'rejected' then
    job := ledger.close_gate(job, review.step_run, 'rejected',
                             coalesce('A reviewer rejected it: ' || nullif(with_comment, ''), 'A reviewer rejected it.'));
  else
    job := ledger.reprocess(job, from_step, review.step);
  end if;
  perform ledger.save(job);
  return job.id;
end $$;

-- The gate's own step run completes with the decision as its result.
create function ledger.pass_gate(inout job public.jobs, review public.reviews, by_user uuid, with_comment text)
language plpgsql as $$
declare
  run public.job_steps;
  kept uuid := ledger.uuid7();
  verdict jsonb := jsonb_build_object('decision', 'approved', 'comment', with_comment, 'by', by_user);
  hash text := encode(sha256(convert_to(verdict::text, 'UTF8')), 'hex');
begin
  insert into public.step_results (id, tenant_id, identity, digest, value)
  values (kept, job.tenant_id, encode(sha256(convert_to(review.id::text, 'UTF8')), 'hex'), hash, verdict);
  update public.job_steps s set status = 'completed', result_id = kept, finished_at = ledger.now()
  where s.id = review.step_run returning * into run;
  job := ledger.count_run(job, run);
end $$;

-- The gate ends its job.
create function ledger.close_gate(inout job public.jobs, gate_run uuid, code text, sentence text) language plpgsql as $$
declare
  run public.job_steps;
begin
  select s.* into run from public.job_steps s where s.id = gate_run;
  job := ledger.fail_step(job, run, code, sentence);
end $$;

-- Run again from a step: it and everything after it is undone and opened anew, past results are not used again. The
-- history stays, and so does what goes on in other branches. The gate that was decided opens again in any case.
create function ledger.reprocess(inout job public.jobs, from_step text, at_gate text) language plpgsql as $$
declare
  undone text[];
  step public.pipeline_steps;
begin
  select p.* into step from public.pipeline_steps p where p.graph = job.graph and p.name = from_step and not p.gate;
  if step.name is null then
    perform ledger.refuse(422, 'unknown_step', 'There is no such step to run again from.', jsonb_build_object('step', from_step));
  elsif not exists (select from public.job_step_totals t where t.job_id = job.id and t.step = from_step
                    and t.opened_at is not null) then
    perform ledger.refuse(409, 'step_not_reached', 'The job has not come to that step yet.', jsonb_build_object('step', from_step));
  end if;
  with recursive later(name) as (
    select from_step
    union
    select p.name from later l join public.pipeline_steps p
      on p.graph = job.graph and (l.name = any(p.after) or l.name = any(p.along))
  ) select array_agg(l.name) into undone from later l;
  perform ledger.stop_step_runs(job.id, undone || at_gate);
  perform ledger.undo_steps(job, undone);
  job.fresh := true;
  job.status := 'running';
  job.percent := 0;
  job.done_weight := coalesce((
    select sum(p.weight) from public.job_step_totals t
    join public.pipeline_steps p on p.graph = job.graph and p.name = t.step
    where t.job_id = job.id and t.finished_at is not null), 0);
  job := ledger.reopen_all(job);
end $$;

-- Forget what steps did, files included: there may be fewer items or other names this time. Items whose source stays are
-- laid out already and only made ready again.
create function ledger.undo_steps(job public.jobs, undone text[]) returns void language plpgsql as $$
begin
  delete from public.artifacts a where a.job_id = job.id and a.step = any(undone);
  delete from public.job_steps s using public.pipeline_steps p
  where s.job_id = job.id and s.step = any(undone) and p.graph = job.graph and p.name = s.step
    and (p.map is null or p.map = any(undone));
  delete from public.job_step_totals t using public.pipeline_steps p
  where t.job_id = job.id and t.step = any(undone) and p.graph = job.graph and p.name = t.step
    and (p.map is null or p.map = any(undone));
  update public.job_steps s set
    status = 'pending', failures = 0, losses = 0, result_id = null, error_code = null, error_message = null,
    finished_at = null
  where s.job_id = job.id and s.step = any(undone);
  update public.job_step_totals t set completed = 0, failed = 0, opened_at = null, finished_at = null
  where t.job_id = job.id and t.step = any(undone);
end $$;

-- Open every step whose inputs are there and that is not open; and make stopped step runs of open steps move again.
create function ledger.reopen_all(inout job public.jobs) language plpgsql as $$
declare
  next public.pipeline_steps;
begin
  job := ledger.reset_unfinished(job);
  job := ledger.fail_followers(job);
  perform ledger.enqueue(array(
    select s.id from public.job_steps s join public.job_step_totals t on t.job_id = s.job_id and t.step = s.step
    join public.pipeline_steps p on p.graph = job.graph and p.name = s.step
    where s.job_id = job.id and s.status = 'pending' and t.opened_at is not null and not p.gate
      and ledger.item_ready(s, p) order by s.item));
  for next in
    select p.* from public.pipeline_steps p
    left join public.job_step_totals own on own.job_id = job.id and own.step = p.name
    where p.graph = job.graph and own.opened_at is null and not exists (
      select from unnest(p.after) upstream
      left join public.job_step_totals t on t.job_id = job.id and t.step = upstream
      where t.finished_at is null)
    order by p.position
  loop
    job := ledger.open_step(job, next);
  end loop;
  job := ledger.reopen_gates(job);
end $$;

-- Time ----------------------------------------------------------------------------------------------

-- Fail the jobs whose gate nobody decided in time. Returns how many.
create function ledger.expire_gates(only_job uuid default null) returns integer language plpgsql as $$
declare
  review public.reviews;
  job public.jobs;
  expired integer := 0;
begin
  for review in
    select r.* from public.reviews r
    where r.status = 'open' and r.expires_at <= ledger.now() and (only_job is null or r.job_id = only_job)
    order by r.job_id limit 1000
  loop
    job := ledger.try_lock_job(review.job_id);
    continue when job.id is null or not exists (
      select from public.reviews r where r.id = review.id and r.status = 'open');
    update public.reviews r set status = 'expired', decided_at = ledger.now() where r.id = review.id;
    job.status := 'running';
    job := ledger.close_gate(job, review.step_run, 'gate_expired', 'Nobody decided in time.');
    perform ledger.save(job);
    expired := expired + 1;
  end loop;
  return expired;
end $$;

-- Fail the jobs that were to be done by now. Returns how many.
create function ledger.expire_jobs(only_job uuid default null) returns integer language plpgsql as $$
declare
  late record;
  job public.jobs;
  expired integer := 0;
begin
  for late in
    select j.id from public.jobs j
    where j.deadline_at <= ledger.now() and j.status in ('queued', 'running', 'awaiting_review')
      and (only_job is null or j.id = only_job)
    order by j.id limit 1000
  loop
    job := ledger.try_lock_job(late.id);
    continue when job.id is null or job.status not in ('queued', 'running', 'awaiting_review');
    job := ledger.fail_job(job, 'deadline_exceeded', 'It was not done in the time it was given.');
    perform ledger.save(job);
    expired := expired + 1;
  end loop;
  return expired;
end $$;

-- Pausing --------------------------------------------------------------------------------------------

-- Stop beginning new step runs of a queue ('queue', name) or of a tenant ('tenant', id). What runs goes on.
create function ledger.pause(of_scope text, of_name text, why text default '') returns void language plpgsql as $$
declare
  taken bigint[];
begin
  insert into ops.pauses (scope, name, reason, since) values (of_scope, of_name, why, ledger.now())
  on conflict (scope, name) do update set reason = excluded.reason;
  if of_scope = 'tenant' then
    -- Paused rows at the head of the queue would be walked over by every claim: they wait in the ledger instead.
    taken := array(
      select q.id from procrastinate.procrastinate_jobs q where q.status = 'todo' and q.id in (
        select s.queue_job_id from public.job_steps s where s.tenant_id = of_name::uuid and s.status = 'queued')
      for update skip locked);
    update public.job_steps s set status = 'held', queue_job_id = null
    where s.queue_job_id = any(taken) and s.tenant_id = of_name::uuid and s.status = 'queued';
    delete from procrastinate.procrastinate_jobs q where q.id = any(taken);
  end if;
end $$;

-- Go on. False when it was not paused.
create function ledger.resume(of_scope text, of_name text) returns boolean language plpgsql as $$
declare
  was_paused boolean;
begin
  delete from ops.pauses p where p.scope = of_scope and p.name = of_name;
  was_paused := found;
  if of_scope = 'tenant' then
    perform ledger.enqueue(array(
      select s.id from public.job_steps s join public.jobs j on j.id = s.job_id
      where s.tenant_id = of_name::uuid and s.status = 'held'
      order by j.status = 'queued', s.queued_at, s.id for update of s), behind_own => true);
  else
    -- What stood because of the pause gets its full time again before it counts as waiting for nobody.
    insert into ops.pickups (queue, at) values (of_name, ledger.now()) on conflict (queue) do update set at = excluded.at;
    perform ledger.wake(of_name);
  end if;
  return was_paused;
end $$;

-- Stop all jobs of a document that are not over. Returns how many.
create function ledger.cancel_document(of_document uuid, of_tenant uuid, by_user uuid, reason text default '')
returns integer language plpgsql as $$
declare
  live uuid;
  stopped integer := 0;
begin
  for live in
    select j.id from public.jobs j where j.document_id = of_document and j.tenant_id = of_tenant
      and j.status in ('queued', 'running', 'awaiting_review') order by j.id for no key update
  loop
    perform ledger.cancel(live, of_tenant, by_user, reason);
    stopped := stopped + 1;
  end loop;
  return stopped;
end $$;
