"""One attempt at one delivery: looked up, connected, signed, sent, and what came of it.

The status decides; the body of the answer is not read, redirects are not followed, and one limit is on everything.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import UUID

import httpx
from standardwebhooks import Webhook

from tasks.errors import Refused
from tasks.settings import Settings
from tasks.webhooks.addresses import Endpoint, Resolve, check_addresses, read_endpoint, resolve, unresolved

LOOK_UPS = 64
_USER_AGENT = "Ledgerline-Webhooks/1"
_GONE = 410


@dataclass(frozen=True)
class Letter:
    """A delivery in a worker's hand. `failures`: attempts before this one that failed."""

    id: UUID
    webhook_id: UUID
    tenant_id: UUID
    attempt: int
    failures: int
    url: str
    payload: dict[str, Any]
    secrets: list[str]


@dataclass(frozen=True)
class Answer:
    """What came of an attempt. `code` is None when the letter was taken; `status` when nobody answered."""

    status: int | None = None
    code: str | None = None
    message: str | None = None
    retry_after: float | None = None

    @property
    def gone(self) -> bool:
        """Whether the endpoint wants no more letters."""
        return self.status == _GONE


class Post:
    """Sends letters. `look_up` finds the addresses of a host."""

    def __init__(self, settings: Settings, look_up: Resolve = resolve) -> None:
        self._timeout_s = settings.webhook_timeout_s
        self._loopback = settings.webhook_allow_loopback
        self._trust = trust(settings)
        self._look_up = look_up
        # Names that are slow to look up hold threads of their own, and not those that other work waits for.
        self._threads = ThreadPoolExecutor(LOOK_UPS, "webhook-look-up")

    def close(self) -> None:
        """Let go of the threads. One that is still looking up ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def send(self, letter: Letter) -> Answer:
        """Make one attempt. Never raises for what the other side does."""
        try:
            async with asyncio.timeout(self._timeout_s):
                endpoint = read_endpoint(letter.url, self._loopback)
                addresses = await self._find(endpoint)
                return await _first(addresses, lambda address: self._call(endpoint, address, letter))
        except TimeoutError:
            return Answer(code="timeout", message=f"The endpoint did not answer within {self._timeout_s:g} seconds.")
        except Refused as refusal:
            return Answer(code=f"url_{refusal.details['reason']}", message=refusal.message)
        except httpx.HTTPError as error:
            return _broken(error)

    async def _find(self, endpoint: Endpoint) -> list[str]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._threads, self._look_up, endpoint.host, endpoint.port)
        except (OSError, UnicodeError):
            raise unresolved() from None
        return check_addresses(endpoint, found, self._loopback)

    async def _call(self, endpoint: Endpoint, address: str, letter: Letter) -> Answer:
        # A client of its own: a connection is never shared between hosts that have the same address.
        transport = httpx.AsyncHTTPTransport(verify=self._trust, trust_env=False)
        patience = httpx.Timeout(self._timeout_s, connect=self._timeout_s / 2)
        body = write_body(letter)
        headers = sign(letter, body) | {
            "Host": endpoint.authority,
            "Content-Type": "application/json",
            "User-Agent": _USER_AGENT,
            "Accept-Encoding": "identity",
            "Connection": "close",
        }
        url = httpx.URL(
            scheme=endpoint.scheme, host=address, port=endpoint.port, raw_path=endpoint.target.encode("ascii")
        )
        async with httpx.AsyncClient(transport=transport, timeout=patience, trust_env=False) as client:
            # To the checked address; certificate and Host are those of the name.
            extensions = {"sni_hostname": endpoint.host}
            async with client.stream("POST", url, content=body, headers=headers, extensions=extensions) as response:
                return _judge(response)


def trust(settings: Settings) -> ssl.SSLContext:
    """Whose certificates count: those of the system's authorities, and of the one that WEBHOOK_CA_FILE names."""
    context = httpx.create_ssl_context(trust_env=False)
    if settings.webhook_ca_file is not None:
        context.load_verify_locations(settings.webhook_ca_file)
    return context


def write_body(letter: Letter) -> str:
    """The body: the same bytes at each attempt."""
    return json.dumps(letter.payload, sort_keys=True, separators=(",", ":"))


def sign(letter: Letter, body: str) -> dict[str, str]:
    """The three headers of the Standard Webhooks, with one signature for each secret that is valid."""
    # Receivers compare with their own clocks: this is the time of day, which nothing may move.
    now = datetime.now(UTC)
    signatures = [Webhook(secret).sign(str(letter.id), now, body) for secret in letter.secrets]
    return {
        "webhook-id": str(letter.id),
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


async def _first(addresses: list[str], call: Callable[[str], Awaitable[Answer]]) -> Answer:
    """Call the first address that can be connected to."""
    for address in addresses[:-1]:
        try:
            return await call(address)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            continue
    return await call(addresses[-1])


def _judge(response: httpx.Response) -> Answer:
    status = response.status_code
    if response.is_success:
        return Answer(status)
    if response.has_redirect_location:
        return Answer(status, "redirected", f"The endpoint answered {status}; redirects are not followed.")
    if status == _GONE:
        return Answer(status, "gone", "The endpoint answered 410: it wants no more.")
    wait = read_retry_after(response.headers.get("Retry-After"))
    return Answer(status, "refused", f"The endpoint answered {status}.", wait)


def _broken(error: httpx.HTTPError) -> Answer:
    if isinstance(error, httpx.TimeoutException):
        return Answer(code="timeout", message="The endpoint did not answer in time.")
    if _has_cause(error, ssl.SSLError):
        return Answer(code="tls_failed", message="The endpoint's certificate is not valid, or it does not speak TLS.")
    if isinstance(error, httpx.ConnectError):
        return Answer(code="connect_failed", message="The endpoint could not be connected to.")
    return Answer(code="connection_lost", message="The connection ended before the endpoint had answered.")


def _has_cause(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None:
        if isinstance(error, kind):
            return True
        error = error.__cause__ or error.__context__
    return False


def read_retry_after(text: str | None) -> float | None:
    """Seconds to wait, of a Retry-After header in either form; None when it says nothing we understand."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text[:9])
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
