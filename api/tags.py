"""Answers with an ETag: a digest of all that they say, so that nobody is sent what they have."""

from __future__ import annotations

import hashlib

from flask import Response, request

TAGGED = {"ETag": "Changes whenever anything in the answer changes."}
UNCHANGED = {304: "Nothing has changed since the ETag in If-None-Match."}


def tag_of(text: str) -> str:
    """The tag of an answer's JSON."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def answer_tagged(text: str, etag: str) -> Response:
    """The JSON with its tag; 304 without it when the client has that already."""
    known = request.if_none_match
    same = bool(known) and known.contains_weak(etag)
    response = Response(status=304) if same else Response(text, mimetype="application/json")
    response.set_etag(etag)
    response.headers["Cache-Control"] = "private, no-cache"
    return response
