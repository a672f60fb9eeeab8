"""An HTTP client that speaks to the hosted Storage and answers in our errors.

The hosted Storage says HTTP 400 whatever the cause, and the truth in the body: `statusCode` (a string), `error`,
`message`, and a stable `code`. storage3 drops the code and the headers, so answers are judged before it sees them.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import httpx

from tasks.errors import LedgerlineError, Refused, Unavailable
from tasks.storage.files import file_not_found, storage_full, storage_unavailable

# It writes every URL at INFO, and a signed URL is a key to a file.
logging.getLogger("httpx").setLevel(logging.WARNING)


@dataclass(frozen=True)
class Patience:
    """How long the store is waited for, in seconds.

    silence_s: the longest pause within a request. grace_s and slowest: a body may take grace_s plus one second for
    each `slowest` bytes; a pause shorter than silence_s, again and again, is not an answer either.
    waits_s: before each further try of what failed in passing; none begins later than again_s after the first. told_s:
    the longest Retry-After waited for here.
    """

    connect_s: float = 5
    silence_s: float = 20
    grace_s: float = 20
    slowest: int = 64 * 1024
    waits_s: tuple[float, ...] = (0.3, 1.5)
    again_s: float = 15
    told_s: float = 5


class Passing(Unavailable):
    """Unavailable for a cause that may be gone at the next try. retry_after: seconds the store asked us to wait."""

    def __init__(self, detail: str, retry_after: float = 0) -> None:
        hint = {"Retry-After": str(round(retry_after))} if retry_after else {}
        super().__init__("storage_unavailable", "Files cannot be reached right now.", detail=detail, headers=hint)
        self.retry_after = retry_after


class Taken(LedgerlineError):
    """There is an object under this key already."""

    def __init__(self) -> None:
        super().__init__("object_exists", "These bytes are stored already.", status=409)


class Client(httpx.Client):
    """An httpx client that raises our errors, for storage3 and for streams alike, and does not wait for ever."""

    def __init__(self, patience: Patience, tls: ssl.SSLContext) -> None:
        super().__init__(
            verify=tls,
            timeout=httpx.Timeout(patience.silence_s, connect=patience.connect_s),
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=16, keepalive_expiry=30),
        )
        self._patience = patience

    def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
        """Send a request. Raises Passing, Taken, Refused or Unavailable for every answer but a good one."""
        with network_is_passing():
            request.stream = Paced(cast(httpx.SyncByteStream, request.stream), self._patience)
            response = super().send(request, stream=True, **options)
            response.stream = Paced(cast(httpx.SyncByteStream, response.stream), self._patience)
            if response.is_success and stream:
                return response
            try:
                response.read()
            finally:
                response.close()
        if not response.is_success:
            raise judge(response)
        return response


class Paced(httpx.SyncByteStream):
    """A body that must keep up a least pace. A time limit on each read alone lets a trickle last for ever."""

    def __init__(self, stream: httpx.SyncByteStream, patience: Patience) -> None:
        self._stream = stream
        self._patience = patience

    def __iter__(self) -> Iterator[bytes]:
        started, size = time.monotonic(), 0
        for chunk in self._stream:
            size += len(chunk)
            yield chunk
            if time.monotonic() - started > self._patience.grace_s + size / self._patience.slowest:
                raise httpx.ReadTimeout(f"only {size} bytes in {time.monotonic() - started:.0f} s")

    def close(self) -> None:
        """Close what is below."""
        self._stream.close()


@contextmanager
def network_is_passing() -> Iterator[None]:
    """Turns what can go wrong between here and the store into Passing."""
    try:
        yield
    except (httpx.TransportError, httpx.DecodingError, httpx.StreamError) as error:
        raise Passing(f"{type(error).__name__}: {error}") from error


def judge(response: httpx.Response) -> LedgerlineError:
    """What an answer that is not a good one means. `response`: read to its end."""
    said = _body(response)
    status, code, error = _status(response, said), str(said.get("code", "")), str(said.get("error", ""))
    message = str(said.get("message", "")).replace(response.request.headers.get("apikey", "") or "\0", "(the key)")
    detail = f"the store said {status} {code or error}: {message}"[:1000]
    if code == "NoSuchKey" or (status == 404 and error == "not_found"):
        return file_not_found()
    if status == 409 and error == "Duplicate":
        return Taken()
    if status == 413 or code == "EntityTooLarge":
        return Refused("file_too_large", "This file is larger than the file store accepts.", detail=detail, status=413)
    if status in (402, 507):
        return storage_full(detail)
    if _was_signed(response.request) and code == "InvalidJWT":
        return Passing(f"a signed URL of our own was not accepted; {detail}")
    if status in (408, 409, 423, 425, 429) or status >= 500:
        return Passing(detail, _retry_after(response))
    return storage_unavailable(f"{detail}. {_advice(status, code, error)}")


def _advice(status: int, code: str, error: str) -> str:
    if code == "NoSuchBucket" or error == "Bucket not found":
        return (
            "Either there is no such bucket: see STORAGE_BUCKET. Or SUPABASE_SECRET_KEY is expired, or is not the "
            "secret key of this project: Storage then answers as to a stranger, who sees no buckets."
        )
    if status in (401, 403) or code in ("InvalidJWT", "AccessDenied", "SignatureDoesNotMatch"):
        return "SUPABASE_SECRET_KEY is not accepted: it must be the secret key of this project."
    if 300 <= status < 400:
        return "SUPABASE_URL leads to a redirect: use the address it leads to."
    if code == "InvalidMimeType":
        return "The bucket must allow files of every type."
    return "Compare SUPABASE_URL and the bucket with docs/deploy.md."


def _was_signed(request: httpx.Request) -> bool:
    return request.method == "GET" and "/object/sign/" in request.url.path


def _body(response: httpx.Response) -> dict[str, Any]:
    try:
        said = response.json()
    except ValueError:  # a proxy's page
        said = None
    return said if isinstance(said, dict) else {}


def _status(response: httpx.Response, said: dict[str, Any]) -> int:
    text = str(said.get("statusCode", ""))
    return int(text) if text.isdecimal() else response.status_code


def _retry_after(response: httpx.Response) -> float:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else 0.0
