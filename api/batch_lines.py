"""The lines of a batch: from the request to a file, and from there to rows, a few at a time.

The whole body is on disk before anything is written down, so a client that falls silent or away keeps no transaction
open and leaves nothing. Memory stays constant, whatever the number of lines.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

from flask import request
from psycopg.types.json import Jsonb
from werkzeug.exceptions import RequestEntityTooLarge

from api.codes import refuse
from api.incoming import check, parse_json
from api.models.batches import BatchItem
from tasks.errors import Refused
from tasks.storage import full_disk_is_unavailable, incoming_key
from tasks.storage.files import CHUNK

MOST_LINE_BYTES = 16 * 1024
Check = Callable[[dict[str, Any]], dict[str, Any]]


def spool(target: Path, most_bytes: int) -> str:
    """Write the request's body to a file; gives its sha256. Raises Refused `body_too_large`, `bad_request`."""
    request.max_content_length = most_bytes + 1
    digest, size = hashlib.sha256(), 0
    try:
        with full_disk_is_unavailable(), target.open("wb") as file:
            while chunk := request.stream.read(CHUNK):
                size += len(chunk)
                if size > most_bytes:
                    raise RequestEntityTooLarge
                digest.update(chunk)
                file.write(chunk)
    except RequestEntityTooLarge:
        raise refuse("body_too_large", f"The body is larger than {most_bytes} bytes.", limit=most_bytes) from None
    if request.content_length not in (None, size):
        raise refuse("bad_request", "The connection ended before the body was whole.")
    return digest.hexdigest()


def write_lines(target: Path, paths: Iterable[str], params: dict[str, Any], most: int) -> None:
    """Write one line for each path. Raises Refused `too_many_items`."""
    with full_disk_is_unavailable(), target.open("w", encoding="utf-8") as file:
        for number, path in enumerate(paths):
            if number == most:
                raise too_many(most)
            file.write(json.dumps({"path": path, "params": params}) + "\n")


def read_rows(source: Path, batch_id: UUID, tenant_id: UUID, check_params: Check) -> Iterator[tuple[Any, ...]]:
    """The lines of a file as rows of items; see `batches.copying_items`. A wrong line is an item that is refused."""
    with source.open("rb") as file:
        for nr, line in _lines(file):
            yield (batch_id, nr, tenant_id, *_read(line, check_params))


def too_many(most: int) -> Refused:
    """The refusal for more items than a batch may have."""
    return refuse("too_many_items", f"A batch has at most {most} items.", limit=most)


def _lines(file: Any) -> Iterator[tuple[int, bytes]]:
    """Numbered lines that hold something. Of one that is too long, the beginning, which is longer than allowed."""
    nr = 0
    while line := file.readline(MOST_LINE_BYTES + 2):
        nr += 1
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = file.readline(CHUNK)
        if line.strip():
            yield nr, line


def _read(line: bytes, check_params: Check) -> tuple[Any, ...]:
    try:
        item = _item(line)
        params = check_params(item.params)
    except Refused as error:
        return None, None, None, None, Jsonb({}), "refused", error.code, error.message
    return item.key, item.document_id, item.path, item.title, Jsonb(params), "waiting", None, None


def _item(line: bytes) -> BatchItem:
    if len(line.rstrip(b"\r\n")) > MOST_LINE_BYTES:
        raise refuse("request_invalid", f"The line is longer than {MOST_LINE_BYTES} bytes.")
    parse_json(line)
    item = check(lambda: BatchItem.model_validate_json(line, strict=True))
    if item.path is not None:
        incoming_key(item.path)
    return item
