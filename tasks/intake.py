"""Objects in the store become documents: read once, compared with what was said of them, and told what they are.

The API does this when a signed upload is confirmed, workers when a batch names paths. Both hold only a chunk in memory,
and both leave no file behind: what is staged is moved into its content address, or is gone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any
from uuid import UUID

from tasks.documents.kinds import HEAD_BYTES, Kind, sniff
from tasks.errors import Refused
from tasks.ledger import new_id
from tasks.storage import Drawn, Storage
from tasks.storage.files import hold

_MOST_NAME = 500
_TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@dataclass(frozen=True)
class Announced:
    """What is known of an object before it is read. `size` (bytes) and `sha256`: None when nobody said."""

    tenant_id: UUID
    key: str
    filename: str
    most_bytes: int
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Arrival:
    """An object that was read whole and is what it was said to be."""

    announced: Announced
    drawn: Drawn
    kind: Kind

    def document(self, document_id: UUID, user_id: UUID | None, title: str | None = None) -> dict[str, Any]:
        """The row that it makes; see `ledger.add_document`."""
        return {
            "id": document_id,
            "tenant_id": self.announced.tenant_id,
            "user_id": user_id,
            "title": title or title_of(self.announced.filename),
            "filename": self.announced.filename,
            "kind": self.kind.name,
            "media_type": self.kind.media_type,
            "bytes": self.drawn.size,
            "sha256": self.drawn.sha256,
        }


@contextmanager
def staged(staging: Path) -> Iterator[Path]:
    """Where to draw one object to. Nothing lies there afterwards."""
    path = staging / f"upload-{new_id()}"
    with path.open("xb") as file:
        # While it is held, nobody takes it for what a killed process left.
        hold(file)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


def examine(storage: Storage, announced: Announced, target: Path) -> Arrival:
    """Draw an object to `target`, compare it with what was announced, and tell its kind.

    Raises Refused `file_not_found`, `file_too_large`, `upload_incomplete`, `hash_mismatch`, and what `sniff` raises.
    """
    drawn = storage.draw(announced.tenant_id, announced.key, target, announced.most_bytes)
    if announced.size not in (None, drawn.size):
        size = {"announced": announced.size, "found": drawn.size}
        raise Refused("upload_incomplete", "The file has not come in whole.", details=size, status=409)
    if announced.sha256 not in (None, drawn.sha256):
        details = {"announced": announced.sha256, "found": drawn.sha256}
        raise Refused("hash_mismatch", "What came in is not what was announced.", details=details, status=422)
    with target.open("rb") as file:
        head = file.read(HEAD_BYTES)
    return Arrival(announced, drawn, sniff(head, announced.filename, path=target))


def title_of(filename: str) -> str:
    """A title for a file that nobody gave one."""
    return PurePath(filename).stem or filename


def clean_name(given: str) -> str:
    """A file name to show: no folders, nothing invisible, composed, at most 500 characters with its ending."""
    last = re.split(r"[/\\]", given)[-1]
    shown = "".join(" " if _hides(character) else character for character in unicodedata.normalize("NFC", last))
    name = " ".join(shown.split()) or "document"
    ending = PurePath(name).suffix[:20]
    return name if len(name) <= _MOST_NAME else name[: _MOST_NAME - len(ending)] + ending


def _hides(character: str) -> bool:
    """Whether it is a control character, half a pair, or turns the direction of text, which can disguise an ending."""
    return unicodedata.category(character) in ("Cc", "Cs", "Cn") or character in _TURNS
