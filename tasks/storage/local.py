"""Bytes in a folder of this machine."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import NamedTemporaryFile
from uuid import UUID

from itsdangerous import BadSignature, SignatureExpired, URLSafeTimedSerializer

from tasks.errors import Refused
from tasks.settings import Settings
from tasks.storage.files import CHUNK, arriving, file_not_found, full_disk_is_unavailable, storage_unavailable


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
        try:
            tenant_id, sha256, filename, media_type = self._signer.loads(token, max_age=self._ttl_s)
        except SignatureExpired:
            raise Refused("link_expired", "This link has expired. Please ask for a new one.", status=410) from None
        except BadSignature:
            raise Refused("link_invalid", "This link is not valid.", status=404) from None
        path = self.path(UUID(tenant_id), sha256)
        if not path.exists():
            raise file_not_found()
        return path, filename, media_type

    def check(self) -> None:
        """See Storage."""
        try:
            with full_disk_is_unavailable(), NamedTemporaryFile(dir=self.staging, buffering=0) as probe:
                probe.write(b"ledgerline")
        except OSError as error:
            raise storage_unavailable(str(error)) from error
