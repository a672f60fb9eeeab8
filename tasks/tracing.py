"""Which trace the work at hand belongs to, as a W3C traceparent. Light: who sends traces is in `spans`.

Without OTEL_EXPORTER_OTLP_ENDPOINT there is no trace anywhere, and nothing of OpenTelemetry is loaded.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING

from tasks.settings import Settings

if TYPE_CHECKING:
    from tasks.spans import Tracing

_current: ContextVar[str | None] = ContextVar("ledgerline_trace", default=None)


def current_trace() -> str | None:
    """The traceparent of what is going on here."""
    return _current.get()


def current_trace_id() -> str | None:
    """Its trace id, 32 hex digits, for the log."""
    traceparent = _current.get()
    return traceparent.split("-")[1] if traceparent else None


def enter_trace(traceparent: str | None) -> None:
    """What goes on here from now on belongs to that trace, or to none."""
    _current.set(traceparent)


def open_tracing(settings: Settings, service: str) -> Tracing | None:
    """Whoever sends the traces of this process, if the settings say where to. Not before the process has forked: a
    thread sends them. `service`: the name they are shown under."""
    if settings.otel_exporter_otlp_endpoint is None:
        return None
    # What nobody pays for who has no traces.
    from tasks.spans import Tracing

    return Tracing(settings.otel_exporter_otlp_endpoint, service, settings.deploy)


class TraceNote(logging.Filter):
    """Gives each log record `trace`: the trace it belongs to, for the end of its line."""

    def filter(self, record: logging.LogRecord) -> bool:
        """See class."""
        trace_id = current_trace_id()
        record.trace = f" trace={trace_id}" if trace_id else ""
        return True
