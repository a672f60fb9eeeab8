"""OpenAPI 3.1, made from the declarations of the calls: what is not declared is not promised, and the reverse."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from flask import Flask
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.codes import CODES
from api.contract import JSON, MEMBERS, Access, Call, Room
from api.headers import TENANT
from api.models.base import Error
from api.paths import PREFIX
from api.people import TENANT_HEADER
from api.relations import links_of
from api.tickets import TICKET

Json = dict[str, Any]

_BYTES: Json = {"type": "string", "format": "binary"}
_TEMPLATE = "#/components/schemas/{model}"
_PATH_PART = re.compile(r"<(?:(?P<kind>\w+):)?(?P<name>\w+)>")
_SCHEMES: Json = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "The access token of a user's Supabase session.",
    },
    "key": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "llk_",
        "description": "An API key of a tenant, for machines. See `POST /keys`.",
    },
    "ticket": {
        "type": "apiKey",
        "in": "query",
        "name": TICKET,
        "description": "Good once, where no header can be sent. See `POST /stream-tickets`.",
    },
}
_INTRODUCTION = """\
Upload a document, start a job, and watch it: by polling, by long polling or as a stream of events.

Send `Authorization: Bearer <access token>` of your Supabase session with every call that is not public. Users who are \
members of several tenants also send `X-Tenant-Id`. Machines send an API key, `llk_...`, in place of the token. Every \
error has the same envelope, and every answer an `X-Request-Id`."""


def describe(app: Flask, rooms: Iterable[Room], version: str) -> Json:
    """The whole document."""
    rooms = list(rooms)
    calls = list_calls(app)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Ledgerline", "version": version, "description": _INTRODUCTION},
        "servers": [{"url": "/"}],
        "tags": [{"name": room.name, "description": room.about} for room in rooms],
        "paths": _paths(calls),
        "components": {
            "securitySchemes": _SCHEMES,
            "schemas": _schemas(calls),
        },
    }


def list_calls(app: Flask) -> list[Call]:
    """The declared calls of an app, in the order they were registered."""
    found = [getattr(view, "call", None) for view in app.view_functions.values()]
    return list({id(call): call for call in found if call is not None}.values())


def full_path(call: Call) -> str:
    """A call's path as OpenAPI writes it."""
    return PREFIX + _PATH_PART.sub(lambda part: f"{{{part['name']}}}", call.path)


def _paths(calls: list[Call]) -> Json:
    paths: defaultdict[str, Json] = defaultdict(dict)
    for call in calls:
        operation = paths[full_path(call)][call.method.lower()] = _operation(call)
        if links := links_of(call, calls):
            operation["responses"][str(call.status)]["links"] = links
    return dict(paths)


def _operation(call: Call) -> Json:
    operation: Json = {
        "tags": [call.tag],
        "summary": call.summary,
        "description": f"{call.description}\n\nOpen to {call.access.value}.".strip(),
        "operationId": call.operation_id,
        "parameters": [*_path_parameters(call), *_query_parameters(call), *_header_parameters(call)],
        "responses": {str(status): answer for status, answer in sorted(_responses(call).items())},
        "security": _security(call),
    }
    if call.body or call.form or call.takes:
        operation["requestBody"] = _request_body(call)
    return operation


def _security(call: Call) -> list[Json]:
    """Either of these. What takes an owner takes a person: no key is one."""
    schemes = {Access.PUBLIC: [], Access.OWN: ["token"]}.get(call.access, ["token", "key"])
    return [{scheme: []} for scheme in (*schemes, *(["ticket"] if call.ticket else []))]


def _path_parameters(call: Call) -> list[Json]:
    return [
        {
            "name": part["name"],
            "in": "path",
            "required": True,
            "schema": {"type": "string"} | ({"format": "uuid"} if part["kind"] == "uuid" else {}),
        }
        for part in _PATH_PART.finditer(call.path)
    ]


def _query_parameters(call: Call) -> list[Json]:
    schema = call.query.model_json_schema() if call.query else {}
    return [
        {"name": name, "in": "query", "description": part.pop("description", ""), "schema": _without_null(part)}
        for name, part in schema.get("properties", {}).items()
    ]


def _without_null(schema: Json) -> Json:
    """A query cannot say null: what may be null is simply left out."""
    kinds = [kind for kind in schema.pop("anyOf", []) if kind != {"type": "null"}]
    if schema.get("default", ...) is None:
        del schema["default"]
    return schema | (kinds[0] if kinds else {})


def _header_parameters(call: Call) -> list[Json]:
    headers = dict(call.takes_headers)
    if call.access in MEMBERS:
        headers[TENANT_HEADER] = TENANT
    return [
        {
            "name": name,
            "in": "header",
            "required": False,
            "description": header.about,
            "schema": {"type": "string"} | ({"pattern": f"^{header.pattern}$"} if header.pattern else {}),
        }
        for name, header in headers.items()
    ]


def _request_body(call: Call) -> Json:
    if call.form:
        return {"required": True, "content": {"multipart/form-data": {"schema": _reference(call.form)}}}
    if call.takes:
        contents = {media: _content(model) if model else {"schema": _BYTES} for media, model in call.takes.items()}
        return {"required": True, "content": contents}
    assert call.body is not None
    required = any(part.is_required() for part in call.body.model_fields.values())
    return {"required": required, "content": {JSON: _content(call.body)}}


def _responses(call: Call) -> dict[int, Json]:
    answers = {call.status: _success(call)}
    for status, text in call.also.items():
        answers[status] = {"description": text}
        if call.gives and status >= 400:
            answers[status]["content"] = {JSON: _content(call.gives)}
    by_status = defaultdict(list)
    for code in call.codes:
        by_status[CODES[code].status].append(code)
    for status, codes in by_status.items():
        answers[status] = _merge(answers.get(status), _failure(codes))
    return answers


def _success(call: Call) -> Json:
    answer: Json = {"description": HTTPStatus(call.status).phrase}
    if call.gives and call.media == "text/event-stream":
        answer["content"] = {call.media: {"schema": _message(call.gives)}}
    elif call.gives and call.media == JSON:
        answer["content"] = {JSON: _content(call.gives)}
    elif call.media != JSON:
        answer["content"] = {call.media: {}}
    for media in call.other_media:
        answer["content"][media] = {"schema": {"type": "string"}}
    if call.gives_headers:
        answer["headers"] = {
            name: {"description": text, "schema": {"type": "string"}} for name, text in call.gives_headers.items()
        }
    return answer


def _message(data: type[BaseModel]) -> Json:
    """One message of a stream. OpenAPI 3.1 has no word for a sequence of them."""
    content = {"type": "string", "contentMediaType": JSON, "contentSchema": _reference(data)}
    fields = {"id": {"type": "string"}, "event": {"type": "string"}, "data": content}
    return {"type": "object", "properties": fields, "required": ["data"]}


def _failure(codes: list[str]) -> Json:
    examples = {
        code: {"value": {"error": {"code": code, "message": CODES[code].meaning, "details": {}}}} for code in codes
    }
    return {
        "description": "  \n".join(f"`{code}`: {CODES[code].meaning}" for code in codes),
        "content": {JSON: {"schema": _reference(Error), "examples": examples}},
    }


def _merge(answer: Json | None, failure: Json) -> Json:
    """A status that may be an answer or an error: either shape."""
    if answer is None or "content" not in answer:
        return failure
    either = {"anyOf": [answer["content"][JSON]["schema"], failure["content"][JSON]["schema"]]}
    text = f"{answer['description']}  \n{failure['description']}"
    return {"description": text, "content": {JSON: {"schema": either}}}


def _content(model: type[BaseModel]) -> Json:
    extra: Any = model.model_config.get("json_schema_extra") or {}
    return {"schema": _reference(model)} | ({"example": extra["examples"][0]} if "examples" in extra else {})


def _reference(model: type[BaseModel]) -> Json:
    return {"$ref": _TEMPLATE.format(model=model.__name__)}


def _schemas(calls: list[Call]) -> Json:
    received = {
        (model, "validation") for call in calls for model in (call.body, call.form, *call.takes.values()) if model
    }
    sent = {(model, "serialization") for call in calls for model in (call.gives, Error) if model}
    models = sorted(received | sent, key=lambda pair: pair[0].__name__)
    _, document = models_json_schema(models, ref_template=_TEMPLATE)  # type: ignore[arg-type]
    return dict(document["$defs"])
