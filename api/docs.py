"""Docs: the OpenAPI document, and the same as a page that needs nothing from elsewhere."""

from __future__ import annotations

import secrets
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from flask import Flask, Response, current_app, json, render_template

from api.codes import CODES
from api.contract import Access, Room
from api.openapi import describe

docs = Room("docs", "This description, for programs and for people.")

_KEPT = "ledgerline_openapi"


@docs.call("GET", "/openapi.json", "OpenAPI document", access=Access.PUBLIC)
def show_openapi() -> Response:
    """OpenAPI 3.1, made from the same declarations that requests are held to."""
    return Response(json.dumps(document(current_app)), mimetype="application/json")


@docs.call("GET", "/docs", "Documentation page", access=Access.PUBLIC, media="text/html")
def show_docs() -> Response:
    """For people. No script, nothing fetched from elsewhere."""
    nonce = secrets.token_urlsafe(16)
    api = document(current_app)
    page = render_template("docs.html", api=api, codes=CODES, nonce=nonce, resolve=_resolve)
    policy = f"default-src 'none'; style-src 'nonce-{nonce}'; img-src data:; frame-ancestors 'none'"
    return Response(page, mimetype="text/html", headers={"Content-Security-Policy": policy})


def document(app: Flask) -> dict[str, Any]:
    """The OpenAPI document of an app, made once."""
    if _KEPT not in app.extensions:
        rooms = [room for room in app.blueprints.values() if isinstance(room, Room)]
        app.extensions[_KEPT] = describe(app, dict.fromkeys(rooms), _version())
    return dict(app.extensions[_KEPT])


def _resolve(reference: str) -> str:
    """The name of a schema, from the reference to it."""
    return reference.rpartition("/")[2]


@cache
def _version() -> str:
    try:
        return version("ledgerline")
    except PackageNotFoundError:
        return "0"
