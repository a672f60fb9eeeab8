"""Webhooks: endpoints of a tenant that are told of its jobs' events, and the log of what they were sent."""

from __future__ import annotations

from uuid import UUID

from flask import Response

from api.codes import refuse
from api.contract import Access, Reply, Room
from api.house import house
from api.models.base import Page
from api.models.webhooks import (
    Deliveries,
    DeliveriesPage,
    Delivery,
    NewWebhook,
    NewWebhookSecret,
    RotatedSecret,
    Webhook,
    WebhookChange,
    Webhooks,
)
from api.paging import cut, read_cursor
from api.paths import webhook_path
from api.people import Member
from api.reading import read, read_one
from api.rows import show_delivery, show_webhook
from tasks.errors import Refused
from tasks.webhooks import registry
from tasks.webhooks.addresses import find_addresses, read_endpoint

webhooks = Room(
    "webhooks",
    "Endpoints that are told what becomes of jobs, by signed requests (Standard Webhooks) that are repeated until they "
    "are taken. For owners only: an address may carry a password of the other side.",
)


@webhooks.call(
    "POST",
    "/webhooks",
    "Register a webhook",
    access=Access.OWN,
    body=NewWebhook,
    gives=NewWebhookSecret,
    status=201,
    gives_headers={"Location": "Path of the webhook."},
    errors=("webhook_url_refused", "too_many_webhooks"),
)
def register_webhook(member: Member, body: NewWebhook) -> Reply:
    """From now on, the endpoint is told of the tenant's events of these kinds. Keep the secret: it is shown once."""
    _check_url(body.url)
    registration = registry.Registration(member.tenant_id, member.user_id, body.url, body.kinds)
    with house().pool.connection() as connection:
        row, secret = registry.add(connection, registration, house().settings.max_webhooks)
    answer = NewWebhookSecret(**show_webhook(row).model_dump(), secret=secret)
    return Reply(answer, headers={"Location": webhook_path(answer.id)})


@webhooks.call(
    "GET",
    "/webhooks",
    "List webhooks",
    access=Access.OWN,
    query=Page,
    gives=Webhooks,
    errors=("cursor_invalid",),
)
def list_webhooks(member: Member, query: Page) -> Webhooks:
    """The tenant's webhooks, newest first, those included that are disabled."""
    before = read_cursor(query.cursor)
    asked = {"tenant_id": member.tenant_id, "before": before, "most": query.limit + 1}
    rows, cursor = cut(read(house(), member.caller, "api_webhooks", **asked), query.limit)
    return Webhooks(webhooks=[show_webhook(row) for row in rows], next_cursor=cursor)


@webhooks.call(
    "GET",
    "/webhooks/<uuid:webhook_id>",
    "Look at a webhook",
    access=Access.OWN,
    gives=Webhook,
    errors=("webhook_not_found",),
)
def look_at_webhook(member: Member, webhook_id: UUID) -> Webhook:
    """One webhook: whether it is enabled and, if not, why; and since when it fails, if it does."""
    row = read_one(house(), member.caller, "api_webhook", webhook_id=webhook_id, tenant_id=member.tenant_id)
    if row is None:
        raise _unknown()
    return show_webhook(row)


@webhooks.call(
    "PATCH",
    "/webhooks/<uuid:webhook_id>",
    "Change a webhook",
    access=Access.OWN,
    body=WebhookChange,
    gives=Webhook,
    errors=("webhook_not_found", "webhook_url_refused"),
)
def change_webhook(member: Member, webhook_id: UUID, body: WebhookChange) -> Webhook:
    """Change its URL or kinds, disable it or enable it again. Disabling fails what is pending, and each of these can be
    retried later. A new URL also holds for what is pending.
    """
    if body.url is not None:
        _check_url(body.url)
    with house().pool.connection() as connection:
        row = registry.change(connection, webhook_id, member.tenant_id, body.url, body.kinds, body.enabled)
    return show_webhook(row)


@webhooks.call(
    "DELETE",
    "/webhooks/<uuid:webhook_id>",
    "Delete a webhook",
    access=Access.OWN,
    status=204,
    errors=("webhook_not_found",),
)
def delete_webhook(member: Member, webhook_id: UUID) -> Response:
    """Forget it, with its secret, what is pending, and its log."""
    with house().pool.connection() as connection:
        registry.remove(connection, webhook_id, member.tenant_id)
    return Response(status=204)


@webhooks.call(
    "POST",
    "/webhooks/<uuid:webhook_id>/rotate-secret",
    "Rotate a webhook's secret",
    access=Access.OWN,
    gives=RotatedSecret,
    errors=("webhook_not_found",),
)
def rotate_secret(member: Member, webhook_id: UUID) -> RotatedSecret:
    """A new secret. For a day every delivery carries two signatures, one of each secret, so that receivers can change
    over without missing any. Rotate twice, and the first secret is worthless at once.
    """
    with house().pool.connection() as connection:
        secret, until = registry.rotate(connection, webhook_id, member.tenant_id)
    return RotatedSecret(secret=secret, previous_valid_until=until)


@webhooks.call(
    "POST",
    "/webhooks/<uuid:webhook_id>/test",
    "Test a webhook",
    access=Access.OWN,
    gives=Delivery,
    status=202,
    errors=("webhook_not_found", "webhook_disabled"),
)
def test_webhook(member: Member, webhook_id: UUID) -> Delivery:
    """Send a `webhook.ping`, on the same way as everything else. What came of it is in the deliveries."""
    with house().pool.connection() as connection:
        return show_delivery(registry.ping(connection, webhook_id, member.tenant_id))


@webhooks.call(
    "GET",
    "/webhooks/<uuid:webhook_id>/deliveries",
    "List a webhook's deliveries",
    access=Access.OWN,
    query=DeliveriesPage,
    gives=Deliveries,
    errors=("webhook_not_found", "cursor_invalid"),
)
def list_deliveries(member: Member, webhook_id: UUID, query: DeliveriesPage) -> Deliveries:
    """The log of what was and will be sent, newest first. Those that ended are kept for WEBHOOK_RETENTION_DAYS."""
    asked = {"webhook_id": webhook_id, "tenant_id": member.tenant_id, "status": query.status}
    page = {"before": read_cursor(query.cursor), "most": query.limit + 1}
    rows = read(house(), member.caller, "api_deliveries", **asked, **page)
    if not rows:
        raise _unknown()
    rows, cursor = cut([row for row in rows if row["id"] is not None], query.limit)
    return Deliveries(deliveries=[show_delivery(row) for row in rows], next_cursor=cursor)


@webhooks.call(
    "POST",
    "/webhooks/<uuid:webhook_id>/deliveries/<uuid:delivery_id>/retry",
    "Retry a delivery",
    access=Access.OWN,
    gives=Delivery,
    status=202,
    errors=("webhook_not_found", "webhook_disabled", "delivery_not_found", "already_delivered"),
)
def retry_delivery(member: Member, webhook_id: UUID, delivery_id: UUID) -> Delivery:
    """Try again at once what failed or waits for its next attempt, with the same `webhook-id`."""
    with house().pool.connection() as connection:
        return show_delivery(registry.retry(connection, delivery_id, webhook_id, member.tenant_id))


def _check_url(url: str) -> None:
    loopback = house().settings.webhook_allow_loopback
    find_addresses(read_endpoint(url, loopback), loopback)


def _unknown() -> Refused:
    return refuse("webhook_not_found", "There is no such webhook.")
