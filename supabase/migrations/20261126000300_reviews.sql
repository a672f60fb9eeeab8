-- Reviews: what a reviewer corrected, and who is expected to decide. And the order in which finalised documents leave.

alter table public.reviews
  add column edits jsonb not null default '{}',   -- fields of the document that were corrected: {field: {"from", "to"}}
  add column assigned_to uuid,                    -- who is expected to decide; whoever may decide still may
  add constraint reviews_edits_check check (edits = '{}' or status = 'approved');
create index reviews_by_assignee on public.reviews (tenant_id, assigned_to, status, id);

create index documents_finalised on public.documents (tenant_id, finalised_at, id) where status = 'finalised';

-- Not validated: it takes what the check before it took, and one word more.
alter table public.job_events drop constraint job_events_kind_check;
alter table public.job_events add constraint job_events_kind_check check (kind in (
  'submitted', 'started', 'step_started', 'progress', 'step_completed', 'step_skipped', 'reused', 'step_retrying',
  'step_failed', 'step_released', 'gate_opened', 'gate_assigned', 'gate_decided', 'awaiting_review', 'repaired',
  'completed', 'failed', 'cancelled', 'reopened'
)) not valid;

-- A gate that opens again is expected to be decided by whom it was assigned to before.
create or replace function ledger.ask_reviewer(
  inout job public.jobs, step public.pipeline_steps, run public.job_steps
) language plpgsql as $$
begin
  insert into public.reviews (job_id, tenant_id, pipeline, document_id, step, step_run, opened_at, expires_at,
                              assigned_to)
  values (job.id, job.tenant_id, job.pipeline, job.document_id, step.name, run.id, ledger.now(),
          ledger.now() + make_interval(secs => step.expires_s),
          (select r.assigned_to from public.reviews r where r.job_id = job.id and r.step = step.name
           order by r.id desc limit 1));
  job.stage := step.stage;
  job := ledger.note(job, 'gate_opened', 'A person has to decide here.', '{}', step.name);
end $$;

-- A review that can still be decided, or a refusal that says who decided it. The caller holds its job's row.
create function ledger.open_review(review_id uuid, of_tenant uuid) returns public.reviews language plpgsql as $$
declare
  review public.reviews;
begin
  select r.* into review from public.reviews r where r.id = review_id and r.tenant_id = of_tenant;
  if review.id is null then
    perform ledger.refuse(404, 'review_not_found', 'There is no such review.');
  elsif review.status <> 'open' then
    perform ledger.refuse(409, 'already_decided', format('This was already %s.', review.status), jsonb_build_object(
      'status', review.status, 'decided_by', review.decided_by, 'decided_at', review.decided_at));
  end if;
  return review;
end $$;

-- Deciding -----------------------------------------------------------------------------------------

drop function ledger.decide(uuid, uuid, uuid, text, text, text);

-- Decide an open gate: 'approved' (the job goes on), 'rejected' (it fails), 'reprocessed' (it runs again from a step).
-- `corrected`: fields of the document as the reviewer wants them, for an approval; `seen`: fields as the reviewer saw
-- them. Refuses when somebody was faster, and says who; and when the document is not what the reviewer saw.
create function ledger.decide(
  review_id uuid, of_tenant uuid, by_user uuid, decision text, with_comment text default '', from_step text default null,
  corrected jsonb default '{}', seen jsonb default '{}'
) returns uuid language plpgsql as $$
declare
  job public.jobs := ledger.lock_job((select r.job_id from public.reviews r
                                      where r.id = review_id and r.tenant_id = of_tenant));
  review public.reviews := ledger.open_review(review_id, of_tenant);
begin
  update public.reviews r set
    status = decision, comment = with_comment, decided_by = by_user, decided_at = ledger.now(),
    edits = ledger.compare_fields(review.document_id, corrected, seen)
  where r.id = review.id returning * into review;
  job.status := 'running';
  job.started_at := coalesce(job.started_at, ledger.now());
  job := ledger.note(job, 'gate_decided', with_comment, jsonb_build_object(
                       'decision', decision, 'from_step', from_step, 'edits', ledger.shorten_edits(review.edits)),
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

-- The fields of a document that a reviewer may correct, as they stand; null when there is no document.
create function ledger.document_fields(of_document uuid) returns jsonb language plpgsql stable as $$
begin
  return (select jsonb_build_object('title', d.title, 'summary', d.summary, 'keywords', d.keywords,
                                    'categories', d.categories, 'language', d.language)
          from public.documents d where d.id = of_document);
end $$;

-- What corrections change: {field: {"from", "to"}}, without fields that are like that already. The document's row is not
-- locked: the corrections are applied by a step, later, and whoever holds it may be waiting for this job's row.
create function ledger.compare_fields(of_document uuid, corrected jsonb, seen jsonb) returns jsonb
language plpgsql as $$
declare
  present jsonb := ledger.document_fields(of_document);
  moved jsonb;
begin
  if corrected = '{}' and seen = '{}' then
    return '{}';
  elsif present is null then
    perform ledger.refuse(422, 'nothing_to_edit', 'This review is about no document, so there is nothing to correct.');
  end if;
  select jsonb_object_agg(s.key, present -> s.key) into moved
  from jsonb_each(seen) s where s.value is distinct from present -> s.key;
  if moved is not null then
    perform ledger.refuse(409, 'document_changed', 'The document has changed since you looked at it.',
                          jsonb_build_object('fields', moved));
  end if;
  return coalesce((
    select jsonb_object_agg(c.key, jsonb_build_object('from', present -> c.key, 'to', c.value))
    from jsonb_each(corrected) c where c.value is distinct from present -> c.key), '{}');
end $$;

-- Edits as a line of history holds them: long values are cut, and the review has them whole.
create function ledger.shorten_edits(edits jsonb) returns jsonb language plpgsql immutable as $$
begin
  return coalesce((
    select jsonb_object_agg(e.key, (
      select jsonb_object_agg(side.key, case when length(side.value::text) <= 300 then side.value
                                        else to_jsonb(left(side.value #>> '{}', 300) || '…') end)
      from jsonb_each(e.value) side))
    from jsonb_each(edits) e), '{}');
end $$;

-- The gate's own step run completes with the decision as its result, which has to fit into a row.
create or replace function ledger.pass_gate(inout job public.jobs, review public.reviews, by_user uuid, with_comment text)
language plpgsql as $$
declare
  run public.job_steps;
  kept uuid := ledger.uuid7();
  verdict jsonb := jsonb_build_object('decision', 'approved', 'comment', with_comment, 'by', by_user,
                                      'edits', review.edits);
  hash text := encode(sha256(convert_to(verdict::text, 'UTF8')), 'hex');
begin
  if octet_length(verdict::text) > 16384 then
    perform ledger.refuse(422, 'edits_too_large', 'This corrects more than fits into one decision.',
                          jsonb_build_object('bytes', octet_length(verdict::text), 'limit', 16384));
  end if;
  insert into public.step_results (id, tenant_id, identity, digest, value)
  values (kept, job.tenant_id, encode(sha256(convert_to(review.id::text, 'UTF8')), 'hex'), hash, verdict);
  update public.job_steps s set status = 'completed', result_id = kept, finished_at = ledger.now()
  where s.id = review.step_run returning * into run;
  job := ledger.count_run(job, run);
end $$;

-- Assigning ----------------------------------------------------------------------------------------

-- Say who is expected to decide an open review; null: nobody in particular. A line of history, unless it was so already.
create function ledger.assign_review(review_id uuid, of_tenant uuid, by_user uuid, to_user uuid) returns uuid
language plpgsql as $$
declare
  job public.jobs := ledger.lock_job((select r.job_id from public.reviews r
                                      where r.id = review_id and r.tenant_id = of_tenant));
  review public.reviews := ledger.open_review(review_id, of_tenant);
begin
  if to_user is not null and not exists (
    select from public.members m where m.tenant_id = of_tenant and m.user_id = to_user
      and m.role in ('owner', 'editor', 'reviewer')) then
    perform ledger.refuse(422, 'assignee_cannot_decide', 'That user is no member of this tenant who may decide.',
                          jsonb_build_object('user_id', to_user));
  end if;
  if review.assigned_to is distinct from to_user then
    update public.reviews r set assigned_to = to_user where r.id = review.id;
    job := ledger.note(job, 'gate_assigned',
                       case when to_user is null then 'Nobody in particular is expected to decide.'
                       else 'Somebody is expected to decide.' end,
                       jsonb_build_object('assigned_to', to_user, 'before', review.assigned_to), review.step,
                       actor => by_user);
    perform ledger.save(job);
  end if;
  return job.id;
end $$;

revoke all on all functions in schema ledger from anon, authenticated, public;
