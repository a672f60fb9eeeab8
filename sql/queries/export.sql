-- What an export asks, as the caller, under row-level security.

-- name: export_limits
-- For the transaction at hand: how long one fetch may take, and how long nothing may be asked while a reader is slow.
select set_config('statement_timeout', %(fetch_ms)s::text, true),
  set_config('idle_in_transaction_session_timeout', %(idle_ms)s::text, true)

-- name: export_documents
-- A tenant's finalised documents in the order they were finalised, each with the decision of its last gate. For a cursor.
select d.id, d.title, d.filename, d.kind, d.media_type, d.bytes, d.sha256, d.language, d.summary, d.keywords,
  d.categories, d.metadata, d.created_at, d.finalised_at, d.finalised_by as job_id, j.pipeline, r.decision, r.comment,
  r.decided_by, r.decided_at
from public.documents d
left join lateral (select v.pipeline from public.jobs v where v.id = d.finalised_by limit 1) j on true
left join lateral (
  select v.status as decision, v.comment, v.decided_by, v.decided_at from public.reviews v
  where v.job_id = d.finalised_by and v.status = 'approved' order by v.id desc limit 1) r on true
where d.tenant_id = %(tenant_id)s and d.status = 'finalised'
  and (%(finalised_after)s::timestamptz is null or d.finalised_at >= %(finalised_after)s::timestamptz)
  and (%(finalised_before)s::timestamptz is null or d.finalised_at < %(finalised_before)s::timestamptz)
  and (%(pipeline)s::text is null or j.pipeline = %(pipeline)s::text)
order by d.finalised_at, d.id
