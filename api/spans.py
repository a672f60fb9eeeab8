"""A span for each request, when traces are wanted: its template, never its values."""

from __future__ import annotations

from flask import Response, g, request

from api.contract import declared_call
from api.house import house
from api.incoming import request_id
from tasks.tracing import enter_trace

# Asked every few seconds, by programs.
_UNSEEN = ("health", "metrics")


def begin_span() -> None:
    """Begin the span of the request at hand. A `traceparent` that came with it is its parent."""
    tracing = house().tracing
    if tracing is None:
        return
    call = declared_call()
    # One connection may carry several requests, and the trace of the last one would be found here.
    enter_trace(None)
    if call is not None and call.tag in _UNSEEN:
        return
    route = request.url_rule.rule if request.url_rule else None
    known = {"http.request.method": request.method, "http.route": route, "ledgerline.request_id": request_id()}
    g.span = tracing.begin_request(f"{request.method} {route or ''}".strip(), request.headers.get("traceparent"), known)
    enter_trace(g.span.traceparent)


def end_span_when_sent(response: Response) -> Response:
    """End it once the answer has gone out; that of a stream when the stream ends."""
    span = g.get("span")
    if span is None:
        return response
    tenant, job = g.get("tenant_id"), g.get("job_id") or (request.view_args or {}).get("job_id")
    span.say({
        "http.response.status_code": response.status_code,
        "ledgerline.tenant": str(tenant) if tenant else None,
        "ledgerline.job": str(job) if job else None,
    })  # fmt: skip
    if response.status_code >= 500:
        span.fail(str(response.status_code))
    response.call_on_close(span.end)
    return response
