"""Webhooks on the wire: endpoints that are told of events, and the log of what they were sent."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from api.models.base import Answer, Page, Request, example

WebhookKind = Literal["submitted", "awaiting_review", "completed", "failed", "cancelled", "reopened"]
DeliveryStatus = Literal["pending", "delivered", "failed"]

_ID = "01931c40-5d1e-7a11-9c02-7f0b6f0c2a10"
_URL = "https://hooks.example.com/ledgerline"
_KINDS = ["awaiting_review", "completed", "failed", "cancelled"]
_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw8kCk2rPpZ5c="  # noqa: S105 - an example
_WEBHOOK = {
    "id": _ID,
    "url": _URL,
    "kinds": _KINDS,
    "enabled": True,
    "disabled_at": None,
    "disabled_reason": None,
    "failing_since": None,
    "created_by": "5f0c2a52-2a6e-4d2f-9c1e-6f9d0c5a7e11",
    "created_at": "2026-11-23T09:20:00Z",
    "links": {"self": f"/api/v1/webhooks/{_ID}", "deliveries": f"/api/v1/webhooks/{_ID}/deliveries"},
}
_DELIVERY_ID = "01931c41-0b7f-7c2d-8e53-1d5f3c9a4b77"
_JOB_ID = "01931c2f-0d6b-7a40-8c59-8d7d1a4f3e21"
_DELIVERY = {
    "id": _DELIVERY_ID,
    "job_id": _JOB_ID,
    "seq": 57,
    "kind": "completed",
    "status": "pending",
    "attempts": 1,
    "due_at": "2026-11-23T09:31:20Z",
    "answer_status": 500,
    "error": {"code": "refused", "message": "The endpoint answered 500."},
    "payload": {
        "type": "job.completed",
        "timestamp": "2026-11-23T09:31:14.003127Z",
        "data": {
            "tenant_id": "01931c20-0000-7000-8000-000000000001",
            "job_id": _JOB_ID,
            "seq": 57,
            "pipeline": "manuscript",
            "document_id": "01931c2e-8f1a-7c3e-9a55-2f6f0f7c1b10",
            "batch_id": None,
            "status": "completed",
            "stage": "exporting",
            "percent": 100,
            "error": None,
        },
    },
    "created_at": "2026-11-23T09:31:14Z",
    "attempted_at": "2026-11-23T09:31:15Z",
    "finished_at": None,
    "links": {
        "webhook": f"/api/v1/webhooks/{_ID}",
        "job": f"/api/v1/jobs/{_JOB_ID}",
        "retry": f"/api/v1/webhooks/{_ID}/deliveries/{_DELIVERY_ID}/retry",
    },
}


class WebhookLinks(Answer):
    """Where to go from a webhook."""

    self: str
    deliveries: str


class Webhook(Answer):
    """An endpoint that is told what becomes of jobs."""

    model_config = example(**_WEBHOOK)

    id: UUID
    url: str
    kinds: list[WebhookKind] = Field(description="Of which events of a job it is told.")
    enabled: bool
    disabled_at: datetime | None
    disabled_reason: Literal["owner", "gone", "failing"] | None = Field(
        description="`owner`: an owner wanted it so; `gone`: it answered 410; `failing`: it took nothing for days."
    )
    failing_since: datetime | None = Field(
        description="Since when every attempt has failed; null when the last did not."
    )
    created_by: UUID | None
    created_at: datetime
    links: WebhookLinks


class NewWebhookSecret(Webhook):
    """A webhook with its secret, which is shown this once."""

    model_config = example(**_WEBHOOK, secret=_SECRET)

    secret: str = Field(description="What signatures are checked with. It is not shown again.")


class RotatedSecret(Answer):
    """A webhook's new secret, which is shown this once."""

    model_config = example(secret=_SECRET, previous_valid_until="2026-11-24T09:20:00Z")

    secret: str = Field(description="What signatures are checked with from now on. It is not shown again.")
    previous_valid_until: datetime = Field(description="Until then, deliveries are signed with the one before as well.")


class Webhooks(Answer):
    """A page of webhooks, newest first."""

    model_config = example(webhooks=[_WEBHOOK], next_cursor=None)

    webhooks: list[Webhook]
    next_cursor: str | None = Field(description="For the next page; null on the last one.")


class NewWebhook(Request):
    """Where to send what."""

    model_config = example(url=_URL, kinds=_KINDS)

    url: str = Field(min_length=1, max_length=2000, description="https, port 443 or from 1024 up, at a public address.")
    kinds: list[WebhookKind] = Field(
        ["awaiting_review", "completed", "failed", "cancelled"],
        min_length=1,
        max_length=6,
        description="Of which events of a job to tell.",
    )


class WebhookChange(Request):
    """What to change. What is left out, or null, stays."""

    model_config = example(kinds=["completed"], enabled=True)

    url: str | None = Field(None, min_length=1, max_length=2000, description="As for a new webhook.")
    kinds: list[WebhookKind] | None = Field(None, min_length=1, max_length=6, description="As for a new webhook.")
    enabled: bool | None = Field(None, description="False fails what is pending; true begins anew.")


class DeliveryError(Answer):
    """Why the last attempt failed."""

    code: str
    message: str


class DeliveryLinks(Answer):
    """Where to go from a delivery."""

    webhook: str
    job: str | None
    retry: str | None = Field(description="Null when it was delivered.")


class Delivery(Answer):
    """One event on its way to one webhook."""

    model_config = example(**_DELIVERY)

    id: UUID = Field(description="The `webhook-id` of every attempt.")
    job_id: UUID | None = Field(description="Null for a ping.")
    seq: int | None = Field(description="Number of the event in the job's history.")
    kind: WebhookKind | Literal["ping"]
    status: DeliveryStatus
    attempts: int
    due_at: datetime | None = Field(description="When the next attempt is due; during an attempt, when it is given up.")
    answer_status: int | None = Field(description="HTTP status of the last answer.")
    error: DeliveryError | None = Field(description="Of the last attempt, if it failed.")
    payload: dict[str, Any] = Field(description="What is sent.")
    created_at: datetime
    attempted_at: datetime | None
    finished_at: datetime | None
    links: DeliveryLinks


class Deliveries(Answer):
    """A page of deliveries, newest first."""

    model_config = example(deliveries=[_DELIVERY], next_cursor=None)

    deliveries: list[Delivery]
    next_cursor: str | None = Field(description="For the next page; null on the last one.")


class DeliveriesPage(Page):
    """Which deliveries."""

    status: DeliveryStatus | None = Field(None, description="Only deliveries of this status.")
