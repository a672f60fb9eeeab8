"""Every error, whatever its cause, as the one envelope: {"error": {"code", "message", "details"}}."""

from __future__ import annotations

import logging
import math

import psycopg
from flask import Flask, Response, g
from psycopg_pool import PoolClosed, PoolTimeout
from werkzeug.exceptions import HTTPException

from api.codes import CODES
from api.incoming import request_id
from api.models.base import Error, ErrorBody
from tasks.errors import LedgerlineError

# What HTTP itself can refuse, by status.
_OF_HTTP = {
    404: ("not_found", "There is nothing at this address."),
    405: ("method_not_allowed", "This address does not take that method."),
    413: ("body_too_large", "The body is too large."),
    415: ("media_type_unsupported", "This call does not take that Content-Type."),
    416: ("range_invalid", "The file does not have that range of bytes."),
}
_BAD_REQUEST = ("bad_request", "The request is not valid, or ended before it was whole.")
_RETRY_AFTER_S = "2"

_log = logging.getLogger("ledgerline.api")


def register(app: Flask) -> None:
    """Answer every error of an app in the envelope."""
    app.register_error_handler(LedgerlineError, _ours)
    app.register_error_handler(HTTPException, _of_http)
    for kind in (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout, PoolClosed):
        app.register_error_handler(kind, _database_away)
    app.register_error_handler(Exception, _unforeseen)


def _ours(error: LedgerlineError) -> Response:
    if error.code not in CODES:
        _log.error("request %s: %s is not a code of the API", request_id(), error.code)
    if error.detail:
        _log.warning("request %s: %s: %s", request_id(), error.code, error.detail)
    return _envelope(error.status, error.code, error.message, error.details, _advise(error) | error.headers)


def _advise(error: LedgerlineError) -> dict[str, str]:
    """When to try again, if the error says so."""
    after_s = error.details.get("retry_after_s")
    return {} if after_s is None else {"Retry-After": str(math.ceil(after_s))}


def _of_http(error: HTTPException) -> Response:
    status = error.code or 500
    if status >= 500:
        return _unforeseen(error)
    code, message = _OF_HTTP.get(status, _BAD_REQUEST)
    headers = {name: value for name, value in error.get_headers() if name in ("Allow", "Content-Range")}
    return _envelope(CODES[code].status, code, message, {}, headers)


def _database_away(error: Exception) -> Response:
    _log.warning("request %s: the database is away: %s", request_id(), error)
    message = "The service cannot reach its database right now. Please try again in a moment."
    return _envelope(503, "database_unavailable", message, {}, {"Retry-After": _RETRY_AFTER_S})


def _unforeseen(error: Exception) -> Response:
    _log.error("request %s failed", request_id(), exc_info=error)
    message = "Something went wrong on our side. Please tell us the request id."
    return _envelope(500, "internal_error", message, {"request_id": request_id()}, {})


def _envelope(status: int, code: str, message: str, details: dict[str, object], headers: dict[str, str]) -> Response:
    g.error_code = code
    body = Error(error=ErrorBody(code=code, message=message, details=details))
    return Response(body.model_dump_json(), status, headers, mimetype="application/json")
