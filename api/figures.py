"""What the ledger tells those who watch: jobs, queues, workers, and what became of attempts, in all of the house.

Every question reads few rows at any number of jobs: what has to be counted is counted by the ledger, and kept for as
long as counting took.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from itertools import accumulate

import psycopg
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from psycopg_pool import PoolClosed, PoolTimeout

from api.house import House
from tasks.db import Row, statement
from tasks.ledger import ATTEMPT_BUCKETS
from tasks.pipeline import QUEUES

_PATIENCE_S = 3.0
_MOST_SERIES = 2_000
_AWAY = (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout, PoolClosed)

_log = logging.getLogger("ledgerline.metrics")


class Ledger(Collector):
    """The ledger's figures. While the database is away, only that."""

    def __init__(self, desk: House) -> None:
        self._desk = desk

    def collect(self) -> Iterator[Metric]:
        """All families, each with one question asked."""
        try:
            families = list(self._ask())
        except _AWAY as error:
            _log.warning("the database is away: %s", type(error).__name__)
            families = []
        yield GaugeMetricFamily("ledgerline_database_up", "Whether the database answers.", value=bool(families))
        yield from families

    def _ask(self) -> Iterator[Metric]:
        lease = {"lease_s": self._desk.settings.lease_s}
        with self._desk.pool.connection(timeout=_PATIENCE_S) as connection:
            connection.execute(statement("metrics_count"))
            yield from _tell_jobs(connection.execute(statement("metrics_jobs")).fetchall())
            queues = connection.execute(statement("metrics_queues"), lease | {"queues": list(QUEUES)})
            yield from _tell_queues(queues.fetchall())
            yield from _tell_chores(connection.execute(statement("metrics_chores")).fetchall())
            attempts = connection.execute(statement("metrics_attempts"), {"most": _MOST_SERIES})
            yield from _tell_attempts(attempts.fetchall())


def _tell_jobs(rows: list[Row]) -> Iterator[Metric]:
    yield _gauge("ledgerline_jobs", "Jobs that are not over.", "status", ((row["status"], row["jobs"]) for row in rows))


def _tell_queues(rows: list[Row]) -> Iterator[Metric]:
    for name, about in {
        "depth": "Queue jobs that wait for a worker.",
        "oldest_seconds": "For how long the oldest of them has been waiting.",
    }.items():
        yield _gauge(f"ledgerline_queue_{name}", about, "queue", ((row["queue"], row[name]) for row in rows))
    workers = ((row["queue"], row["workers"]) for row in rows)
    yield _gauge("ledgerline_workers", "Live workers that serve a queue.", "queue", workers)
    paused = ((row["queue"], row["closed"]) for row in rows)
    yield _gauge("ledgerline_queue_closed", "1 while a queue is paused, or slowed down by a provider.", "queue", paused)


def _tell_chores(rows: list[Row]) -> Iterator[Metric]:
    ages = {row["name"]: row["age_s"] for row in rows if row["age_s"] is not None}
    if "sweep" in ages:
        about = "Seconds since the ledger was last reconciled."
        yield GaugeMetricFamily("ledgerline_sweep_age_seconds", about, value=ages["sweep"])
    repairs = CounterMetricFamily("ledgerline_repairs", "What had to be repaired.", labels=["chore"])
    for row in rows:
        repairs.add_metric([row["name"]], row["repairs"])
    yield repairs


def _tell_attempts(rows: list[Row]) -> Iterator[Metric]:
    attempts = CounterMetricFamily(
        "ledgerline_attempts", "Attempts that ended, by what became of them.", labels=["pipeline", "step", "outcome"]
    )
    failures = CounterMetricFamily(
        "ledgerline_failures", "Attempts that failed, for good or not, by code.", labels=["pipeline", "step", "code"]
    )
    seconds = HistogramMetricFamily(
        "ledgerline_step_duration_seconds", "How long attempts took that worked.", labels=["pipeline", "step"]
    )
    for row in rows:
        step = [row["pipeline"], row["step"]]
        for outcome, count in row["outcomes"].items():
            attempts.add_metric([*step, outcome], count)
        for code, count in row["failures"].items():
            failures.add_metric([*step, code], count)
        if row["buckets"]:
            seconds.add_metric(step, _stack(row["buckets"]), row["seconds"])
    yield from (attempts, failures, seconds)


def _stack(buckets: list[int]) -> list[tuple[str, float]]:
    """Counts per bucket as Prometheus wants them: each includes those before."""
    return list(zip([*map(str, ATTEMPT_BUCKETS), "+Inf"], accumulate(buckets), strict=True))


def _gauge(name: str, about: str, label: str, values: Iterable[tuple[str, float]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, about, labels=[label])
    for key, value in values:
        family.add_metric([key], value)
    return family
