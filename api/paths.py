"""Addresses, as answers link to them. Without host: a client knows which one it asked."""

from __future__ import annotations

from uuid import UUID

PREFIX = "/api/v1"


def document_path(document_id: UUID) -> str:
    """Of a document."""
    return f"{PREFIX}/documents/{document_id}"


def job_path(job_id: UUID, part: str = "") -> str:
    """Of a job, or of a part of it."""
    return f"{PREFIX}/jobs/{job_id}" + (f"/{part}" if part else "")


def review_path(review_id: UUID, verb: str = "") -> str:
    """Of a review, or of what is done about it."""
    return f"{PREFIX}/review/{review_id}" + (f"/{verb}" if verb else "")


def webhook_path(webhook_id: UUID, part: str = "") -> str:
    """Of a webhook, or of a part of it."""
    return f"{PREFIX}/webhooks/{webhook_id}" + (f"/{part}" if part else "")


def artifact_path(artifact_id: UUID) -> str:
    """Of an artifact."""
    return f"{PREFIX}/artifacts/{artifact_id}"


def batch_path(batch_id: UUID, part: str = "") -> str:
    """Of a batch, or of a part of it."""
    return f"{PREFIX}/batches/{batch_id}" + (f"/{part}" if part else "")
