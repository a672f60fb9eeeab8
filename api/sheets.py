"""Rows as a document that is sent while it is written: JSON for programs, CSV for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from api.models.export import ExportedDocument
from tasks.cells import escape_cell
from tasks.db import Row

_BYTE_ORDER_MARK = "\ufeff"


def write_json(strides: Iterable[list[Row]]) -> Iterator[str]:
    """An `Export`. What breaks off in the middle is no JSON."""
    count = 0
    yield '{"documents":['
    for rows in strides:
        yield ",\n" if count else "\n"
        yield ",\n".join(ExportedDocument(**row).model_dump_json() for row in rows)
        count += len(rows)
    yield f'\n],"count":{count}}}'


def write_csv(strides: Iterable[list[Row]]) -> Iterator[str]:
    """A head and a row each (RFC 4180), after a byte order mark, which spreadsheets need to read accents."""
    yield _BYTE_ORDER_MARK + _lines([list(ExportedDocument.model_fields)])
    for rows in strides:
        yield _lines([_cell(row[name]) for name in ExportedDocument.model_fields] for row in rows)


def _lines(rows: Iterable[list[str]]) -> str:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue()


def _cell(value: Any) -> str:
    if isinstance(value, list):
        value = "; ".join(map(str, value))
    elif isinstance(value, dict):
        value = "; ".join(f"{name}: {part}" for name, part in value.items())
    elif isinstance(value, datetime):
        value = value.isoformat()
    return escape_cell(value)
