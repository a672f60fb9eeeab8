"""The ledger, as the front door and the command use it: submit, cancel, retry, publish, repair.

Every function is one statement on the caller's connection, and joins the caller's transaction when there is one.
What workers do with attempts is in `engine.attempts`. Refusals of the ledger arrive as `errors.Refused`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, cast
from uuid import UUID

import psycopg
import uuid_utils.compat as uuids
from psycopg.types.json import Jsonb

from tasks.db import Row, refusals, statement
from tasks.errors import Refused
from tasks.pipeline import Pipeline
from tasks.settings import Settings
from tasks.tracing import current_trace

Connection = psycopg.Connection[Row]

# Of the settings, what the ledger's functions hold tenants to; and what one tenant can have of its own.
RELEASED_LIMITS = ("max_active_jobs", "max_stored_bytes", "max_queue_depth")
TENANT_LIMITS = ("active_jobs", "stored_bytes", "upload_bytes", "requests_per_minute")

# Upper ends, in seconds, of what `ops.attempt_counts` has as `buckets`; one more counts what took longer.
ATTEMPT_BUCKETS = (0.01, 0.1, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0)


@dataclass(frozen=True)
class Submission:
    """A request for a job. `graph` is the digest the parameters were checked against."""

    tenant_id: UUID
    user_id: UUID | None
    pipeline: str
    graph: str | None = None
    document_id: UUID | None = None
    params: dict[str, Any] | None = None
    idempotency_key: str | None = None
    fresh: bool = False
    deadline_s: float | None = None


@dataclass(frozen=True)
class Submitted:
    """The job that answers a submission; `created` is False when an equal request made it before."""

    job_id: UUID
    created: bool


@dataclass(frozen=True)
class Order:
    """A submission by the user of these claims, who is shown the job. `most_ahead`: how far the queue before it is
    counted. `role`: what the user is to be proven to be; None when that is known. `trace`: what the job's traces belong
    to."""

    submission: Submission
    claims: dict[str, Any]
    most_ahead: int
    role: str | None = None
    trace: str | None = None


@dataclass(frozen=True)
class Seen:
    """What became of an order: whether the job is a new one, and what the user may see of it, as `access.look_at_job`
    tells it."""

    created: bool
    look: Row | None


def new_id() -> UUID:
    """A UUIDv7: sorts by birth."""
    return uuids.uuid7()


def submit(connection: Connection, submission: Submission) -> Submitted:
    """Make a job, or find the one an equal request made. Raises Refused with the reason."""
    with _carrying_trace(connection):
        answer = _one(connection, "ledger_submit", _order(submission))["submitted"]
    return Submitted(UUID(answer["job"]), answer["created"])


def submit_together(connection: Connection, orders: list[Order]) -> list[Seen | Exception]:
    """Submit several in one call and one transaction, each with a look at its job.

    What is refused is refused alone. When the database cannot take them as a whole, each is submitted by itself, so
    that one cannot spoil the others.
    """
    asked = [_describe(order, nr) for nr, order in enumerate(orders)]
    try:
        rows = connection.execute(statement("ledger_submit_together"), {"orders": Jsonb(asked)}).fetchall()
    except (psycopg.DataError, psycopg.IntegrityError, psycopg.InternalError, psycopg.errors.DeadlockDetected) as error:
        if len(orders) == 1:
            return [_refusal_in(error)]
        return [seen for order in orders for seen in submit_together(connection, [order])]
    found = {row["nr"]: row["answer"] for row in rows}
    return [_see(found[nr]) for nr in range(len(orders))]


def _describe(order: Order, nr: int) -> dict[str, Any]:
    wanted = vars(order.submission) | {"job_id": new_id(), "params": order.submission.params or {}}
    words = {name: str(value) if isinstance(value, UUID) else value for name, value in wanted.items()}
    asker = {
        "claims": json.dumps(order.claims),
        "most_ahead": order.most_ahead,
        "role": order.role,
        "trace": order.trace,
    }
    return words | asker | {"nr": nr}


def _see(answer: dict[str, Any]) -> Seen | Refused:
    if refused := answer.get("refused"):
        return Refused(
            refused["code"], refused["message"], details=refused["details"], status=int(refused["state"][2:])
        )
    return Seen(answer["created"], answer["look"])


def _refusal_in(error: Exception) -> Exception:
    try:
        with refusals():
            raise error
    except Exception as found:
        return found


@contextmanager
def _carrying_trace(connection: Connection) -> Iterator[None]:
    """Jobs that are submitted within belong to the trace that is going on. What is sent together is one round trip and
    one transaction, which the trace is said for."""
    trace = current_trace()
    if trace is None:
        yield
        return
    with connection.pipeline():
        connection.execute(statement("ledger_carry_trace"), {"trace": trace})
        yield


def add_document(connection: Connection, document: dict[str, Any]) -> Row:
    """Record an uploaded document: id, tenant_id, user_id, title, filename, kind, media_type, bytes, sha256.

    The row says in `duplicate_of` which document had the same bytes first, if one had. Bytes are announced before.
    """
    return _one(connection, "documents_add", document)


def announce_bytes(connection: Connection, tenant_id: UUID, digests: list[str], for_s: float) -> None:
    """Say that bytes are about to be stored. A row must name them within `for_s` seconds, or they are deleted again."""
    _one(connection, "bytes_announce", {"tenant_id": tenant_id, "digests": digests, "for_s": for_s})


def delete_document(
    connection: Connection, document_id: UUID, tenant_id: UUID, user_id: UUID | None, force: bool = False
) -> int:
    """Remove a document, its jobs and all they made; returns how many jobs.

    Raises Refused when there is none, or when a job of it is not over; with `force` that is cancelled first.
    """
    arguments = {"document_id": document_id, "tenant_id": tenant_id, "user_id": user_id, "force": force}
    return int(_one(connection, "documents_delete", arguments)["jobs"])


def open_upload(connection: Connection, upload: dict[str, Any]) -> datetime:
    """Announce an upload: id, tenant_id, user_id, filename, title, bytes, sha256, ttl_s. Returns when it expires."""
    return cast(datetime, _one(connection, "uploads_open", upload)["expires_at"])


def lock_upload(connection: Connection, upload_id: UUID, tenant_id: UUID) -> Row:
    """An open or confirmed upload, locked until the transaction ends. Raises Refused when there is none, or expired."""
    return _one(connection, "uploads_lock", {"id": upload_id, "tenant_id": tenant_id})


def close_upload(connection: Connection, upload_id: UUID, job_id: UUID | None) -> None:
    """The document of an upload is there, and perhaps a job on it."""
    _one(connection, "uploads_close", {"id": upload_id, "job_id": job_id})


def cancel(connection: Connection, job_id: UUID, tenant_id: UUID, user_id: UUID | None, reason: str = "") -> str:
    """Stop a job; returns its status before. Raises Refused when there is none or it is over."""
    arguments = {"job_id": job_id, "tenant_id": tenant_id, "user_id": user_id, "reason": reason}
    return str(_one(connection, "ledger_cancel", arguments)["before"])


def retry(connection: Connection, job_id: UUID, tenant_id: UUID, user_id: UUID | None) -> None:
    """Reopen a failed job where it failed. Raises Refused when there is none or it did not fail."""
    _one(connection, "ledger_retry", {"job_id": job_id, "tenant_id": tenant_id, "user_id": user_id})


def release_settings(connection: Connection, settings: Settings) -> None:
    """Tell the database what its own sweep (pg_cron) must know, and what its functions allow."""
    _one(connection, "ledger_release_settings", reconcile_arguments(settings))
    _one(connection, "ledger_release_limits", {name: getattr(settings, name) for name in RELEASED_LIMITS})


def limit_tenant(connection: Connection, tenant_id: UUID, own: dict[str, int | None]) -> Row:
    """Change limits of one tenant, of those in TENANT_LIMITS; None: as for everybody. Gives all that it has then."""
    return _one(connection, "ledger_limit_tenant", {"tenant_id": tenant_id, "own": Jsonb(own)})


def check_storage(connection: Connection, tenant_id: UUID, size: int) -> None:
    """Raise Refused `storage_limit_reached` when the tenant may not have so many more bytes."""
    _one(connection, "ledger_check_storage", {"tenant_id": tenant_id, "bytes": size})


def mend_positions(connection: Connection) -> int:
    """After a restore into another server: put old events below those to come. Returns how many were moved."""
    return int(_one(connection, "ledger_mend_positions", {})["moved"])


def make_ticket(connection: Connection, ticket: dict[str, Any]) -> float:
    """Keep a stream ticket: digest, user_id, tenant_id, claims, session_ends (seconds since 1970), ttl_s. Returns the
    seconds for which it is good."""
    kept = ticket | {"claims": Jsonb(ticket["claims"])}
    return float(_one(connection, "ledger_make_ticket", kept)["good_for_s"])


def take_ticket(connection: Connection, digest: str) -> Row | None:
    """Use up a stream ticket: user_id, tenant_id, claims and session_ends; None when it was used or has expired."""
    return connection.execute(statement("ledger_take_ticket"), {"digest": digest}).fetchone()


def publish(connection: Connection, pipelines: Iterable[Pipeline], deploy: str) -> list[str]:
    """Make these pipelines the current ones, and retire all others. Returns their names."""
    names = []
    with connection.transaction():
        for pipeline in pipelines:
            graph = {"graph": Jsonb(pipeline.graph()), "digest": pipeline.digest(), "deploy": deploy}
            _one(connection, "ledger_publish", graph)
            names.append(pipeline.name)
        connection.execute(statement("ledger_retire_pipelines"), {"kept": names})
    return names


def decide(
    connection: Connection,
    review_id: UUID,
    tenant_id: UUID,
    user_id: UUID | None,
    decision: Literal["approved", "rejected", "reprocessed"],
    comment: str = "",
    from_step: str | None = None,
    edits: dict[str, Any] | None = None,
    seen: dict[str, Any] | None = None,
) -> UUID:
    """Decide an open gate; returns its job. Raises Refused when it is decided already, and says by whom.

    `edits`: fields of the document as they are to be, for an approval. `seen`: fields as the reviewer saw them; raises
    Refused when they are different by now.
    """
    arguments = {
        "review_id": review_id,
        "tenant_id": tenant_id,
        "user_id": user_id,
        "decision": decision,
        "comment": comment,
        "from_step": from_step,
        "edits": Jsonb(edits or {}),
        "seen": Jsonb(seen or {}),
    }
    return UUID(str(_one(connection, "ledger_decide", arguments)["job"]))


def assign_review(
    connection: Connection, review_id: UUID, tenant_id: UUID, user_id: UUID | None, to_user: UUID | None
) -> UUID:
    """Say who is expected to decide an open gate (None: nobody in particular); returns its job.

    Raises Refused when it is decided already, or when that user may not decide.
    """
    arguments = {"review_id": review_id, "tenant_id": tenant_id, "user_id": user_id, "to_user": to_user}
    return UUID(str(_one(connection, "ledger_assign_review", arguments)["job"]))


def pause(connection: Connection, scope: Literal["queue", "tenant"], name: str, reason: str = "") -> None:
    """Begin nothing more of a queue, or of a tenant. What runs goes on."""
    _one(connection, "ledger_pause", {"scope": scope, "name": name, "reason": reason})


def resume(connection: Connection, scope: Literal["queue", "tenant"], name: str) -> bool:
    """Go on; False when it was not paused."""
    return bool(_one(connection, "ledger_resume", {"scope": scope, "name": name})["was_paused"])


def cancel_document(
    connection: Connection, document_id: UUID, tenant_id: UUID, user_id: UUID | None, reason: str = ""
) -> int:
    """Stop all jobs of a document that are not over; returns how many."""
    arguments = {"document_id": document_id, "tenant_id": tenant_id, "user_id": user_id, "reason": reason}
    return int(_one(connection, "ledger_cancel_document", arguments)["stopped"])


def reconcile(connection: Connection, settings: Settings, job_id: UUID | None = None) -> int:
    """Repair what died, for all jobs or for one. Returns the number of repairs."""
    return int(_one(connection, "ledger_reconcile", reconcile_arguments(settings, job_id))["repairs"])


def reconcile_arguments(settings: Settings, job_id: UUID | None = None) -> dict[str, Any]:
    """What the ledger's reconcile function is told: every caller tells it the same."""
    return {
        "lease_s": settings.lease_s,
        "queue_timeout_s": settings.queue_timeout_s,
        "max_losses": settings.max_losses,
        "job_id": job_id,
    }


def current_pipelines(connection: Connection) -> list[Row]:
    """The published pipelines: name, graph digest, version, title, accepts, params_schema (JSON Schema)."""
    return connection.execute(statement("pipelines_current")).fetchall()


def _order(submission: Submission) -> dict[str, Any]:
    return vars(submission) | {"job_id": new_id(), "params": Jsonb(submission.params or {})}


def _one(connection: Connection, name: str, arguments: dict[str, Any]) -> Row:
    with refusals():
        row = connection.execute(statement(name), arguments).fetchone()
    assert row is not None, name
    return row
