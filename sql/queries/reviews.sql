-- What the front door asks and tells about reviews. The questions run as the caller, under row-level security.

-- name: api_reviews
-- A page of a tenant's reviews of one status, with what there is to look at. Open ones: those that wait longest first;
-- others: newest first.
with page as (
  (select r.* from public.reviews r
   where %(status)s::text = 'open' and r.status = 'open' and r.tenant_id = %(tenant_id)s
     and (%(last)s::uuid is null or r.id > %(last)s::uuid)
     and (%(pipeline)s::text is null or r.pipeline = %(pipeline)s::text)
     and (%(document_id)s::uuid is null or r.document_id = %(document_id)s::uuid)
     and (%(assigned_to)s::uuid is null or r.assigned_to = %(assigned_to)s::uuid)
     and (not %(unassigned)s or r.assigned_to is null)
   order by r.id limit %(most)s)
  union all
  (select r.* from public.reviews r
   where %(status)s::text <> 'open' and r.status = %(status)s::text and r.tenant_id = %(tenant_id)s
     and (%(last)s::uuid is null or r.id < %(last)s::uuid)
     and (%(pipeline)s::text is null or r.pipeline = %(pipeline)s::text)
     and (%(document_id)s::uuid is null or r.document_id = %(document_id)s::uuid)
     and (%(assigned_to)s::uuid is null or r.assigned_to = %(assigned_to)s::uuid)
     and (not %(unassigned)s or r.assigned_to is null)
   order by r.id desc limit %(most)s)
)
select p.id, p.job_id, p.pipeline, p.document_id, d.title as document_title, p.step, p.status, p.comment, p.decided_by,
  p.decided_at, p.opened_at, p.expires_at, p.assigned_to, files.listed as artifacts
from page p
left join public.documents d on d.id = p.document_id
cross join lateral (
  select coalesce(jsonb_agg(to_jsonb(f)), '[]') as listed from (
    select a.id, a.job_id, a.step, a.item, a.name, a.media_type, a.bytes, a.sha256, a.created_at
    from public.artifacts a where a.job_id = p.job_id order by a.step, a.item, a.name limit %(most_artifacts)s) f) files
order by case when p.status = 'open' then p.id end, p.id desc

-- name: api_review
-- One review, with what there is to look at, the document's fields as they stand, and the steps to run again from.
select r.id, r.job_id, r.pipeline, r.document_id, d.title as document_title, r.step, r.status, r.comment, r.decided_by,
  r.decided_at, r.opened_at, r.expires_at, r.assigned_to, r.edits, files.listed as artifacts,
  case when d.id is not null then jsonb_build_object('title', d.title, 'summary', d.summary, 'keywords', d.keywords,
    'categories', d.categories, 'language', d.language) end as fields,
  array(select p.name from public.pipeline_steps p
        join public.job_step_totals t on t.job_id = j.id and t.step = p.name and t.opened_at is not null
        where p.graph = j.graph and not p.gate and r.status = 'open' order by p.position) as reprocess_from
from public.reviews r
join public.jobs j on j.id = r.job_id
left join public.documents d on d.id = r.document_id
cross join lateral (
  select coalesce(jsonb_agg(to_jsonb(f)), '[]') as listed from (
    select a.id, a.job_id, a.step, a.item, a.name, a.media_type, a.bytes, a.sha256, a.created_at
    from public.artifacts a where a.job_id = r.job_id order by a.step, a.item, a.name limit %(most_artifacts)s) f) files
where r.id = %(review_id)s and r.tenant_id = %(tenant_id)s

-- name: ledger_decide
-- Decide an open gate, once.
select ledger.decide(%(review_id)s, %(tenant_id)s, %(user_id)s, %(decision)s, %(comment)s, %(from_step)s,
  %(edits)s, %(seen)s) as job

-- name: ledger_assign_review
-- Say who is expected to decide an open gate.
select ledger.assign_review(%(review_id)s, %(tenant_id)s, %(user_id)s, %(to_user)s) as job
