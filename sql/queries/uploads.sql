-- Signed uploads: how they are announced, confirmed and cleared away.

-- name: uploads_open
-- Announce an upload; gives when it expires.
select ledger.open_upload(
  %(id)s, %(tenant_id)s, %(user_id)s, %(filename)s, %(title)s, %(bytes)s, %(sha256)s, %(ttl_s)s) as expires_at

-- name: uploads_lock
-- An upload that is to be confirmed, locked until the transaction ends.
select * from ledger.lock_upload(%(id)s, %(tenant_id)s)

-- name: uploads_close
-- The document of an upload is there.
select ledger.close_upload(%(id)s, %(job_id)s)

-- name: uploads_to_clear
-- Uploads that are over and whose objects may still be in the store.
select id, tenant_id from ledger.uploads_to_clear(%(most)s)

-- name: uploads_clear
-- Their objects are gone.
select ledger.clear_uploads(%(uploads)s)
