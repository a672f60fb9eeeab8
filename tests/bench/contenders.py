"""Who takes part. Each contender is a module with the same four functions:

    prepare(url)                tables, in its own empty database
    environment(place)          what its workers and submitters read from the environment
    command()                   the command line of one worker process
    submitter(shape, width)     a context that gives a function: submit the job of this mark; called from threads

Each is set up as its documentation says, with the number of processes and the batch size that were fastest here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, cast

from bench.servers import Servers

Submitter = AbstractContextManager[Callable[[str], None]]


@dataclass(frozen=True)
class Place:
    """Where a contender lives for the time of the benchmark."""

    name: str
    url: str
    servers: Servers


@dataclass(frozen=True)
class Contender:
    """One way to do the work. `processes`: how many workers share the two cores."""

    name: str
    title: str
    module: str
    processes: int = 1
    options: dict[str, str] = field(default_factory=dict)

    @property
    def needs_redis(self) -> bool:
        """Whether it has a broker beside Postgres."""
        return self.module == "bench.with_celery"

    def settle(self, servers: Servers, database: str) -> Place:
        """Give it a database, and make its tables there."""
        place = Place(database, servers.make_database(database), servers)
        os.environ.update(self.environment(place))
        self._call("prepare", place.url)
        return place

    def environment(self, place: Place) -> dict[str, str]:
        """For its processes, on top of what this process has."""
        own = cast(dict[str, str], self._call("environment", place))
        return {"BENCH_URL": place.url, **self.options, **own}

    def command(self) -> list[str]:
        """One worker process."""
        return cast(list[str], self._call("command"))

    def submitter(self, shape: str, width: int = 0) -> Submitter:
        """Opens what submitting needs."""
        return cast(Submitter, self._call("submitter", shape, width))

    def _call(self, function: str, *arguments: Any) -> Any:
        return getattr(import_module(self.module), function)(*arguments)


OURS = "ledgerline"

CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender(OURS, "Ledgerline", "bench.with_ledgerline"),
        Contender("celery_late", "Celery + Redis, acks_late, prefetch 1", "bench.with_celery",
                  options={"BENCH_CELERY": "late"}),
        Contender("celery_plain", "Celery + Redis, acks_late, one row a job", "bench.with_celery",
                  options={"BENCH_CELERY": "late", "BENCH_LEDGER": "plain"}),
        Contender("celery", "Celery + Redis, default", "bench.with_celery", options={"BENCH_CELERY": "default"}),
        Contender("procrastinate", "Procrastinate, stock", "bench.with_procrastinate"),
        Contender("pgqueuer", "PgQueuer", "bench.with_pgqueuer"),
        Contender("dbos", "DBOS", "bench.with_dbos"),
    )
}  # fmt: skip
