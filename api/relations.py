"""Which calls an answer leads to: OpenAPI links, found by the paths that calls have.

What a call to `/jobs` answers with has an id, or is a list of what has ids: with it go the calls to `/jobs/{job_id}`
and below. The last word of a path says what it is about, so `/jobs/{job_id}/artifacts` leads to
`/artifacts/{artifact_id}`.
"""

from __future__ import annotations

import re
from typing import Any, get_args

from pydantic import BaseModel

from api.contract import Call

_ITEM = re.compile(r"/(?P<noun>[\w-]+)/<\w+:(?P<part>\w+)>(?P<rest>[^<]*)")


def links_of(call: Call, calls: list[Call]) -> dict[str, dict[str, Any]]:
    """The links of a call's answer, by the name of the call they lead to."""
    place = _place_of_id(call)
    noun = call.path.rpartition("/")[2]
    if place is None:
        return {}
    return {
        other.operation_id: {"operationId": other.operation_id, "parameters": {item["part"]: f"$response.body#{place}"}}
        for other in calls
        if (item := _ITEM.fullmatch(other.path)) and item["noun"] == noun
    }


def _place_of_id(call: Call) -> str | None:
    """Where the answer has the id of what it tells of: its own, or that of the first in the list it is."""
    if call.gives is None:
        return None
    if "id" in call.gives.model_fields:
        return "/id"
    for name, field in call.gives.model_fields.items():
        if any(isinstance(kind, type) and issubclass(kind, BaseModel) and "id" in kind.model_fields
               for kind in get_args(field.annotation)):  # fmt: skip
            return f"/{name}/0/id"
    return None
