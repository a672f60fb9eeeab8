-- name: ledger_submit
-- One call: job, first step runs, their queue jobs and the first event, or the job an equal request made before.
select ledger.submit(
  %(job_id)s, %(tenant_id)s, %(user_id)s, %(pipeline)s, %(graph)s, %(document_id)s, %(params)s,
  %(idempotency_key)s, %(fresh)s, %(deadline_s)s) as submitted

-- name: ledger_submit_together
-- The same for several, each with a look at the job as the user of its claims.
select * from ledger.submit_together(%(orders)s)

-- name: ledger_carry_trace
-- The trace that jobs submitted in this transaction belong to.
select set_config('ledger.trace', %(trace)s, true)

-- name: ledger_cancel
-- Stop a job; gives its status before.
select ledger.cancel(%(job_id)s, %(tenant_id)s, %(user_id)s, %(reason)s) as before

-- name: ledger_retry
-- Reopen a failed job where it failed.
select ledger.retry(%(job_id)s, %(tenant_id)s, %(user_id)s)

-- name: ledger_pause
-- Begin nothing more of a queue or a tenant.
select ledger.pause(%(scope)s, %(name)s, %(reason)s)

-- name: ledger_resume
-- Go on with a queue or a tenant.
select ledger.resume(%(scope)s, %(name)s) as was_paused

-- name: ledger_cancel_document
-- Stop all live jobs of a document.
select ledger.cancel_document(%(document_id)s, %(tenant_id)s, %(user_id)s, %(reason)s) as stopped

-- name: ledger_publish
-- Publish one pipeline's graph and make it current.
select ledger.publish(%(graph)s, %(digest)s, %(deploy)s)

-- name: ledger_retire_pipelines
-- Retire the pipelines that this release does not have.
select ledger.retire_pipelines(%(kept)s)

-- name: ledger_release_settings
-- Tell the database what its own sweep must know.
select ledger.release_settings(%(lease_s)s, %(queue_timeout_s)s, %(max_losses)s)

-- name: ledger_release_limits
-- Tell the database what is allowed to tenants without limits of their own.
select ledger.release_limits(%(max_active_jobs)s, %(max_stored_bytes)s, %(max_queue_depth)s)

-- name: ledger_limit_tenant
-- Change some limits of one tenant.
select * from ledger.limit_tenant(%(tenant_id)s, %(own)s)

-- name: ledger_check_storage
-- Refuse more bytes than the tenant may have.
select ledger.check_storage(%(tenant_id)s, %(bytes)s)

-- name: ledger_reconcile
-- Repair what died, for all jobs or for one.
select ledger.reconcile(%(lease_s)s, %(queue_timeout_s)s, %(max_losses)s, %(job_id)s) as repairs

-- name: pipelines_current
-- The pipelines a job can be submitted for, with what their parameters must look like.
select g.name, g.digest as graph, g.version, g.title, g.accepts, g.params_schema
from public.pipelines p join public.pipeline_graphs g on g.digest = p.graph
where p.retired_at is null order by g.name
