-- Documents. The first two run as the caller, under row-level security.

-- name: api_documents
-- A page of a tenant's documents: the newest first, or the most relevant.
select f.relevance, d.id, d.title, d.filename, d.kind, d.media_type, d.bytes, d.sha256, d.status, d.uploaded_by,
  d.created_at, d.summary, d.keywords, d.categories, d.language
from access.find_documents(%(tenant_id)s, %(q)s, %(status)s, %(kind)s, %(uploaded_by)s, %(keyword)s, %(category_name)s,
  %(category_value)s, %(created_after)s, %(created_before)s, %(by_relevance)s, %(last_id)s, %(last_relevance)s,
  %(most)s) f
join public.documents d on d.id = f.id
order by f.relevance desc, f.id desc

-- name: api_document
-- One document, with the last job on it.
select d.*, last.job as last_job
from public.documents d
left join lateral (
  select jsonb_build_object('id', j.id, 'pipeline', j.pipeline, 'status', j.status, 'stage', j.stage,
                            'percent', j.percent) as job
  from public.jobs j where j.document_id = d.id order by j.id desc limit 1) last on true
where d.id = %(document_id)s and d.tenant_id = %(tenant_id)s

-- name: documents_add
-- Record an uploaded document; beside it the first one of the tenant with the same bytes.
select d.*, (
  select min(o.id::text)::uuid from public.documents o
  where o.tenant_id = d.tenant_id and o.sha256 = d.sha256 and o.id <> d.id) as duplicate_of
from ledger.add_document(
  %(id)s, %(tenant_id)s, %(user_id)s, %(title)s, %(filename)s, %(kind)s, %(media_type)s, %(bytes)s, %(sha256)s) d

-- name: documents_delete
-- Remove a document and all that was made of it.
select ledger.delete_document(%(document_id)s, %(tenant_id)s, %(user_id)s, %(force)s) as jobs

-- name: bytes_announce
-- Say that bytes are about to be stored, before they are.
select ledger.announce_bytes(%(tenant_id)s, %(digests)s, %(for_s)s)

-- name: bytes_take_loose
-- What is due among the bytes that nobody may name; those that must go stay locked until the transaction ends.
select looked_at, nameless from ledger.take_loose_bytes(%(most)s)

-- name: bytes_unread_results
-- Results in Storage of which it is not known yet what they point to.
select id, tenant_id, blob, artifacts from ledger.unread_results(%(most)s)

-- name: bytes_note_blobs
-- Write down what such a result points to.
select ledger.note_blobs(%(result)s, %(digests)s)
