"""An endpoint as the other side has it: https over a real socket, with a certificate of an authority of its own, taking
letters or failing to in all the ways that endpoints fail; and a courier to send them."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import socket
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from api_play import make_settings
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from ledger_play import Play
from psycopg_pool import AsyncConnectionPool
from standardwebhooks import Webhook

from tasks.db import Row, statement_connection
from tasks.settings import Settings
from tasks.webhooks import registry
from tasks.webhooks.addresses import Resolve, resolve
from tasks.webhooks.courier import Courier
from tasks.webhooks.post import Post

NAME = "hooks.example.test"
URL = f"https://{NAME}/hook"
DAY_S = 86_400.0
KINDS = ["submitted", "awaiting_review", "completed", "failed", "cancelled", "reopened"]

Behaviour = Callable[["Handler"], None]


class Authority:
    """A certificate authority. `certificates`: its own, as a file; `identity`: of a server, with its key, as a file."""

    def __init__(self, folder: Path, *names: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.certificates = folder / "authority.pem"
        self.identity = folder / "identity.pem"
        key, own_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "An authority for tests")])
        root = _certificate(issuer, issuer, key, key, x509.BasicConstraints(ca=True, path_length=0))
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "An endpoint")])
        known = [x509.DNSName(name) for name in names] + [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        leaf = _certificate(subject, issuer, own_key, key, x509.SubjectAlternativeName(known))
        self.certificates.write_bytes(root.public_bytes(serialization.Encoding.PEM))
        self.identity.write_bytes(
            own_key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + leaf.public_bytes(serialization.Encoding.PEM)
        )


def _certificate(subject: x509.Name, issuer: x509.Name, key: Any, signer: Any, extension: Any) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(hours=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=1)).add_extension(extension, critical=False)
    return builder.sign(signer, hashes.SHA256())


@dataclass
class Heard:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes
    name: str | None  # that the certificate was asked for (SNI)

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def said(self) -> Any:
        return json.loads(self.body)

    def verified(self, secret: str) -> Any:
        """What it says, when it was signed with the secret. Raises WebhookVerificationError."""
        return Webhook(secret).verify(self.body, self.headers)


class Handler(BaseHTTPRequestHandler):
    """Notes what it hears, and behaves as the receiver says."""

    server: Receiver
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        self.connection = self.request
        if self.server.identity is not None:
            self.connection = self.server.identity.wrap_socket(self.request, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        name = self.server.names.get(self.connection)
        self.server.heard.append(Heard(self.path, dict(self.headers.items()), body, name))
        self.server.behave(self)
        self.close_connection = True

    def finish(self) -> None:
        with suppress(OSError):
            super().finish()
            self.connection.close()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Receiver(ThreadingHTTPServer):
    """An endpoint that listens on loopback. `identity`: its certificate and key; None for plain http."""

    daemon_threads = True

    def __init__(self, identity: Path | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.heard: list[Heard] = []
        self.names: dict[Any, str | None] = {}
        self.behave: Behaviour = status(204)
        self.let_go = threading.Event()
        self.identity = None
        if identity is not None:
            self.identity = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.identity.load_cert_chain(identity)
            self.identity.sni_callback = lambda connection, name, _: self.names.update({connection: name})

    def url(self, host: str = "localhost", path: str = "/hook") -> str:
        return f"{'https' if self.identity else 'http'}://{host}:{self.server_port}{path}"

    def handle_error(self, *_: Any) -> None:
        """Connections that break are what this is about."""


@contextmanager
def receiving(identity: Path | None) -> Iterator[Receiver]:
    """A receiver while the block runs."""
    receiver = Receiver(identity)
    threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield receiver
    finally:
        receiver.let_go.set()
        receiver.shutdown()
        receiver.server_close()


# How endpoints behave


def status(code: int, **headers: str) -> Behaviour:
    """Answer at once. Headers with _ for -."""

    def behave(handler: Handler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return behave


def hang(handler: Handler) -> None:
    """Answer 204 when told to, and not before."""
    handler.server.let_go.wait(60)
    status(204)(handler)


def trickle(handler: Handler) -> None:
    """Begin an answer, and never come to its end."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    _drip(handler, b"X-More: and more\r\n")


def talk_for_ever(handler: Handler) -> None:
    """A good answer with a body that has no end."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
    _drip(handler, b"and then ")


def _drip(handler: Handler, drop: bytes) -> None:
    with suppress(OSError):
        while not handler.server.let_go.wait(0.05):
            handler.wfile.write(drop)


def reset(handler: Handler) -> None:
    """Hang up without a word."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


# The sender


def sender_settings(url: str, folder: Path, authority: Authority, **others: Any) -> Settings:
    """Settings of a sender that reaches the receivers of tests, and trusts their authority."""
    known = {"webhook_allow_loopback": True, "webhook_ca_file": authority.certificates, "webhook_timeout_s": 5.0}
    return make_settings(url, folder, **known | others)


def lead_to(*addresses: str) -> Resolve:
    """A resolver that knows these addresses of every host."""
    return lambda host, port: list(addresses)


class Sender:
    """A courier for a ledger, one round at a time."""

    def __init__(self, play: Play, settings: Settings, look_up: Resolve = resolve) -> None:
        self.play = play
        self.settings = settings
        self.look_up = look_up

    def send_due(self, later_s: float = 0.0) -> None:
        """Send what is due, with the ledger's clock moved."""
        self.run(self._send_due, later_s)

    def run(self, scene: Callable[[Any], Awaitable[None]], later_s: float) -> None:
        """Do something with a worker's connections, whose clock is moved."""

        async def play() -> None:
            options = {"options": f"-c ledger.clock_offset={later_s:f}s"}
            connect = statement_connection() | options
            async with AsyncConnectionPool(self.settings.direct_url, kwargs=connect, min_size=1, open=False) as pool:
                await scene(pool)

        asyncio.run(play())

    async def _send_due(self, pool: Any) -> None:
        courier = Courier(self.settings, pool, Post(self.settings, self.look_up))
        await courier.deliver()
        await courier.drain()
        await courier.close()


def register(
    connection: psycopg.Connection[Row],
    tenant: UUID,
    url: str,
    kinds: list[str] | None = None,
    user: UUID | None = None,
) -> tuple[UUID, str]:
    """A webhook; its id and secret."""
    registration = registry.Registration(tenant, user or tenant, url, kinds or KINDS)
    webhook, secret = registry.add(connection, registration, 1000)
    return webhook["id"], secret


def deliveries(play: Play, webhook: UUID) -> list[Row]:
    """In the order of their birth."""
    return play.all("select * from webhook_deliveries where webhook_id = %s order by created_at, seq", webhook)


def hook(play: Play, *kinds: str, tenant: UUID | None = None) -> UUID:
    """A webhook somewhere, of the play's tenant unless told; told of all kinds unless told."""
    return register(play.connection, tenant or play.tenant, URL, list(kinds), play.user)[0]


def told(play: Play, webhook: UUID) -> list[str]:
    """The kinds of its deliveries."""
    return [delivery["kind"] for delivery in deliveries(play, webhook)]


def take(play: Play, most: int = 100, each: int = 100, *busy: UUID) -> list[Row]:
    """Take what is due, as a worker that has letters for `busy` in hand."""
    return play.all("select * from ledger.claim_deliveries(%s, %s, %s, 40)", most, each, list(busy))


def settle(play: Play, taken: dict[str, Any], code: str | None = None, **report: Any) -> bool | None:
    """Report an attempt, as a worker does."""
    known = {"status": 500 if code else 204, "retry_in": 5.0, "gone": False, "patience": 5 * DAY_S} | report
    sentence = code and f"It is {code}."
    arguments = [taken["id"], taken["attempt"], known["status"], code, sentence]
    arguments += [known["retry_in"], known["gone"], known["patience"]]
    query: LiteralString = "select ledger.settle_delivery(%s, %s, %s, %s, %s, %s, %s, %s)"
    settled: bool | None = play.one(query, *arguments)
    return settled
