"""Rows of the ledger as the models that go out. All that the server decides for a client is decided here."""

from __future__ import annotations

from typing import Any

from api.models.artifacts import Artifact, ArtifactLinks
from api.models.batches import Batch, BatchJobs, BatchLinks, BatchSummary, Item, Outcomes
from api.models.documents import Document, DocumentLinks, DocumentSummary, LastJob, LastJobLinks
from api.models.jobs import TERMINAL, Event, Job, JobError, JobLinks, JobSummary, Progress, Step, StepStatus, WaitingFor
from api.models.reviews import Review, ReviewDetail, ReviewLinks
from api.models.streams import ActiveJob, LiveEvent
from api.models.webhooks import Delivery, DeliveryError, DeliveryLinks, Webhook, WebhookLinks
from api.paths import PREFIX, artifact_path, batch_path, document_path, job_path, review_path, webhook_path
from tasks.db import Row

_POLL_MS = {"queued": 1_000, "running": 1_000, "awaiting_review": 30_000}
_POLL_SLOWLY_MS = 5_000
_LONG_QUEUE = 20
# Counting a large batch is work for the database.
_BATCH_POLL_MS = (2_000, 10_000)
_LARGE_BATCH = 10_000
_MOST_TELLING: tuple[StepStatus, ...] = ("running", "failed", "retrying", "gated", "held", "cancelled", "queued")


def show_document(row: Row) -> Document:
    """A row of `api_document`."""
    last = row["last_job"]
    job = LastJob(**last, terminal=is_terminal(last["status"]), links=_last_job_links(last)) if last else None
    return Document(**row | {"last_job": job}, links=_document_links(row))


def show_document_summary(row: Row) -> DocumentSummary:
    """A row of `api_documents`."""
    return DocumentSummary(**row, links=_document_links(row))


def show_summary(row: Row) -> JobSummary:
    """A row of jobs."""
    return JobSummary(**_summary(row))


def show_job(row: Row) -> Job:
    """What `api_job` tells of a job."""
    waiting = WaitingFor(**row["waiting_for"]) if row["waiting_for"] else None
    told = {
        "steps": [show_step(step) for step in row["steps"]],
        "waiting_for": waiting,
        "poll_after_ms": _poll_after_ms(row["status"], waiting),
    }
    return Job(**_summary(row) | told)


def show_step(counted: dict[str, Any]) -> Step:
    """One step's counts."""
    return Step(**{name: counted[name] for name in Step.model_fields if name != "status"}, status=_step_status(counted))


def show_event(row: Row) -> Event:
    """A row of job_events."""
    return Event(**{name: row[name] for name in Event.model_fields})


def show_live_event(row: Row) -> LiveEvent:
    """A row of job_events, with its job's pipeline and document."""
    return LiveEvent(**{name: row[name] for name in LiveEvent.model_fields})


def show_active_job(row: Row) -> ActiveJob:
    """A row of jobs with its latest number."""
    return ActiveJob(**_summary(row))


def show_artifact(row: Row) -> Artifact:
    """A row of artifacts."""
    return Artifact(**row, links=ArtifactLinks(self=artifact_path(row["id"])))


def show_review(row: Row) -> Review:
    """A row of `api_reviews`."""
    return Review(**_review(row))


def show_review_detail(row: Row) -> ReviewDetail:
    """A row of `api_review`."""
    return ReviewDetail(**_review(row))


def show_webhook(row: Row) -> Webhook:
    """A row of webhooks."""
    links = WebhookLinks(self=webhook_path(row["id"]), deliveries=webhook_path(row["id"], "deliveries"))
    return Webhook(**row | {"enabled": row["disabled_at"] is None, "links": links})


def show_delivery(row: Row) -> Delivery:
    """A row of webhook_deliveries."""
    retry = webhook_path(row["webhook_id"], f"deliveries/{row['id']}/retry")
    links = DeliveryLinks(
        webhook=webhook_path(row["webhook_id"]),
        job=job_path(row["job_id"]) if row["job_id"] else None,
        retry=retry if row["status"] != "delivered" else None,
    )
    error = DeliveryError(code=row["error_code"], message=row["error_message"]) if row["error_code"] else None
    return Delivery(**row | {"error": error, "links": links})


def show_batch_summary(row: Row) -> BatchSummary:
    """A row of batches."""
    return BatchSummary(**row, links=_batch_links(row))


def show_batch(row: Row) -> Batch:
    """A row of `api_batch`."""
    outcomes, jobs = Outcomes(**row["outcomes"]), BatchJobs(**row["jobs"])
    over = sum(row["jobs"].get(status, 0) for status in TERMINAL)
    terminal = not row["moving"] and over == sum(row["jobs"].values())
    settled = outcomes.duplicate + outcomes.refused
    waiting = f"{outcomes.waiting} items wait to be taken in." if outcomes.waiting else ""
    percent = (100 * settled + row["done"]) // row["items"]
    told = {
        "links": _batch_links(row),
        "outcomes": outcomes,
        "jobs": jobs,
        "active": not terminal,
        "terminal": terminal,
        "progress": Progress(
            current=settled + over,
            total=row["items"],
            percent=100 if terminal else min(percent, 99),
            message=waiting,
        ),
        "poll_after_ms": None if terminal else _BATCH_POLL_MS[row["items"] > _LARGE_BATCH],
    }
    return Batch(**row | told)


def show_item(row: Row) -> Item:
    """A row of `api_batch_items`."""
    return Item(**row)


def is_terminal(status: str) -> bool:
    """Whether a job of that status is over: told by status alone."""
    return status in TERMINAL


def _summary(row: Row) -> dict[str, Any]:
    terminal = is_terminal(row["status"])
    return row | {
        "active": not terminal,
        "terminal": terminal,
        "progress": Progress(
            current=row["progress_current"],
            total=row["progress_total"],
            percent=row["percent"],
            message=row["progress_message"],
        ),
        "error": JobError(code=row["error_code"], message=row["error_message"]) if row["error_code"] else None,
        "links": _links(row, terminal),
    }


def _batch_links(row: Row) -> BatchLinks:
    return BatchLinks(self=batch_path(row["id"]), items=batch_path(row["id"], "items"))


def _links(row: Row, terminal: bool) -> JobLinks:
    job_id = row["id"]
    return JobLinks(
        self=job_path(job_id),
        events=job_path(job_id, "events"),
        stream=job_path(job_id, "stream"),
        artifacts=job_path(job_id, "artifacts"),
        cancel=None if terminal else job_path(job_id, "cancel"),
        retry=job_path(job_id, "retry") if row["status"] == "failed" else None,
        document=document_path(row["document_id"]) if row["document_id"] else None,
        batch=batch_path(row["batch_id"]) if row["batch_id"] else None,
        review=review_path(row["review_id"]) if row["review_id"] else None,
    )


def _review(row: Row) -> dict[str, Any]:
    is_open = row["status"] == "open"
    links = ReviewLinks(
        self=review_path(row["id"]),
        job=job_path(row["job_id"]),
        artifacts=job_path(row["job_id"], "artifacts"),
        document=document_path(row["document_id"]) if row["document_id"] else None,
        assign=review_path(row["id"], "assign") if is_open else None,
        approve=review_path(row["id"], "approve") if is_open else None,
        reject=review_path(row["id"], "reject") if is_open else None,
        reprocess=review_path(row["id"], "reprocess") if is_open else None,
    )
    return row | {"artifacts": [show_artifact(artifact) for artifact in row["artifacts"]], "links": links}


def _step_status(counted: dict[str, Any]) -> StepStatus:
    """One word for many step runs: what is most worth knowing about them."""
    if counted["finished"]:
        return "skipped" if counted["skipped"] and counted["skipped"] == counted["total"] else "completed"
    return next((status for status in _MOST_TELLING if counted[status]), "pending")


def _poll_after_ms(status: str, waiting: WaitingFor | None) -> int | None:
    if waiting is not None and (waiting.reason == "no_worker" or (waiting.ahead or 0) > _LONG_QUEUE):
        return _POLL_SLOWLY_MS
    return _POLL_MS.get(status)


def _document_links(row: Row) -> DocumentLinks:
    return DocumentLinks(self=document_path(row["id"]), jobs=f"{PREFIX}/jobs?document_id={row['id']}")


def _last_job_links(job: dict[str, Any]) -> LastJobLinks:
    return LastJobLinks(self=job_path(job["id"]))
