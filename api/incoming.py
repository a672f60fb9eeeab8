"""Reading requests: JSON bodies and queries into typed models, or a refusal that names the field."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar
from uuid import uuid4

from flask import g, request
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import RequestEntityTooLarge

from api.codes import refuse
from api.headers import KEY_PATTERN, Header

Model = TypeVar("Model", bound=BaseModel)

REQUEST_ID = "X-Request-Id"
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{8,128}")
_HALF_PAIR = re.compile(r"[\ud800-\udfff]")
_MOST_PROBLEMS = 20
SILENCE_S = 30.0


def request_id() -> str:
    """The name of the request in answers and logs: the sender's, if it is a sane one, else ours."""
    if "request_id" not in g:
        given = request.headers.get(REQUEST_ID, "")
        g.request_id = given if _SANE_ID.fullmatch(given) else uuid4().hex
    return str(g.request_id)


def limit_silence() -> None:
    """Give up on a sender that falls silent in the middle of its body, instead of keeping its place for ever."""
    connection = request.environ.get("gunicorn.socket")
    if connection is not None:
        expects_more = bool(request.content_length) or "chunked" in request.headers.get("Transfer-Encoding", "")
        connection.settimeout(SILENCE_S if expects_more else None)


def read_query(model: type[Model]) -> Model:
    """The query string as a model. Raises Refused `request_invalid`."""
    repeated = [name for name, values in request.args.lists() if len(values) > 1]
    if repeated:
        _refuse([{"where": name, "message": "Given more than once."} for name in repeated])
    return check(lambda: model.model_validate(request.args.to_dict()))


def read_body(model: type[Model], most_bytes: int) -> Model:
    """The JSON body as a model; no body at all counts as {}. Raises Refused with 400, 413, 415 or 422."""
    request.max_content_length = most_bytes
    try:
        data = request.get_data(cache=False)
    except RequestEntityTooLarge:
        raise refuse("body_too_large", f"The body is larger than {most_bytes} bytes.", limit=most_bytes) from None
    if data and request.mimetype != "application/json":
        raise refuse("media_type_unsupported", "Send this as application/json.", expected="application/json")
    if data:
        parse_json(data)
    return check(lambda: model.model_validate_json(data or b"{}", strict=True))


def read_form(model: type[Model], fields: dict[str, Any]) -> Model:
    """The fields of a form as a model. Raises Refused `request_invalid`."""
    return check(lambda: model.model_validate(fields))


def parse_json(data: bytes | str) -> Any:
    """JSON that Postgres can store. Raises Refused `json_broken`."""
    try:
        value = json.loads(data, parse_constant=_refuse_constant)
    # Nesting beyond all reason ends in a RecursionError, numbers beyond all reason in a ValueError.
    except (ValueError, RecursionError):
        raise refuse("json_broken", "The body is not valid JSON.") from None
    if not _storable(value):
        raise refuse("json_broken", "The body holds text that cannot be stored: a NUL, or half a surrogate pair.")
    return value


def read_idempotency_key() -> str | None:
    """The Idempotency-Key. Raises Refused `idempotency_key_invalid`."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not re.fullmatch(KEY_PATTERN, key):
        raise refuse("idempotency_key_invalid", "An Idempotency-Key is 1 to 255 visible ASCII characters.")
    return key


def read_last_event_id(header: Header) -> str | None:
    """Where a reconnecting client left off, if it says so. Raises Refused `request_invalid` unless it fits."""
    text = request.headers.get("Last-Event-ID")
    if text is not None and not re.fullmatch(header.pattern or ".*", text.strip()):
        _refuse([{"where": "Last-Event-ID", "message": "Not an id of this stream."}])
    return text.strip() if text is not None else None


def check(validate: Callable[[], Model]) -> Model:
    """What `validate` gives. Raises Refused `request_invalid` where it finds something wrong."""
    try:
        return validate()
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        _refuse([{"where": _place(one["loc"]), "message": one["msg"]} for one in problems[:_MOST_PROBLEMS]])


def _refuse(problems: list[dict[str, str]]) -> NoReturn:
    first = problems[0]
    place = f"{first['where']}: " if first["where"] else ""
    sentence = f"The request is not right: {place}{first['message'].rstrip('.')}."
    raise refuse("request_invalid", sentence, problems=problems)


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _storable(value: Any) -> bool:
    if isinstance(value, str):
        return "\x00" not in value and not _HALF_PAIR.search(value)
    if isinstance(value, dict):
        return all(_storable(key) and _storable(part) for key, part in value.items())
    return all(map(_storable, value)) if isinstance(value, list) else True
