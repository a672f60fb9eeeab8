"""Where bytes live: a few verbs, two real implementations.

Bytes are content-addressed per tenant: the key of a blob is `<tenant>/<sha256>`, so storing twice is storing once,
and a rerun overwrites itself. Names and types of files are in the ledger; Storage knows neither.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Protocol
from uuid import UUID

from itsdangerous import BadSignature, SignatureExpired, URLSafeTimedSerializer

from tasks.errors import Refused, Unavailable
from tasks.settings import Settings

CHUNK = 1024 * 1024


class Storage(Protocol):
    """What the program needs of a store. Every method raises Unavailable when the store is away."""

    def put(self, tenant_id: UUID, sha256: str, path: Path) -> None:
        """Store a file's bytes under their digest. Storing what is there already changes nothing."""

    def fetch(self, tenant_id: UUID, sha256: str, target: Path) -> None:
        """Write stored bytes to a file. Raises Refused `file_not_found` when they are gone."""

    def exists(self, tenant_id: UUID, sha256: str) -> bool:
        """Whether the bytes are there."""

    def delete(self, tenant_id: UUID, sha256: str) -> None:
        """Forget bytes; no error when they are gone already."""

    def link(self, tenant_id: UUID, sha256: str, filename: str, media_type: str) -> str:
        """A signed URL, good for the configured time, that downloads the bytes under a name."""

    def check(self) -> None:
        """Raise Unavailable, with the cause, when the store cannot be used."""


def open_storage(settings: Settings) -> Storage:
    """The store that the settings name."""
    return LocalStorage(settings)


class LocalStorage:
    """A folder on this machine. Links are served by the API itself. For one machine only; `doctor` says so."""

    def __init__(self, settings: Settings) -> None:
        assert settings.link_secret is not None
        self.root = settings.storage_path.resolve()
        self.staging = self.root / "staging"
        self.staging.mkdir(parents=True, exist_ok=True)
        self._base_url = settings.base_url
        self._ttl_s = settings.link_ttl_s
        self._signer = URLSafeTimedSerializer(settings.link_secret.get_secret_value(), salt="ledgerline-link")

    def path(self, tenant_id: UUID, sha256: str) -> Path:
        """Where the bytes lie. Two levels, so that no folder grows without bound."""
        return self.root / str(tenant_id) / sha256[:2] / sha256

    def put(self, tenant_id: UUID, sha256: str, path: Path) -> None:
        """See Storage. Linked where the file system allows, else copied; visible only when whole."""
        target = self.path(tenant_id, sha256)
        if target.exists():
            return
        with full_disk_is_unavailable():
            target.parent.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile(dir=self.staging, delete=False) as staged, path.open("rb") as source:
                try:
                    shutil.copyfileobj(source, staged, CHUNK)
                    staged.flush()
                    os.fsync(staged.fileno())
                    os.replace(staged.name, target)
                except BaseException:
                    Path(staged.name).unlink(missing_ok=True)
                    raise

    def fetch(self, tenant_id: UUID, sha256: str, target: Path) -> None:
        """See Storage."""
        with full_disk_is_unavailable():
            try:
                shutil.copyfile(self.path(tenant_id, sha256), target)
            except FileNotFoundError:
                raise Refused("file_not_found", "The file is no longer there.", status=404) from None

    def exists(self, tenant_id: UUID, sha256: str) -> bool:
        """See Storage."""
        return self.path(tenant_id, sha256).exists()

    def delete(self, tenant_id: UUID, sha256: str) -> None:
        """See Storage."""
        self.path(tenant_id, sha256).unlink(missing_ok=True)

    def link(self, tenant_id: UUID, sha256: str, filename: str, media_type: str) -> str:
        """See Storage."""
        token = self._signer.dumps([str(tenant_id), sha256, filename, media_type])
        return f"{self._base_url}/api/v1/files/{token}"

    def open_link(self, token: str) -> tuple[Path, str, str]:
        """What a link points to: path, filename, media type. Raises Refused when it is expired or not ours."""
        try:
            tenant_id, sha256, filename, media_type = self._signer.loads(token, max_age=self._ttl_s)
        except SignatureExpired:
            raise Refused("link_expired", "This link has expired. Please ask for a new one.", status=410) from None
        except BadSignature:
            raise Refused("link_invalid", "This link is not valid.", status=404) from None
        path = self.path(UUID(tenant_id), sha256)
        if not path.exists():
            raise Refused("file_not_found", "The file is no longer there.", status=404)
        return path, filename, media_type

    def check(self) -> None:
        """See Storage."""
        try:
            with NamedTemporaryFile(dir=self.staging) as probe:
                probe.write(b"ledgerline")
        except OSError as error:
            raise Unavailable("storage_unavailable", "Files cannot be stored right now.", detail=str(error)) from error


class full_disk_is_unavailable:
    """Turns a full or read-only disk into Unavailable; other errors pass."""

    CAUSES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO)

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Translate the error, if it is one of ours."""
        if isinstance(error, OSError) and error.errno in self.CAUSES:
            raise Unavailable(
                "storage_full", "Files cannot be stored right now.", detail=str(error), status=507
            ) from error


def digest_file(path: Path) -> tuple[str, int]:
    """sha256 (hex) and size in bytes of a file."""
    digest, size = hashlib.sha256(), 0
    for chunk in read_chunks(path):
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


def read_chunks(path: Path) -> Iterator[bytes]:
    """A file's bytes, a MiB at a time."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
