"""Bytes in a bucket of Supabase Storage."""

from __future__ import annotations

import hashlib
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar
from uuid import UUID

import httpx
from storage3 import SyncStorageClient

from tasks.errors import Refused
from tasks.settings import Settings
from tasks.storage.client import Client, Passing, Patience, Taken, network_is_passing
from tasks.storage.files import CHUNK, arriving, file_not_found, full_disk_is_unavailable, storage_unavailable
from tasks.storage.objects import Drawn, SignedUpload, copy_counted, incoming_key, upload_key

T = TypeVar("T")

# Above this size it is cheaper to ask whether the bytes are there than to send them again.
_WORTH_ASKING = 1024 * 1024
_FETCH_TTL_S = 60
_LIST_PAGE = 1000
# What the store takes as a key; all else it refuses before it looks, so nothing can be there.
_KEY = re.compile(r"[A-Za-z0-9_/!.*'() &$=@;:+,?-]+")


class SupabaseStorage:
    """A private bucket of the hosted Storage, used with the project's secret key. Links lead straight to Supabase.

    Everything here may be done twice, because keys are digests, so what failed in passing is tried again at once; the
    ledger retries what is away for longer. Safe to use from many threads.
    """

    def __init__(self, settings: Settings, patience: Patience | None = None) -> None:
        assert settings.supabase_url is not None
        assert settings.supabase_secret_key is not None
        self._url = f"{settings.supabase_url.rstrip('/')}/storage/v1/"
        self._key = settings.supabase_secret_key
        self._patience = patience or Patience()
        self._tls = httpx.create_ssl_context()
        self._bucket = settings.storage_bucket
        self._ttl_s = settings.link_ttl_s
        self._clients: dict[int, SyncStorageClient] = {}

    @property
    def _client(self) -> SyncStorageClient:
        """This thread's client. Under gevent a connection belongs to the loop of the real thread that opened it:
        another one that took it from a common pool would wait for ever."""
        thread = threading.get_native_id()
        if thread not in self._clients:
            self._clients[thread] = self._open_client()
        return self._clients[thread]

    def _open_client(self) -> SyncStorageClient:
        key = self._key.get_secret_value()
        # The gateway takes a key that is no JWT as a bearer only when both headers are equal.
        headers = {"apikey": key, "Authorization": f"Bearer {key}"}
        return SyncStorageClient(self._url, headers, http_client=Client(self._patience, self._tls))

    def put(self, tenant_id: UUID, sha256: str, path: Path) -> None:
        """See Storage. Streamed from the file."""
        key = _key(tenant_id, sha256)
        if path.stat().st_size > _WORTH_ASKING and self.exists(tenant_id, sha256):
            return

        def upload() -> None:
            # Nothing is cached on the way, so what is deleted is gone. What the bytes are is not told to the store, so
            # that no browser ever shows an uploaded page as one of the project's own.
            with path.open("rb") as file, suppress(Taken):
                self._client.from_(self._bucket).upload(
                    key, file, {"content-type": "application/octet-stream", "cache-control": "0"}
                )

        self._try(upload)

    def sign_upload(self, tenant_id: UUID, upload_id: UUID, size: int) -> SignedUpload:
        """See Storage. The store decides how long its link lives: two hours, as it comes."""
        key = f"{tenant_id}/{upload_key(upload_id)}"
        signed = self._try(lambda: self._client.from_(self._bucket).create_signed_upload_url(key))
        return SignedUpload(signed["signed_url"])

    def draw(self, tenant_id: UUID, key: str, target: Path, most_bytes: int) -> Drawn:
        """See Storage. Compared with the size that the store tells: a broken connection can look like an end."""
        if not _KEY.fullmatch(key):
            raise file_not_found()

        def download() -> Drawn:
            url = self._sign(f"{tenant_id}/{key}", _FETCH_TTL_S)
            with full_disk_is_unavailable(), target.open("wb") as copy, self._stream(url) as response:
                size, sha256 = copy_counted(response.iter_bytes(CHUNK), copy, most_bytes)
            told = int(self._client.from_(self._bucket).info(f"{tenant_id}/{key}")["size"])
            if size != told:
                raise Passing(f"{size} bytes came of an object of {told}")
            return Drawn(target, size, sha256)

        return self._try(download)

    def adopt(self, tenant_id: UUID, drawn: Drawn) -> None:
        """See Storage. Sent again, not moved within the store: what was digested is what is kept, as plain bytes,
        whatever its sender said they are and whoever may still write to the object they came from."""
        self.put(tenant_id, drawn.sha256, drawn.path)

    def discard(self, tenant_id: UUID, key: str) -> None:
        """See Storage."""
        if _KEY.fullmatch(key):
            self._remove(f"{tenant_id}/{key}")

    def walk(self, tenant_id: UUID, prefix: str) -> Iterator[str]:
        """See Storage."""
        area = f"{tenant_id}/{incoming_key('')}/"
        folders = [f"{tenant_id}/{incoming_key(prefix)}"]
        seen = False
        while folders:
            folder = folders.pop()
            for entry in self._entries(folder):
                seen = True
                path = f"{folder}/{entry['name']}"
                if entry["id"] is None:
                    folders.append(path)
                elif not entry["name"].startswith("."):
                    yield path.removeprefix(area)
        if not seen:
            self.check()  # to a stranger every folder is empty

    def fetch(self, tenant_id: UUID, sha256: str, target: Path) -> None:
        """See Storage. Streamed, and compared with the digest: a connection that broke off can look like an end."""

        def download() -> None:
            url = self._sign(_key(tenant_id, sha256), _FETCH_TTL_S)
            with arriving(target) as part:
                if self._receive(url, part) != sha256:
                    raise Passing(f"what came for {sha256} has another digest")

        self._try(download)

    def exists(self, tenant_id: UUID, sha256: str) -> bool:
        """See Storage."""
        return self._holds(_key(tenant_id, sha256))

    def delete(self, tenant_id: UUID, sha256: str) -> None:
        """See Storage."""
        self._remove(_key(tenant_id, sha256))

    def link(self, tenant_id: UUID, sha256: str, filename: str, media_type: str) -> str:
        """See Storage. The store serves all types as plain bytes, for saving; `media_type` is not told to it."""
        return self._try(lambda: self._sign(_key(tenant_id, sha256), self._ttl_s, filename))

    def tidy(self) -> None:
        """See Storage. An upload that broke off has left no object."""

    def check(self) -> None:
        """See Storage. A public bucket is no place for manuscripts, and is not used."""
        bucket = self._try(lambda: self._client.get_bucket(self._bucket))
        if bucket.public:
            raise storage_unavailable(
                f"the bucket {self._bucket!r} is public: everybody could read it; make it private"
            )

    def _sign(self, key: str, ttl_s: int, filename: str | None = None) -> str:
        try:
            signed = self._client.from_(self._bucket).create_signed_url(
                key, ttl_s, {"download": filename} if filename else {}
            )
        except Refused:
            self.check()  # to a stranger everything is missing: only a bucket that we see can miss a file
            raise file_not_found() from None
        url = signed["signedURL"]
        if url is None:
            raise Passing("the store signed nothing")
        return url

    def _receive(self, url: str, part: IO[bytes]) -> str:
        digest = hashlib.sha256()
        with self._stream(url) as response:
            for chunk in response.iter_bytes(CHUNK):
                digest.update(chunk)
                part.write(chunk)
        return digest.hexdigest()

    @contextmanager
    def _stream(self, url: str) -> Iterator[httpx.Response]:
        identity = {"Accept-Encoding": "identity"}
        with network_is_passing(), self._client.session.stream("GET", url, headers=identity) as response:
            yield response

    def _entries(self, folder: str) -> Iterator[dict[str, Any]]:
        """What lies directly in a folder, files and folders, page by page."""
        offset = 0
        while page := self._page(folder, offset):
            yield from page
            offset += len(page)

    def _page(self, folder: str, offset: int) -> list[dict[str, Any]]:
        return self._try(lambda: self._client.from_(self._bucket).list(folder, {"limit": _LIST_PAGE, "offset": offset}))

    def _holds(self, key: str) -> bool:
        try:
            self._try(lambda: self._client.from_(self._bucket).info(key))
        except Refused:
            self.check()
            return False
        return True

    def _remove(self, key: str) -> None:
        removed = self._try(lambda: self._client.from_(self._bucket).remove([key]))
        # Without the right to delete, the store answers as if nothing had been there.
        if not removed and self._holds(key):
            raise storage_unavailable("the store kept an object it was told to delete: is this the secret key?")

    def _try(self, attempt: Callable[[], T]) -> T:
        """Run `attempt` until it ends in something else than Passing, or patience is at its end."""
        started = time.monotonic()
        for wait in self._patience.waits_s:
            try:
                return self._understand(attempt)
            except Passing as error:
                pause = max(error.retry_after, random.uniform(wait / 2, wait))  # noqa: S311 - jitter, not a secret
                late = time.monotonic() - started + pause > self._patience.again_s
                if late or error.retry_after > self._patience.told_s:
                    raise
                time.sleep(pause)
        return self._understand(attempt)

    def _understand(self, attempt: Callable[[], T]) -> T:
        """Run `attempt`; a good answer that the client cannot read is one that went wrong on its way."""
        try:
            return attempt()
        except (ValueError, KeyError, TypeError) as error:
            raise Passing(f"an answer of the store could not be read: {type(error).__name__}") from error


def _key(tenant_id: UUID, sha256: str) -> str:
    return f"{tenant_id}/{sha256[:2]}/{sha256}"
