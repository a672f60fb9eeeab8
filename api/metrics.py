"""Metrics: how the house is doing, for Prometheus. One answer of any API process tells about all of it."""

from __future__ import annotations

import hmac
from ipaddress import ip_address

from flask import Response, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from api.codes import refuse
from api.contract import Access, Room
from api.figures import Ledger
from api.house import House, house
from api.meter import gauge, read_meters
from tasks.errors import Refused

metrics = Room("metrics", "For monitoring. Also at the root: /metrics.")

_PROXIES = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip")


@metrics.call(
    "GET",
    "/metrics",
    "Metrics",
    access=Access.PUBLIC,
    media="text/plain",
    errors=("metrics_refused",),
)
def show_metrics() -> Response:
    """The text format of Prometheus. For whoever sends `METRICS_TOKEN` as bearer token; while none is set, for callers
    on the same machine, and not for those that come through a proxy.
    """
    desk = house()
    _require_watcher(desk)
    gauge(desk)
    registry = CollectorRegistry()
    read_meters(registry)
    registry.register(Ledger(desk))
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


def _require_watcher(desk: House) -> None:
    token = desk.settings.metrics_token
    if token is None:
        if not _is_neighbour():
            raise _refusal()
    elif not hmac.compare_digest(_sent_token(), token.get_secret_value().encode()):
        raise _refusal()


def _sent_token() -> bytes:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip().encode() if scheme.lower() == "bearer" else b""


def _is_neighbour() -> bool:
    """Whether who asks is on this machine. A proxy on it speaks for others, and says so."""
    try:
        near = ip_address(request.remote_addr or "").is_loopback
    except ValueError:
        near = False
    return near and not any(name in request.headers for name in _PROXIES)


def _refusal() -> Refused:
    return refuse("metrics_refused", "Metrics are for those who watch over this service.")
