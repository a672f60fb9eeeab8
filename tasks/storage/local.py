"""Bytes in a folder of this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any
from uuid import UUID

from itsdangerous import BadSignature, SignatureExpired, URLSafeTimedSerializer

from tasks.errors import Refused
from tasks.settings import Settings
from tasks.storage.files import (
    CHUNK,
    arriving,
    clear_staging,
    file_not_found,
    full_disk_is_unavailable,
    read_chunks,
    storage_unavailable,
)
from tasks.storage.objects import Drawn, SignedUpload, copy_counted, incoming_key, upload_key


class LocalStorage:
    """A folder on this machine. Links are served by the API itself. For one machine only; `doctor` says so."""

    def __init__(self, settings: Settings) -> None:
        assert settings.link_secret is not None
        self.root = settings.storage_path.resolve()
        self.staging = self.root / "staging"
        self.staging.mkdir(parents=True, exist_ok=True)
        self._base_url = settings.base_url
        self._ttl_s = settings.link_ttl_s
        self._upload_ttl_s = settings.upload_ttl_s
        secret = settings.link_secret.get_secret_value()
        self._signer = URLSafeTimedSerializer(secret, salt="ledgerline-link")
        self._upload_signer = URLSafeTimedSerializer(secret, salt="ledgerline-upload")

    def path(self, tenant_id: UUID, sha256: str) -> Path:
        """Where the bytes lie. Two levels, so that no folder grows without bound."""
        return self.root / str(tenant_id) / sha256[:2] / sha256

    def put(self, tenant_id: UUID, sha256: str, path: Path) -> None:
        """See Storage. Visible only when whole."""
        target = self.path(tenant_id, sha256)
        if target.exists():
            return
        with full_disk_is_unavailable():
            target.parent.mkdir(parents=True, exist_ok=True)
        with arriving(target, staging=self.staging, durable=True) as staged, path.open("rb") as source:
            shutil.copyfileobj(source, staged, CHUNK)

    def fetch(self, tenant_id: UUID, sha256: str, target: Path) -> None:
        """See Storage."""
        with arriving(target) as part:
            try:
                shutil.copyfile(self.path(tenant_id, sha256), part.name)
            except FileNotFoundError:
                raise file_not_found() from None

    def exists(self, tenant_id: UUID, sha256: str) -> bool:
        """See Storage."""
        with full_disk_is_unavailable():
            return self.path(tenant_id, sha256).exists()

    def delete(self, tenant_id: UUID, sha256: str) -> None:
        """See Storage."""
        with full_disk_is_unavailable():
            self.path(tenant_id, sha256).unlink(missing_ok=True)

    def link(self, tenant_id: UUID, sha256: str, filename: str, media_type: str) -> str:
        """See Storage."""
        if not self.exists(tenant_id, sha256):
            raise file_not_found()
        token = self._signer.dumps([str(tenant_id), sha256, filename, media_type])
        return f"{self._base_url}/api/v1/files/{token}"

    def open_link(self, token: str) -> tuple[Path, str, str]:
        """What a link points to: path, filename, media type. Raises Refused when it is expired or not ours."""
        tenant_id, sha256, filename, media_type = _read_token(self._signer, token, self._ttl_s)
        path = self.path(UUID(tenant_id), sha256)
        if not path.exists():
            raise file_not_found()
        return path, filename, media_type

    def sign_upload(self, tenant_id: UUID, upload_id: UUID, size: int) -> SignedUpload:
        """See Storage."""
        token = self._upload_signer.dumps([str(tenant_id), str(upload_id), size])
        return SignedUpload(f"{self._base_url}/api/v1/uploads/{token}")

    def open_upload(self, token: str) -> tuple[UUID, UUID, int]:
        """What a signed upload is for: tenant, upload, size. Raises Refused when it is expired or not ours."""
        tenant_id, upload_id, size = _read_token(self._upload_signer, token, self._upload_ttl_s)
        return UUID(tenant_id), UUID(upload_id), size

    def receive(self, tenant_id: UUID, upload_id: UUID) -> AbstractContextManager[IO[bytes]]:
        """A file to write an upload to. It replaces what was sent before, whole or not at all."""
        target = self._object(tenant_id, upload_key(upload_id))
        with full_disk_is_unavailable():
            target.parent.mkdir(parents=True, exist_ok=True)
        return arriving(target, staging=self.staging, durable=True)

    def draw(self, tenant_id: UUID, key: str, target: Path, most_bytes: int) -> Drawn:
        """See Storage."""
        source = self._object(tenant_id, key)
        with full_disk_is_unavailable():
            if not source.is_file():
                raise file_not_found()
            with target.open("wb") as copy:
                size, sha256 = copy_counted(read_chunks(source), copy, most_bytes)
        return Drawn(target, size, sha256)

    def adopt(self, tenant_id: UUID, drawn: Drawn) -> None:
        """See Storage. A file that was drawn into `staging` is moved, not copied."""
        target = self.path(tenant_id, drawn.sha256)
        with full_disk_is_unavailable():
            target.parent.mkdir(parents=True, exist_ok=True)
            with drawn.path.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(drawn.path, target)

    def discard(self, tenant_id: UUID, key: str) -> None:
        """See Storage."""
        with full_disk_is_unavailable():
            self._object(tenant_id, key).unlink(missing_ok=True)

    def walk(self, tenant_id: UUID, prefix: str) -> Iterator[str]:
        """See Storage. Symbolic links are not followed."""
        area = self._object(tenant_id, incoming_key(""))
        folders = [self._object(tenant_id, incoming_key(prefix))]
        while folders:
            gone = (FileNotFoundError, NotADirectoryError)
            with full_disk_is_unavailable(), suppress(*gone), os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
                    elif entry.is_file(follow_symlinks=False):
                        yield Path(entry.path).relative_to(area).as_posix()

    def tidy(self) -> None:
        """See Storage."""
        clear_staging(self.staging)

    def check(self) -> None:
        """See Storage."""
        try:
            with full_disk_is_unavailable(), NamedTemporaryFile(dir=self.staging, buffering=0) as probe:
                probe.write(b"ledgerline")
        except OSError as error:
            raise storage_unavailable(str(error)) from error

    def _object(self, tenant_id: UUID, key: str) -> Path:
        """Where an object that is not content lies. One that a symbolic link would lead elsewhere is not there."""
        own = self.root / str(tenant_id)
        path = own / key
        if not path.resolve().is_relative_to(own):
            raise file_not_found()
        return path


def _read_token(signer: URLSafeTimedSerializer, token: str, ttl_s: int) -> list[Any]:
    try:
        return list(signer.loads(token, max_age=ttl_s))
    except SignatureExpired:
        raise Refused("link_expired", "This link has expired. Please ask for a new one.", status=410) from None
    except BadSignature:
        raise Refused("link_invalid", "This link is not valid.", status=404) from None
