"""Where bytes live: a few verbs, two real implementations.

Bytes are content-addressed per tenant: the key of a blob is made of the tenant and the sha256, so storing twice is
storing once, and a rerun overwrites itself. Names and types of files are in the ledger; Storage knows neither.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol
from uuid import UUID

from tasks.settings import Settings
from tasks.storage.files import digest_file, full_disk_is_unavailable, read_chunks
from tasks.storage.local import LocalStorage

__all__ = ["LocalStorage", "Storage", "digest_file", "full_disk_is_unavailable", "open_storage", "read_chunks"]


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

    def check(self) -> None:
        """Raise Unavailable, with the cause, when the store cannot be used."""


def open_storage(settings: Settings) -> Storage:
    """The store that the settings name."""
    if settings.storage == "local":
        return LocalStorage(settings)
    # Imported only where it is used: the client takes longer to import than the rest of this package.
    from tasks.storage.supabase import SupabaseStorage

    return SupabaseStorage(settings)
