"""What one API process counts of itself: requests, how long they took, open streams, connections in use.

Served by several processes, each counts in files of its own, in the folder that PROMETHEUS_MULTIPROC_DIR names, and
whichever is asked adds up all of them. Without the folder there is one process, and it counts in memory.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from flask import Response, g, request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, ProcessCollector
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from api.house import House

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
NO_ROUTE = "none"
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)

_own = CollectorRegistry()
_requests = Counter("http_requests", "Requests that were answered.", ["method", "route", "status"], registry=_own)
_seconds = Histogram(
    "http_request_duration_seconds",
    "From the first look at a request until its answer has gone out; streams until they end.",
    ["method", "route"],
    buckets=_BUCKETS,
    registry=_own,
)
_streams = Gauge("ledgerline_open_streams", "Streams and long polls.", multiprocess_mode="livesum", registry=_own)
_connections = Gauge(
    "ledgerline_pool_connections",
    "Connections to the database that the API holds, and requests that wait for one.",
    ["state"],
    multiprocess_mode="livesum",
    registry=_own,
)


def count_when_sent(response: Response) -> Response:
    """Count the request at hand once its answer has gone out, by the template of its path."""
    method = request.method if request.method in _METHODS else "other"
    route = request.url_rule.rule if request.url_rule else NO_ROUTE
    status, started = str(response.status_code), g.get("started", time.monotonic())

    def count() -> None:
        _requests.labels(method, route, status).inc()
        _seconds.labels(method, route).observe(time.monotonic() - started)

    response.call_on_close(count)
    return response


def gauge(desk: House) -> None:
    """Note what the process has in hand. Called now and then, and before it is told."""
    pool = desk.pool.get_stats()
    _streams.set(desk.live.followers)
    _connections.labels("open").set(pool.get("pool_size", 0))
    _connections.labels("idle").set(pool.get("pool_available", 0))
    _connections.labels("waited_for").set(pool.get("requests_waiting", 0))


def read_meters(registry: CollectorRegistry) -> None:
    """Add what all API processes counted to what a registry collects."""
    if FOLDER in os.environ:
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry.register(_own)
    registry.register(_Processes())


class _Processes(Collector):
    """Memory, processor time and open files of each API process, gunicorn's own included, told apart by `pid`."""

    def collect(self) -> Iterator[Metric]:
        found: dict[str, Metric] = {}
        for pid in _list_processes():
            for family in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
                kept = found.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    kept.add_sample(sample.name, sample.labels | {"pid": str(pid)}, sample.value)
        yield from found.values()


def _list_processes() -> list[int]:
    """Those that are alive: gunicorn takes away the gauges of one that ended."""
    if FOLDER not in os.environ:
        return [os.getpid()]
    gauges = Path(os.environ[FOLDER]).glob("gauge_livesum_*.db")
    return sorted({os.getpid(), *(int(path.stem.rpartition("_")[2]) for path in gauges)})
