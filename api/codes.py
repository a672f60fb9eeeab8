"""Every error code a client can meet, in one place: its HTTP status and what it means.

`Refused` and `Unavailable` carry the sentence for the user; this table is for developers and for the documents. A
code that is not here never leaves the API: the test client of the tests checks each answer against it.
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.errors import Refused


@dataclass(frozen=True)
class Code:
    """One error code: its status, and what a developer should know about it."""

    status: int
    meaning: str


CODES: dict[str, Code] = {
    # The request itself
    "bad_request": Code(400, "The request is not valid HTTP, or the connection ended before it was whole."),
    "json_broken": Code(400, "The body is not JSON, or holds text that cannot be stored (NUL, half a surrogate pair)."),
    "multipart_broken": Code(400, "The multipart body is damaged or ended early. Nothing was kept."),
    "file_missing": Code(400, "The form has no file under the name `file`."),
    "one_file_only": Code(400, "The form holds more than one file. Upload one document at a time."),
    "cursor_invalid": Code(400, "The cursor does not come from an answer of this list."),
    "idempotency_key_invalid": Code(400, "The Idempotency-Key is not 1 to 255 visible ASCII characters."),
    "not_found": Code(404, "There is nothing at this address."),
    "method_not_allowed": Code(405, "This address does not take that method. `Allow` lists those it takes."),
    "body_too_large": Code(413, "The body is larger than MAX_BODY_BYTES, or of a batch MAX_BATCH_BYTES."),
    "file_too_large": Code(413, "The file is larger than it may be, or than announced; `details`. Nothing was kept."),
    "range_invalid": Code(416, "The file does not have that range of bytes."),
    "media_type_unsupported": Code(415, "The Content-Type is not the one this call takes."),
    "request_invalid": Code(422, "A field is missing, unknown or wrong; `details.problems` says which and why."),
    # Who asks
    "token_missing": Code(401, "There is no `Authorization: Bearer` header."),
    "token_expired": Code(401, "The access token has expired. Refresh the session and try again."),
    "token_invalid": Code(401, "The access token is malformed, not signed by this project, or not meant for it."),
    "key_expired": Code(401, "The API key has expired. An owner of the tenant can make a new one."),
    "key_invalid": Code(401, "The API key is misshapen, unknown or revoked."),
    "ticket_invalid": Code(401, "The stream ticket was used before, has expired or never was. Get another one."),
    "anonymous_refused": Code(403, "Anonymous users have no access. Sign in first."),
    "no_tenant": Code(403, "The user is not a member of any tenant."),
    "tenant_required": Code(400, "The user is a member of several tenants: send `X-Tenant-Id`."),
    "tenant_not_found": Code(404, "The user is not a member of the tenant that `X-Tenant-Id` names."),
    "role_not_allowed": Code(403, "The user's role in this tenant may look but not do this."),
    # Limits: `details` has `limit` (which one), `value`, `current` and `retry_after_s`
    "rate_limited": Code(429, "Too many requests of this member within a minute. Try again after `Retry-After`."),
    "active_jobs_limit_reached": Code(429, "The tenant has as many jobs that are not over as it may have."),
    "queue_depth_limit_reached": Code(429, "As much work waits, of all tenants, as may wait."),
    "storage_limit_reached": Code(429, "The tenant's documents and artifacts would be larger than they may be."),
    # Documents
    "document_not_found": Code(404, "There is no such document in this tenant."),
    "document_in_use": Code(
        409, "A job on it is not over; `details.job_id`, `details.jobs`. Wait, or send `force=true`."
    ),
    "empty_file": Code(422, "The file has no bytes, or only zeros."),
    "unsupported_type": Code(415, "This kind of file is not read here."),
    "type_mismatch": Code(422, "The file's content does not fit the ending of its name."),
    "not_text": Code(422, "The file is named like a text and holds something else."),
    "encrypted_file": Code(422, "The file is locked with a password."),
    "corrupt_file": Code(422, "The file is damaged."),
    "zip_bomb": Code(422, "The file unpacks to an unreasonable size."),
    # Signed uploads
    "upload_not_found": Code(404, "There is no such upload in this tenant."),
    "upload_expired": Code(410, "The upload was not confirmed in time. Announce it again."),
    "upload_incomplete": Code(409, "The bytes are not there, or not all of them. Nothing was kept; send them again."),
    "hash_mismatch": Code(422, "The bytes have another sha256 than announced. Nothing was kept; send them again."),
    # Jobs
    "unknown_pipeline": Code(422, "There is no pipeline of that name. `GET /pipelines` lists them."),
    "params_invalid": Code(422, "The parameters do not fit the pipeline's schema; `details.problems` says where."),
    "document_required": Code(422, "The pipeline needs a document."),
    "document_not_accepted": Code(422, "The pipeline does not take this kind of document."),
    "idempotency_key_reused": Code(
        422, "The key was used for another request before; `details.job_id` or `details.batch_id`."
    ),
    "pipeline_changed": Code(409, "A release changed the pipeline while the request was on its way. Send it again."),
    "try_again": Code(409, "Something else happened at that very moment. Send the request again."),
    "job_not_found": Code(404, "There is no such job in this tenant."),
    "job_is_over": Code(409, "The job has ended already; `details.status` says how."),
    "job_did_not_fail": Code(409, "Only a failed job can be retried; `details.status`."),
    "document_quarantined": Code(409, "Workers died over this document; it is not worked on any more."),
    "newer_job_exists": Code(409, "An equal job was started after this one failed."),
    # Batches
    "batch_not_found": Code(404, "There is no such batch in this tenant."),
    "batch_empty": Code(422, "There is no item in the batch."),
    "too_many_items": Code(413, "The batch has more than MAX_BATCH_ITEMS items. Nothing was kept."),
    "path_invalid": Code(422, "The path does not lead to a file or folder of the tenant's incoming area."),
    "batch_is_over": Code(409, "The batch is over, or was cancelled already."),
    "nothing_failed": Code(409, "No job of the batch has failed."),
    # Streams
    "position_unknown": Code(410, "The position is ahead of this database, as after a restore. Start without it."),
    # Reviews
    "review_not_found": Code(404, "There is no such review in this tenant."),
    "already_decided": Code(409, "Somebody was faster, or it expired; `details.status`, `decided_by`, `decided_at`."),
    "unknown_step": Code(422, "The job's pipeline has no such step to run again from; see `reprocess_from`."),
    "assignee_cannot_decide": Code(422, "The user is no owner, editor or reviewer of this tenant."),
    "document_changed": Code(409, "The document is not what `seen` says; `details.fields` has what differs, as it is."),
    "nothing_to_edit": Code(422, "The review is about no document, so `edits` and `seen` have nothing to refer to."),
    "edits_too_large": Code(422, "Old and new values and the comment together exceed 16 KiB; `details.bytes`."),
    "step_not_reached": Code(409, "The job has not come to that step yet, so it cannot run again from there."),
    # Export
    "exports_busy": Code(503, "EXPORT_CONNECTIONS exports are being sent already. Try again after `Retry-After`."),
    # Keys
    "key_not_found": Code(404, "There is no such API key in this tenant."),
    "too_many_keys": Code(409, "The tenant has as many API keys as it may; `details.limit`. Revoke one first."),
    # Webhooks
    "webhook_not_found": Code(404, "There is no such webhook in this tenant."),
    "webhook_url_refused": Code(422, "A webhook may not lead there; `details.reason` says why."),
    "too_many_webhooks": Code(409, "The tenant has as many webhooks as it may have; `details.limit`."),
    "webhook_disabled": Code(409, "The webhook is disabled, so nothing is sent to it; `details.reason`."),
    "delivery_not_found": Code(404, "There is no such delivery of this webhook."),
    "already_delivered": Code(409, "The endpoint has taken this delivery already."),
    # Files
    "artifact_not_found": Code(404, "There is no such artifact in this tenant."),
    "link_invalid": Code(404, "The link was not made by this API."),
    "link_expired": Code(410, "The link has expired. Ask for a new one."),
    "file_not_found": Code(404, "The bytes are gone."),
    # Watching
    "metrics_refused": Code(403, "Send METRICS_TOKEN; while none is set, only callers on the same machine are told."),
    # Our side
    "internal_error": Code(500, "Something went wrong here. The request id finds it in the log."),
    "database_unavailable": Code(503, "The database is away. Try again after `Retry-After` seconds."),
    "keys_unavailable": Code(503, "The keys that tokens are checked with cannot be fetched. Try again."),
    "storage_unavailable": Code(503, "The file store is away. Nothing was kept."),
    "storage_full": Code(507, "The file store is full. Nothing was kept."),
}

# What any call may answer with, and what each kind of access adds.
EVERYWHERE = ("bad_request", "internal_error", "database_unavailable")
SIGNED_IN = (
    "token_missing", "token_expired", "token_invalid", "key_expired", "key_invalid", "anonymous_refused",
    "keys_unavailable", "rate_limited",
)  # fmt: skip
MEMBERSHIP = ("no_tenant", "tenant_required", "tenant_not_found")

# What starting work may meet, whichever call starts it.
LIMITED = ("active_jobs_limit_reached", "queue_depth_limit_reached")


def refuse(code: str, message: str, **details: object) -> Refused:
    """A refusal with the status its code has."""
    return Refused(code, message, details=details, status=CODES[code].status)
