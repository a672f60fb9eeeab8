"""Everybody who may come to the door, and a fresh thing for each of them to ask for."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from uuid import UUID, uuid4

from api_play import Front, Person, make_token, new_job_id
from ledger_play import Play
from psycopg import sql
from webhook_play import hook
from werkzeug.test import TestResponse

from api.house import house_of
from tasks.storage import LocalStorage
from tasks.webhooks import registry

# Who a route is open to, and which of a tenant's members and keys those are.
MEMBERS = {"viewer", "reviewer", "editor", "owner", "viewer key", "reviewer key", "editor key"}
REVIEWERS = MEMBERS - {"viewer", "viewer key"}
EDITORS = REVIEWERS - {"reviewer", "reviewer key"}
OWNERS = {"owner"}
USERS = MEMBERS | {"other tenant"}
# Who never gets in, and why.
REFUSED = {
    "no token": "token_missing",
    "expired token": "token_expired",
    "expired key": "key_expired",
    "revoked key": "key_invalid",
}
EVERYBODY = USERS | set(REFUSED)


class Stage:
    """What there is to ask for. Everything is the tenant's own, and new each time: what one asker does to it, the next
    does not meet."""

    def __init__(self, front: Front) -> None:
        self.front = front
        self.play: Play = front.play
        self._webhook = new_job_id()

    def document(self) -> UUID:
        """A document that nothing was done with."""
        return self.play.add_document(str(uuid4()))

    def job(self) -> UUID:
        """A job that waits for a worker."""
        return self.play.submit("line")

    def failed_job(self) -> UUID:
        """A job that may be retried."""
        job = self._next("one")
        self.play.fail(self.play.begin())
        return job

    def finished_job(self) -> UUID:
        """A job that is over and has made a file."""
        data = str(uuid4()).encode()
        file = {"name": "a.txt", "media_type": "text/plain", "bytes": len(data)}
        file["sha256"] = self._store(data)
        job = self._next("one")
        self.play.complete(self.play.begin(), str(uuid4()), artifacts=[file])
        return job

    def artifact(self) -> UUID:
        """A file that a job has made."""
        made: UUID = self.play.one("select id from artifacts where job_id = %s", self.finished_job())
        return made

    def review(self) -> UUID:
        """A review that is open."""
        job = self._next("reviewed")
        self.play.complete(self.play.begin(), str(uuid4()))
        opened: UUID = self.play.one("select id from reviews where job_id = %s", job)
        return opened

    def key(self) -> UUID:
        """An API key."""
        return self.play.add_key(self.play.tenant)

    def webhook(self) -> UUID:
        """A webhook."""
        self._webhook = hook(self.play)
        return self._webhook

    def delivery(self) -> UUID:
        """A delivery of the webhook that was made last."""
        pinged: UUID = registry.ping(self.play.connection, self._webhook, self.play.tenant)["id"]
        return pinged

    def link(self) -> str:
        """The token of a signed link."""
        data = str(uuid4()).encode()
        link = house_of(self.front.app).storage.link(self.play.tenant, self._store(data), "a.txt", "text/plain")
        return link.rpartition("/")[2]

    def upload(self) -> UUID:
        """A direct upload whose bytes are there."""
        upload = self.play.add_upload()
        storage = house_of(self.front.app).storage
        assert isinstance(storage, LocalStorage)
        with storage.receive(self.play.tenant, upload) as target:
            target.write(b"hello")
        return upload

    def upload_link(self) -> str:
        """The token of a signed link to send five bytes by."""
        signed = house_of(self.front.app).storage.sign_upload(self.play.tenant, self.upload(), 5)
        return signed.url.rpartition("/")[2]

    def batch(self) -> UUID:
        """A batch whose only item waits to be taken in."""
        return self.play.add_batch({})

    def failed_batch(self) -> UUID:
        """A batch that has a failed job."""
        batch, job = self.batch(), self.failed_job()
        self.play.connection.execute("update jobs set batch_id = %s where id = %s", [batch, job])
        return batch

    def _next(self, pipeline: str) -> UUID:
        """A job whose step run is the next to be claimed: whatever else waits is taken first."""
        self.play.begin_all()
        return self.play.submit(pipeline)

    def _store(self, data: bytes) -> str:
        digest = _digest(data)
        with NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            house_of(self.front.app).storage.put(self.play.tenant, digest, Path(file.name))
        return digest


Maker = Callable[[Stage], object]
# What stands in a path, unless a row says otherwise.
PARTS: dict[str, Maker] = {
    "document_id": Stage.document,
    "job_id": Stage.job,
    "batch_id": Stage.batch,
    "review_id": Stage.review,
    "artifact_id": Stage.artifact,
    "key_id": Stage.key,
    "webhook_id": Stage.webhook,
    "delivery_id": Stage.delivery,
    "token": Stage.link,
}


@dataclass(frozen=True)
class Row:
    """One route of the matrix.

    `open_to`: who may call it. `status`: what those are answered. `elsewhere`: what the owner of another tenant is
    answered with this tenant's ids; by itself 404 where the path names something, else as in the own tenant. `send`:
    what goes with the request, as the test client takes it. `parts`: what stands in the path, by name. `live`: the
    answer has no end.
    """

    open_to: set[str]
    status: int
    elsewhere: int | None = None
    send: Callable[[Stage], dict[str, Any]] = lambda stage: {}
    parts: dict[str, Maker] = field(default_factory=dict)
    live: bool = False

    def expected(self, asker: str, path: str) -> int:
        """The status that an asker is answered with."""
        if asker in REFUSED and self.open_to != EVERYBODY:
            return 401
        if asker == "other tenant" and self.open_to not in (EVERYBODY, USERS):
            return self.elsewhere or (404 if "{" in path else self.status)
        return self.status if asker in self.open_to else 403


def body(**values: Any) -> Callable[[Stage], dict[str, Any]]:
    """Send this as JSON. Functions are called with the stage first."""

    def send(stage: Stage) -> dict[str, Any]:
        return {"json": {name: str(one(stage)) if callable(one) else one for name, one in values.items()}}

    return send


def file(stage: Stage) -> dict[str, Any]:
    """Send a file, as a form does."""
    data = f"Once upon a time. {uuid4()}".encode()
    return {"data": {"file": (BytesIO(data), "story.txt")}, "content_type": "multipart/form-data"}


def lines(stage: Stage) -> dict[str, Any]:
    """Send a batch of one item."""
    query = {"pipeline": "line"}
    return {"query_string": query, "data": b'{"params": {}}\n', "content_type": "application/x-ndjson"}


def bytes_alone(stage: Stage) -> dict[str, Any]:
    """Send five bytes as they are."""
    return {"data": b"hello", "content_type": "application/octet-stream"}


def askers(front: Front) -> dict[str, Person]:
    """Everybody. Keys were used a moment ago, so that using them writes nothing."""
    found = {role: front.person(role) for role in ("viewer", "reviewer", "editor", "owner")}
    found |= {f"{role} key": front.key(role) for role in ("viewer", "reviewer", "editor")}
    found |= {"expired key": front.key(), "revoked key": front.key(), "other tenant": front.stranger()}
    front.play.connection.execute("update api_keys set last_used_at = ledger.now()")
    front.play.connection.execute(
        "update api_keys set created_at = '2020-01-01', expires_at = '2020-02-02' where id = %s",
        [found["expired key"].user],
    )
    found["owner"].call("DELETE", f"/keys/{found['revoked key'].user}")
    over = Person(front.app, front.person().user)
    over.token = make_token(over.user, exp=1_000_000_000)
    return found | {"expired token": over, "no token": Nobody(front.app, uuid4())}


class Nobody(Person):
    """Somebody who shows nothing."""

    def bearer(self) -> dict[str, Any]:
        return {}


def ask(stage: Stage, row: Row, person: Person, method: str, path: str) -> tuple[TestResponse, bool]:
    """The answer to somebody, and whether anything in the ledger is different after it."""
    sent = row.send(stage)
    for name in re.findall(r"{(\w+)}", path):
        path = path.replace(f"{{{name}}}", str((PARTS | row.parts)[name](stage)))
    before = contents(stage.play)
    response = person.call(method, path, buffered=not row.live, **sent)
    response.close()
    return response, contents(stage.play) != before


def contents(play: Play) -> list[dict[str, Any]]:
    """A digest of every table that belongs to tenants."""
    tables = play.all(
        "select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace order by 1"
    )
    digest = sql.SQL("select {name} as name, md5(string_agg(t::text, '' order by t::text)) from {table} t")
    query = sql.SQL(" union all ").join(
        digest.format(name=sql.Literal(one["relname"]), table=sql.Identifier("public", one["relname"]))
        for one in tables
    )
    return play.connection.execute(query).fetchall()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
