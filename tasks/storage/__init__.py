"""Where bytes live: a few verbs, two real implementations.

Bytes are content-addressed per tenant: the key of a blob is made of the tenant and the sha256, so storing twice is
storing once, and a rerun overwrites itself. Names and types of files are in the ledger; Storage knows neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from uuid import UUID

from tasks.settings import Settings
from tasks.storage.files import digest_file, full_disk_is_unavailable, read_chunks
from tasks.storage.local import LocalStorage
from tasks.storage.objects import Drawn, SignedUpload, incoming_key, upload_key

__all__ = [
    "Drawn",
    "LocalStorage",
    "SignedUpload",
    "Storage",
    "digest_file",
    "full_disk_is_unavailable",
    "incoming_key",
    "open_storage",
    "read_chunks",
    "upload_key",
]


class Storage(Protocol):
    """What the program needs of a store. Every method raises Unavailable when the store is away."""

    def put(self, tenant_id: UUID, sha256: str, path: Path) -> None:
        """Store a file's bytes under their digest. Storing what is there already changes nothing.

        Raises Refused `file_too_large` when the store takes no file of that size.
        """

    def fetch(self, tenant_id: UUID, sha256: str, target: Path) -> None:
        """Write stored bytes to a file, which appears whole or not at all.

        Raises Refused `file_not_found` when they are gone.
        """

    def exists(self, tenant_id: UUID, sha256: str) -> bool:
        """Whether the bytes are there."""

    def delete(self, tenant_id: UUID, sha256: str) -> None:
        """Forget bytes; no error when they are gone already."""

    def link(self, tenant_id: UUID, sha256: str, filename: str, media_type: str) -> str:
        """A signed absolute URL, good for the configured time, that downloads the bytes under a name.

        Raises Refused `file_not_found` when they are gone.
        """

    def sign_upload(self, tenant_id: UUID, upload_id: UUID, size: int) -> SignedUpload:
        """A signed way to send `size` bytes straight to the store, to be drawn by `upload_key(upload_id)`.

        The local store stops at that size. The hosted one does not know it: whoever draws the bytes compares.
        """

    def draw(self, tenant_id: UUID, key: str, target: Path, most_bytes: int) -> Drawn:
        """Copy an object that is not content yet to a file, and digest it on the way, with constant memory.

        Raises Refused `file_not_found` when there is none, `file_too_large` when it is larger than `most_bytes`.
        """

    def adopt(self, tenant_id: UUID, drawn: Drawn) -> None:
        """Keep what was drawn as content, under its digest. May take the file away from where it is."""

    def discard(self, tenant_id: UUID, key: str) -> None:
        """Forget an object that is not content; no error when it is gone already."""

    def walk(self, tenant_id: UUID, prefix: str) -> Iterator[str]:
        """The paths of all files below a folder of the incoming area, in no certain order, read page by page.

        Names that begin with a dot are left out: they are on their way, or keep a folder open.
        """

    def tidy(self) -> None:
        """Remove what was being stored here by processes that are gone."""

    def check(self) -> None:
        """Raise Unavailable, with the cause, when the store cannot be used."""


def open_storage(settings: Settings) -> Storage:
    """The store that the settings name."""
    if settings.storage == "local":
        return LocalStorage(settings)
    # Imported only where it is used: the client takes longer to import than the rest of this package.
    from tasks.storage.supabase import SupabaseStorage

    return SupabaseStorage(settings)
