"""Published pipelines as the front door needs them: is a job's `params` good, and what are the defaults?

A graph never changes under its digest, so what is kept here cannot grow old: each submission learns from the database
which digest is current, and gets the schema along with it only when it is one we do not have.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from api.codes import refuse
from tasks.db import Row
from tasks.errors import Refused

Json = dict[str, Any]

_MOST_PROBLEMS = 20
_MOST_CHARACTERS = 200


class Graph:
    """One published graph: its name, its digest, and the JSON Schema of its parameters."""

    def __init__(self, name: str, digest: str, schema: Json) -> None:
        self.name = name
        self.digest = digest
        # What a pipeline does not name it does not take, also where its model forgot to say so.
        self._schema: Json = {"additionalProperties": False} | schema
        self._validator = Draft202012Validator(self._schema)

    def check(self, params: Json) -> Json:
        """The parameters with defaults filled in. Raises Refused `params_invalid`."""
        filled = deepcopy(params)
        self._fill(self._schema, filled)
        errors = sorted(self._validator.iter_errors(filled), key=lambda error: list(map(str, error.absolute_path)))
        if errors:
            problems = [_problem(error) for error in errors[:_MOST_PROBLEMS]]
            message = f"The parameters do not fit the pipeline {self.name}."
            raise refuse("params_invalid", message, pipeline=self.name, problems=problems)
        return filled

    def _fill(self, schema: Json, value: Json) -> None:
        for name, part in self._resolve(schema).get("properties", {}).items():
            if name in value:
                if isinstance(value[name], dict):
                    self._fill(part, value[name])
            elif "default" in part:
                value[name] = deepcopy(part["default"])

    def _resolve(self, schema: Json) -> Json:
        name = str(schema.get("$ref", "")).rpartition("/")[2]
        return dict(self._schema.get("$defs", {}).get(name, schema))


class Graphs:
    """The graphs this process has met, by pipeline name."""

    def __init__(self) -> None:
        self._known: dict[str, Graph] = {}

    def digest(self, pipeline: str | None) -> str | None:
        """The digest we know for a pipeline, so that its schema need not be sent again."""
        known = self._known.get(pipeline or "")
        return known.digest if known else None

    def recall(self, pipeline: str, row: Row) -> Graph:
        """The current graph, from what `api_enter` said about it. Raises Refused `unknown_pipeline`."""
        if row["graph"] is None:
            raise unknown_pipeline(pipeline)
        known = self._known.get(pipeline)
        if known is None or known.digest != row["graph"]:
            known = self._known[pipeline] = Graph(pipeline, row["graph"], row["params_schema"])
        return known


def unknown_pipeline(name: str) -> Refused:
    """The refusal for a name that nobody published."""
    return refuse("unknown_pipeline", "There is no pipeline of that name.", pipeline=name)


def _problem(error: ValidationError) -> Json:
    where = ".".join(["params", *map(str, error.absolute_path)])
    return {"where": where, "message": error.message[:_MOST_CHARACTERS]}
