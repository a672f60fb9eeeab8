"""People at the front door: tokens, calls, and an API to call, in this process or served for real.

Every answer that comes through `Person` is held against the API's own OpenAPI document: status, error code and shape.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
from flask import Flask
from jsonschema import Draft202012Validator
from ledger_play import Play
from waiting import until
from werkzeug.exceptions import HTTPException
from werkzeug.test import TestResponse

from api.docs import document
from api.openapi import full_path
from tasks import ledger
from tasks.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
SECRET = "a secret that is long enough for HS256"
ISSUER = "http://127.0.0.1/auth/v1"
PREFIX = "/api/v1"
NEW: dict[str, Any] = {"pipeline": "line", "params": {"width": 4}}


def make_settings(database_url: str, folder: Path, **others: Any) -> Settings:
    """Settings of an API for tests. Names in lower case."""
    known: dict[str, Any] = {
        "database_url": database_url,
        "jwt_secret": SECRET,
        "jwt_issuer": ISSUER,
        "link_secret": "another secret",
        "storage_path": folder,
        # Tests are in a hurry; those of the rate have one of their own.
        "requests_per_minute": 1_000_000,
    }
    return Settings(_env_file=None, **known | others)  # type: ignore[call-arg]


def make_claims(user: UUID | str, **others: Any) -> dict[str, Any]:
    """Claims as Supabase Auth makes them. None leaves one out."""
    now = int(time.time())
    claims = {"iss": ISSUER, "sub": str(user), "aud": "authenticated", "exp": now + 3600, "iat": now}
    claims |= {"role": "authenticated", "email": "writer@example.com", "is_anonymous": False, "session_id": "s"}
    return {name: value for name, value in (claims | others).items() if value is not None}


def make_token(user: UUID | str, secret: str = SECRET, **claims: Any) -> str:
    """An access token."""
    return jwt.encode(make_claims(user, **claims), secret, algorithm="HS256")


@dataclass
class Person:
    """A user or machine that calls an app. `tenant`: sent as X-Tenant-Id when given. `token`: or a key."""

    app: Flask
    user: UUID
    tenant: UUID | None = None
    token: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, **request: Any) -> TestResponse:
        return self.call("GET", path, **request)

    def post(self, path: str, **request: Any) -> TestResponse:
        return self.call("POST", path, **request)

    def upload(self, data: bytes, name: str = "story.txt", query: str = "", **fields: str) -> TestResponse:
        form = {"file": (_file(data), name), **fields}
        return self.call("POST", f"/documents{query}", data=form, content_type="multipart/form-data")

    def call(self, method: str, path: str, **request: Any) -> TestResponse:
        headers = self.bearer() | self.headers | request.pop("headers", {})
        given = {name: value for name, value in headers.items() if value is not None}
        path = path if path.startswith(("/api/", "/healthz", "/readyz", "/metrics")) else PREFIX + path
        response = self.app.test_client().open(path, method=method, headers=given, **{"buffered": True} | request)
        check_promise(self.app, method, response)
        return response

    def bearer(self) -> dict[str, Any]:
        sent = {"Authorization": f"Bearer {self.token or make_token(self.user)}"}
        return sent | ({"X-Tenant-Id": str(self.tenant)} if self.tenant else {})


def _file(data: bytes) -> Any:
    return BytesIO(data)


def error_code(response: TestResponse | httpx.Response) -> str:
    """The code of an error, empty when it is none."""
    if response.status_code < 400:
        return ""
    body = response.json() if isinstance(response, httpx.Response) else response.get_json()
    return str(body["error"]["code"]) if "error" in body else ""


def check_promise(app: Flask, method: str, response: TestResponse) -> None:
    """AssertionError when an answer is not what the OpenAPI document promises."""
    assert response.headers["X-Request-Id"]
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    operation = _operation(app, method, response.request.path)
    if operation is None:
        assert error_code(response) in ("not_found", "method_not_allowed")
        return
    promised = operation["responses"][str(response.status_code)]
    content = promised.get("content", {}).get(response.mimetype)
    if not response.is_streamed and response.mimetype == "application/json" and content and "schema" in content:
        _validator(app, content["schema"]).validate(response.get_json())
    if error_code(response):
        assert f"`{error_code(response)}`" in promised["description"], error_code(response)


def _operation(app: Flask, method: str, path: str) -> dict[str, Any] | None:
    try:
        endpoint, _ = app.url_map.bind("").match(path, method)
    except HTTPException:
        return None
    call = app.view_functions[endpoint].call  # type: ignore[attr-defined]
    found: dict[str, Any] = document(app)["paths"][full_path(call)][call.method.lower()]
    return found


def _validator(app: Flask, schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator(schema | {"components": document(app)["components"]})


@dataclass
class Front:
    """An app, and a tenant at its door. `play` plays the tenant and its workers in the same database."""

    app: Flask
    settings: Settings
    play: Play

    def person(self, role: str = "owner", tenant: UUID | None = None) -> Person:
        """A new member of a tenant."""
        user = uuid4()
        self.join(user, tenant or self.play.tenant, role)
        return Person(self.app, user)

    def join(self, user: UUID, tenant: UUID, role: str = "owner") -> None:
        """Make a user a member."""
        self.play.all("insert into members values (%s, %s, %s) returning role", tenant, user, role)

    def stranger(self) -> Person:
        """The owner of another tenant."""
        return self.person(tenant=self.play.add_tenant())

    def key(self, role: str = "editor", **others: Any) -> Person:
        """A machine with a key of the tenant. `others`: of the body it is made with."""
        made = self.person().post("/keys", json={"name": "A machine", "role": role} | others).get_json()
        return Person(self.app, UUID(made["id"]), token=made["secret"])

    @property
    def stored(self) -> list[Path]:
        """Every file in storage, what is on its way included."""
        return [path for path in self.settings.storage_path.rglob("*") if path.is_file()]


def submit_job(front: Front, person: Person | None = None, **body: Any) -> dict[str, Any]:
    """A job of somebody, as it was answered. `body`: what differs from NEW."""
    response = (person or front.person()).post("/jobs", json=NEW | body)
    assert response.status_code == 202, response.get_json()
    return dict(response.get_json())


def finish_job(play: Play, job: UUID | str) -> None:
    """Work on one job as a worker does, to its end."""
    play.beat(took_from=["cpu", "llm"])
    play.finish_all()
    assert play.job(UUID(str(job)))["status"] == "completed"


@dataclass
class Served:
    """An API that is served by gunicorn, as in production."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def client(self, person: Person | None = None, **others: Any) -> httpx.Client:
        """A client that calls it as somebody."""
        headers = person.bearer() if person else {}
        return httpx.Client(base_url=self.url + PREFIX, headers=headers, timeout=20, **others)

    @property
    def worker_pid(self) -> int:
        """The process that serves."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])


@contextmanager
def serve(settings: Settings, log: Path, wrap: tuple[str, ...] = (), **others: str) -> Iterator[Served]:
    """Start gunicorn as the Procfile does, and wait until it answers. `wrap`: a command to start it under."""
    port = free_port()
    environment = _as_environment(settings) | {"HOST": "127.0.0.1", "PORT": str(port)} | others
    command = [*wrap, sys.executable, "-m", "gunicorn", "--config", "api/gunicorn.py", "api:create_app()"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    served = Served(f"http://127.0.0.1:{port}", process, log)
    try:
        until(lambda: process.poll() is not None or _answers(served.url))
        assert process.poll() is None, log.read_text()
        yield served
    finally:
        process.terminate()
        process.wait(30)


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def _as_environment(settings: Settings) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        kept[name.upper()] = value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)
    return kept


def new_job_id() -> UUID:
    """An id that no job has."""
    return ledger.new_id()
