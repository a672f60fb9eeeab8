"""Traces by OpenTelemetry: spans that are timed here and sent to a collector, in batches, by a thread of their own."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from opentelemetry import trace as otel
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

Attributes = Mapping[str, str | int | float | None]

_TIMEOUT_S = 5.0
_TRACEPARENT = "traceparent"


class Tracing:
    """Sends the spans of one process. `endpoint`: the collector's base URL; `deploy`: which release this is."""

    def __init__(self, endpoint: str, service: str, deploy: str) -> None:
        # A collector that is away is warned of at each new try; what was lost in the end is enough.
        logging.getLogger("opentelemetry").setLevel(logging.ERROR)
        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=_TIMEOUT_S)
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": service, "deployment.environment.name": deploy}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("ledgerline")
        self._propagator = TraceContextTextMapPropagator()

    def begin_request(self, name: str, parent: str | None, attributes: Attributes) -> Span:
        """Begin the span of a request. `parent`: a traceparent; nonsense is none."""
        return self._begin(name, otel.SpanKind.SERVER, parent, attributes)

    def begin_attempt(self, name: str, parent: str | None, attributes: Attributes) -> Span:
        """The same for an attempt of a step run."""
        return self._begin(name, otel.SpanKind.CONSUMER, parent, attributes)

    def _begin(self, name: str, kind: otel.SpanKind, parent: str | None, attributes: Attributes) -> Span:
        context = self._propagator.extract({_TRACEPARENT: parent} if parent else {})
        begun = Span(self._tracer.start_span(name, context=context, kind=kind))
        begun.say(attributes)
        return begun

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


class Span:
    """Work that is timed until it ends."""

    def __init__(self, span: otel.Span) -> None:
        self._span = span

    @property
    def traceparent(self) -> str:
        """How others say that they belong to it."""
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def say(self, attributes: Attributes) -> None:
        """Add what is known; what is None is not."""
        self._span.set_attributes({name: value for name, value in attributes.items() if value is not None})

    def fail(self, code: str) -> None:
        """Say that it did not work."""
        self._span.set_status(otel.Status(otel.StatusCode.ERROR, code))

    def end(self) -> None:
        """The work is done."""
        self._span.end()
