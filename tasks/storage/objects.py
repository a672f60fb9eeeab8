"""What is not content yet: objects under names of their own, until they are drawn, digested and kept as content.

uploads/ID       sent straight to the store by a client, through a signed link; ID is the future document's
incoming/PATH    put there by the tenant's own tools, for batches to take in
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from uuid import UUID

from tasks.errors import Refused

MOST_PATH = 500
_HIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")


@dataclass(frozen=True)
class SignedUpload:
    """Where and how a client sends bytes to, without a token of its own."""

    url: str
    method: str = "PUT"
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/octet-stream"})


@dataclass(frozen=True)
class Drawn:
    """A private copy of an object's bytes, which nobody else can change: where it is, its size and its digest."""

    path: Path
    size: int
    sha256: str


def upload_key(upload_id: UUID) -> str:
    """The key of what a client sends for a future document."""
    return f"uploads/{upload_id}"


def incoming_key(path: str) -> str:
    """The key of a path in the tenant's incoming area; the empty path is all of it.

    Raises Refused `path_invalid`.
    """
    parts = path.split("/") if path else []
    if len(path) > MOST_PATH or _HIDDEN.search(path) or any(part in ("", ".", "..") for part in parts):
        raise Refused(
            "path_invalid",
            f"A path names a file below the incoming area: no leading or double slash, no `..`, at most {MOST_PATH} "
            "characters.",
            status=422,
        )
    return "/".join(["incoming", *parts])


def copy_counted(chunks: Iterable[bytes], target: IO[bytes], most_bytes: int) -> tuple[int, str]:
    """Write chunks to a file; gives their size and sha256. Raises Refused `file_too_large` when there are too many."""
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        size += len(chunk)
        if size > most_bytes:
            raise Refused("file_too_large", f"This file is larger than {most_bytes} bytes.", status=413)
        digest.update(chunk)
        target.write(chunk)
    return size, digest.hexdigest()
