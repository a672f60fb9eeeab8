"""A tenant, a user and a worker at the ledger: every transition is one call, on whatever connection a test has."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tasks import batches, keys, ledger
from tasks.errors import Refused
from tasks.pipeline import QUEUES
from tasks.pipelines import declared

Row = dict[str, Any]
Work = dict[str, Any]

SAMPLES = ("sample_pipelines",)


def digest(value: object) -> str:
    """sha256 (hex) of a value's JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def items(count: int, first: int = 0) -> list[Row]:
    """So many items, as a step that is mapped over hands them in."""
    return [{"digest": digest(number), "value": {"value": number}} for number in range(first, first + count)]


class Play:
    """Plays all parts. `connection`: dict rows; in a transaction to roll back, or autocommit."""

    def __init__(self, connection: psycopg.Connection[Row], packages: tuple[str, ...] = SAMPLES) -> None:
        self.connection = connection
        self.user = uuid4()
        self.worker = uuid4()
        self.tenant = self.add_tenant(self.user)
        ledger.publish(connection, declared(packages).values(), "tests")

    def on(self, connection: psycopg.Connection[Row]) -> Play:
        """The same people on another connection."""
        other = object.__new__(Play)
        other.__dict__ = self.__dict__ | {"connection": connection}
        return other

    # What is there

    def all(self, query: LiteralString, *arguments: Any) -> list[Row]:
        return self.connection.execute(query, arguments or None).fetchall()

    def one(self, query: LiteralString, *arguments: Any) -> Any:
        """The only value of the only row."""
        (row,) = self.all(query, *arguments)
        (value,) = row.values()
        return value

    def job(self, job: UUID) -> Row:
        (row,) = self.all("select * from jobs where id = %s", job)
        return row

    def runs(self, job: UUID, step: str | None = None) -> list[Row]:
        query: LiteralString = (
            "select * from job_steps where job_id = %s and step = coalesce(%s, step) order by created_at, item"
        )
        return self.all(query, job, step)

    def run(self, job: UUID, step: str, item: int | None = None) -> Row:
        query: LiteralString = (
            "select * from job_steps where (job_id, step) = (%s, %s) and item is not distinct from %s"
        )
        (row,) = self.all(query, job, step, item)
        return row

    def statuses(self, job: UUID, step: str | None = None) -> list[str]:
        return [run["status"] for run in self.runs(job, step)]

    def events(self, job: UUID) -> list[Row]:
        return self.all("select * from job_events where job_id = %s order by seq", job)

    def kinds(self, job: UUID) -> list[str]:
        return [event["kind"] for event in self.events(job)]

    def artifacts(self, job: UUID) -> list[Row]:
        return self.all("select * from artifacts where job_id = %s order by step, item, name", job)

    def failures(self, job: UUID) -> list[Row]:
        return self.all("select * from ops.failures where job_id = %s order by id", job)

    def queue(self) -> list[Row]:
        """The queue jobs of step runs; the hourly chore comes and goes as it likes."""
        return self.all("select * from procrastinate.procrastinate_jobs where task_name <> 'prune' order by id")

    def drift(self) -> list[Row]:
        return self.all("select * from ops.drift")

    # What people do

    def add_tenant(self, *members: UUID) -> UUID:
        tenant = ledger.new_id()
        self.connection.execute("insert into tenants (id, name) values (%s, 'A tenant')", [tenant])
        for member in members:
            self.connection.execute("insert into members values (%s, %s, 'owner')", [tenant, member])
        return tenant

    def add_document(self, content: str = "Once.", kind: str = "txt", tenant: UUID | None = None) -> UUID:
        document = {"id": ledger.new_id(), "tenant_id": tenant or self.tenant, "user_id": self.user, "kind": kind}
        document |= {"title": "A story", "filename": f"story.{kind}", "media_type": "text/plain"}
        document |= {"bytes": len(content), "sha256": hashlib.sha256(content.encode()).hexdigest()}
        added: UUID = ledger.add_document(self.connection, document)["id"]
        return added

    def add_upload(self, tenant: UUID | None = None) -> UUID:
        """A direct upload of five bytes that has been announced."""
        upload = {"id": ledger.new_id(), "tenant_id": tenant or self.tenant, "user_id": None, "filename": "a.txt"}
        ledger.open_upload(self.connection, upload | {"title": "a", "bytes": 5, "sha256": None, "ttl_s": 60})
        return UUID(str(upload["id"]))

    def add_batch(
        self, *items: Row, pipeline: str = "line", key: str | None = None, tenant: UUID | None = None
    ) -> UUID:
        """A batch of these items, as the front door makes it."""
        batch, of = ledger.new_id(), tenant or self.tenant
        with self.connection.transaction():
            batches.open_batch(self.connection, batch, of, self.user, pipeline)
            with batches.copying_items(self.connection) as copy:
                for nr, item in enumerate(items, start=1):
                    told = [item.get(name) for name in ("key", "document_id", "path", "title")]
                    copy.write_row([batch, nr, of, *told, Jsonb(item.get("params", {})), "waiting", None, None])
            batches.close_batch(self.connection, batch, len(items), key, "digest")
        return batch

    def add_key(self, tenant: UUID | None = None, role: str = "viewer") -> UUID:
        """An API key, whose secret nobody knows."""
        secret = {"prefix": "llk_00000000", "digest": digest(str(uuid4()))}
        made = keys.create(
            self.connection, tenant or self.tenant, self.user, name="A key", role=role, expires_in_days=None, **secret
        )
        return UUID(str(made["id"]))

    def send(self, pipeline: str = "line", **request: Any) -> ledger.Submitted:
        """Submit. Parameters of Submission by name; without any, the parameters differ each time."""
        request = {"tenant_id": self.tenant, "user_id": self.user, "params": {"mark": str(uuid4())}} | request
        return ledger.submit(self.connection, ledger.Submission(pipeline=pipeline, **request))

    def submit(self, pipeline: str = "line", **request: Any) -> UUID:
        return self.send(pipeline, **request).job_id

    def cancel(self, job: UUID, reason: str = "") -> str:
        return ledger.cancel(self.connection, job, self.tenant, self.user, reason)

    def retry(self, job: UUID) -> None:
        ledger.retry(self.connection, job, self.tenant, self.user)

    # What workers do

    def claim(self, queues: list[str] | None = None, most: int = 1, worker: UUID | None = None) -> list[Row]:
        served = queues or [queue for queue in QUEUES if queue != "maintenance"]  # where the hourly chore is
        arguments = [served, worker or self.worker, None, most]
        return self.connection.execute("select * from ledger.claim(%s, %s, %s, %s)", arguments).fetchall()

    def begin(self, *, most: int = 1, worker: UUID | None = None) -> Work:
        """Claim one; the work that came with it."""
        (row,) = self.claim(most=most, worker=worker)
        work: Work = row["work"]
        return work

    def begin_all(self, most: int = 1000) -> list[Work]:
        return [row["work"] for row in self.claim(most=most)]

    def complete(self, work: Work, value: object = None, items: list[Row] | None = None, **result: Any) -> bool:
        """Hand in a result: a value, or what `result` says: reuse, blob, artifacts, digest."""
        if "reuse" not in result:
            content = {} if "blob" in result else {"value": {"value": value}}
            result = {"digest": digest(value)} | content | result
        arguments = [work["step_run"], work["attempt"], Jsonb(result), None if items is None else Jsonb(items)]
        return bool(self.one("select ledger.complete(%s, %s, %s, %s)", *arguments))

    def run_on(self, *works: Work, queues: Iterable[str] = ("llm",)) -> list[Any]:
        """Hand in results as a worker with room in these queues; what it goes on with, or if each was accepted."""
        said = {"verb": "complete", "result": {"digest": digest(1), "value": {"value": 1}}, "run_on": list(queues)}
        tokens = [{"step_run": work["step_run"], "attempt": work["attempt"]} for work in works]
        outcomes = [Jsonb(said | token) for token in tokens]
        answers: list[Any] = self.one("select ledger.settle(%s::jsonb[], %s)", outcomes, self.worker)
        return answers

    def fail(self, work: Work, code: str = "broken", retry_in: float | None = None, detail: str = "secret") -> bool:
        arguments = [work["step_run"], work["attempt"], code, f"It is {code}.", detail, retry_in]
        return bool(self.one("select ledger.fail(%s, %s, %s, %s, %s, %s)", *arguments))

    def release(self, work: Work) -> bool:
        return bool(self.one("select ledger.release(%s, %s)", work["step_run"], work["attempt"]))

    def report(self, work: Work, current: int, total: int, message: str = "") -> bool:
        arguments = [work["step_run"], work["attempt"], current, total, message]
        return bool(self.one("select ledger.report_progress(%s, %s, %s, %s, %s)", *arguments))

    def beat(self, *works: Work, worker: UUID | None = None, took_from: list[str] | None = None) -> list[UUID]:
        """Show life, holding these. Returns what is no longer the worker's own."""
        held = Jsonb({work["step_run"]: work["attempt"] for work in works})
        arguments = [worker or self.worker, "here", 1, "tests", ["cpu", "llm"], took_from or [], held, False]
        revoked: list[UUID] = self.one("select ledger.beat(%s, %s, %s, %s, %s, %s, %s, %s)", *arguments)
        return revoked

    def finish_all(self, width: int = 3) -> int:
        """Claim and complete until the queue is empty; steps that are mapped over give `width` items."""
        done = 0
        while works := self.begin_all():
            for work in works:
                done += self.complete(work, work["item"], items(width) if work["mapped"] else None)
        return done

    # What time does

    def pass_time(self, seconds: float) -> None:
        """Move the ledger's clock, for this connection, and in a transaction only until it ends."""
        offset = f"{seconds:f} s"
        local = self.connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE
        self.connection.execute("select set_config('ledger.clock_offset', %s, %s)", [offset, local])

    def reconcile(self, job: UUID | None = None, lease: float = 30, timeout: float = 300, losses: int = 3) -> int:
        repairs: int = self.one("select ledger.reconcile(%s, %s, %s, %s)", lease, timeout, losses, job)
        return repairs


@contextmanager
def refused(connection: psycopg.Connection[Row], code: str, status: int) -> Iterator[pytest.ExceptionInfo[Refused]]:
    """What happens inside is refused with this code and status; nothing of it stays."""
    with pytest.raises(Refused) as caught, connection.transaction():
        yield caught
    assert (caught.value.code, caught.value.status) == (code, status)
    assert caught.value.message.endswith(".")


@contextmanager
def broken(connection: psycopg.Connection[Row], constraint: str | None = None) -> Iterator[None]:
    """What happens inside breaks a constraint of the tables; nothing of it stays."""
    with pytest.raises(psycopg.errors.IntegrityError) as caught, connection.transaction():
        yield
    if constraint is not None:
        assert caught.value.diag.constraint_name == constraint
