"""Browsers on other origins: those that ALLOWED_ORIGINS names may use every call, and no others may.

Nothing here is about who calls: that is told by the token, which a page has to hold and send itself. There are no
cookies, so credentials are never allowed.
"""

from __future__ import annotations

import re

from flask import Response, request

from api.house import house

# A browser asks again after this many seconds; none remembers longer than a day, and Chromium two hours.
_REMEMBER_S = 7_200
_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
_EXPOSED = (
    "Location, ETag, Idempotent-Replayed, X-Request-Id, Retry-After, Content-Disposition, "
    "RateLimit, RateLimit-Policy, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset"
)
_NAMES = re.compile(r"[A-Za-z0-9-]{1,64}(?:\s*,\s*[A-Za-z0-9-]{1,64}){0,31}")


def answer_preflight() -> Response | None:
    """The answer to a browser that asks whether a page of an allowed origin may call; None for all else.

    Comes before the token is looked at: a browser asks without one.
    """
    if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers or not _allowed():
        return None
    asked = request.headers.get("Access-Control-Request-Headers", "").strip()
    answer = Response(status=204)
    answer.headers["Access-Control-Allow-Methods"] = _METHODS
    answer.headers["Access-Control-Max-Age"] = str(_REMEMBER_S)
    if _NAMES.fullmatch(asked):
        # Whatever an allowed page wants to send, also what its tools add for tracing.
        answer.headers["Access-Control-Allow-Headers"] = asked
    return answer


def open_to_origin(response: Response) -> None:
    """Let a page of an allowed origin read this answer, errors included."""
    if not house().settings.origins:
        return
    # An answer that is kept on its way must not reach another origin than the one it was made for.
    response.vary.add("Origin")
    origin = _allowed()
    if origin:
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = _EXPOSED


def _allowed() -> str | None:
    """The origin of the page that calls, when it is one of ours."""
    origin = request.headers.get("Origin")
    return origin if origin in house().settings.origins else None
