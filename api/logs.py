"""The log: one JSON line per record. Each request is one line, written when its answer has gone out whole.

No token, no query string, no body and no file name is ever among it: paths are logged as their templates.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, TextIO

from flask import Response, g, request

from api.incoming import request_id
from tasks.tracing import current_trace_id

ACCESS = "ledgerline.access"
_log = logging.getLogger(ACCESS)


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """See class."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if trace_id := current_trace_id():
            line["trace_id"] = trace_id
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure(level: str, target: TextIO | None = None) -> None:
    """Send everything that is logged in this process to standard output, as JSON lines."""
    handler = logging.StreamHandler(target or sys.stdout)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("ledgerline").setLevel(level)


def log_when_sent(response: Response) -> Response:
    """Log the request at hand once its answer has gone out, or the client has: a stream's when it ends."""
    fields = _describe(response)
    started = g.get("started", time.monotonic())
    if fields["bytes"] is None:
        response.response = _count_bytes(response.iter_encoded(), fields)

    def write() -> None:
        fields["ms"] = round((time.monotonic() - started) * 1000, 1)
        _log.info("%s %s %s", fields["method"], fields["path"], fields["status"], extra={"fields": fields})

    response.call_on_close(write)
    return response


def _measure(response: Response) -> int | None:
    """Bytes of the answer's body; None when that is not known before its end."""
    if request.method == "HEAD" or (response.is_sequence and not response.response):
        return 0
    return response.content_length


def _count_bytes(pieces: Iterable[bytes], fields: dict[str, Any]) -> Iterator[bytes]:
    """The pieces of an answer whose length nobody knows before its end."""
    fields["bytes"] = 0
    for piece in pieces:
        fields["bytes"] += len(piece)
        yield piece


def _describe(response: Response) -> dict[str, Any]:
    caller = g.get("caller")
    # Who sent a token is the caller at once; a key is asked about first.
    machine = caller is not None and g.get("asker") is not caller
    return {
        "request_id": request_id(),
        "method": request.method,
        "path": request.url_rule.rule if request.url_rule else None,
        "status": response.status_code,
        "code": g.get("error_code"),
        "ms": 0.0,
        "bytes": _measure(response),
        "user": caller.user_id if caller else None,
        "key": caller.user_id if machine else None,
        "tenant": g.get("tenant_id"),
        "job": g.get("job_id") or (request.view_args or {}).get("job_id"),
    }
