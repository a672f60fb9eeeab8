"""A thousand open streams in one API process: how soon an event arrives, and what they take of memory.

`make bench-streams` (STREAMS=1000). Real streams over real HTTP, gunicorn as in production, events written by the
ledger's own transitions. Clients, API and Postgres share the machine. Nothing is asserted.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

import psutil
import psycopg
from api_play import PREFIX, Served, make_settings, make_token, serve
from bench.figures import align, quantile, show
from ledger_play import Play, Work
from psycopg.rows import dict_row
from stream_crowd import Client, crowd
from waiting import until

from tasks.embedded import EmbeddedPostgres
from tasks.migrations import migrate

STREAMS = int(os.environ.get("STREAMS") or 1_000)
SECONDS = 10
RATES = (50, 200)
ROUNDS = 5
WATCHERS = 100
MIB = 1024 * 1024


def main() -> None:
    rows = [("events", "for", "median ms", "p99 ms", "web, CPU ms an event")]
    with tempfile.TemporaryDirectory() as folder, _house(Path(folder)) as (play, works, served):
        api = psutil.Process(served.worker_pid)
        headers = {"Authorization": f"Bearer {make_token(play.user)}"}
        memory = [api.memory_info().rss]
        paths = [f"/jobs/{work['job']}/stream" for work in works]
        with crowd(served.url + PREFIX, paths, headers) as clients:
            until(lambda: all(len(client.ids) == 3 for client in clients), within=60)
            memory.append(api.memory_info().rss)
            for rate in RATES:
                act = partial(_drip, play, works, clients, rate)
                rows.append((f"{rate} a second", f"one of {STREAMS} streams each", *_measure(api, act)))
            act = partial(_burst, play, clients)
            rows.append((f"{STREAMS} in one transaction", "each stream one", *_measure(api, act)))
            memory.append(api.memory_info().rss)
        with crowd(served.url + PREFIX, ["/stream"] * WATCHERS, headers) as clients:
            act = partial(_share, play, works, clients)
            rows.append(("10 a second", f"all of {WATCHERS} streams of a tenant", *_measure(api, act)))
    print(*align(rows), sep="\n")
    before, held, after = (f"{size / MIB:.0f} MiB" for size in memory)
    each = (memory[1] - memory[0]) / STREAMS / 1024
    print(
        f"memory of the process: {before} with no stream, {held} with {STREAMS} ({each:.0f} KiB each), {after} at last"
    )


def _measure(api: psutil.Process, act: Callable[[], list[float]]) -> tuple[str, str, str]:
    """How long events took to arrive, and what the API was busy with meanwhile."""
    used = sum(api.cpu_times()[:2])
    milliseconds = [1000 * taken for taken in act()]
    used = 1000 * (sum(api.cpu_times()[:2]) - used) / len(milliseconds)
    return show(median(milliseconds)), show(quantile(milliseconds, 0.99)), show(used)


@contextmanager
def _house(folder: Path) -> Iterator[tuple[Play, list[Work], Served]]:
    """A database, an API on it, and as many jobs as streams, each with a step run at work."""
    with EmbeddedPostgres(folder / "postgres") as postgres:
        migrate(postgres.url)
        settings = make_settings(postgres.url, folder / "storage", requests_per_minute=1_000_000, lease_s=3_600)
        with psycopg.connect(postgres.url, autocommit=True, row_factory=dict_row) as connection:
            play = Play(connection)
            for _ in range(STREAMS):
                play.submit("one")
            works = play.begin_all(STREAMS)
            with serve(settings, folder / "api.log") as served:
                yield play, works, served


def _drip(play: Play, works: Sequence[Work], clients: Sequence[Client], rate: int) -> list[float]:
    """An event for a job chosen at random, so many times a second."""
    chance = random.Random(rate)
    sent: dict[int, tuple[float, int]] = {}
    began = time.perf_counter()
    for number in range(rate * SECONDS):
        time.sleep(max(0.0, began + number / rate - time.perf_counter()))
        chosen = chance.randrange(len(works))
        mark = rate * 1_000_000 + number
        sent[mark] = time.perf_counter(), chosen
        play.report(works[chosen], number, 1_000_000, f"mark {mark}")
    until(lambda: all(mark in clients[chosen].marks for mark, (_, chosen) in sent.items()), within=60)
    return [clients[chosen].marks[mark] - at for mark, (at, chosen) in sent.items()]


def _burst(play: Play, clients: Sequence[Client]) -> list[float]:
    """An event for every job in one transaction, so that all are told at the same moment."""
    taken = []
    for number in range(ROUNDS):
        with play.connection.transaction():
            play.all("select ledger.report_progress(s.id, s.attempt, %s, 1000000, %s) from job_steps s"
                     " where s.status = 'running'", number, f"mark {number}")  # fmt: skip
            at = time.perf_counter()
        until(lambda number=number: all(number in client.marks for client in clients), within=60)  # type: ignore[misc]
        taken += [client.marks[number] - at for client in clients]
    return taken


def _share(play: Play, works: Sequence[Work], clients: Sequence[Client]) -> list[float]:
    """Events that everybody is told."""
    sent = {}
    for number in range(10 * SECONDS):
        time.sleep(0.1)
        mark = 500 + number
        sent[mark] = time.perf_counter()
        play.report(works[number % len(works)], number, 1_000_000, f"mark {mark}")
    until(lambda: all(sent.keys() <= client.marks.keys() for client in clients), within=60)
    return [client.marks[mark] - at for client in clients for mark, at in sent.items()]


if __name__ == "__main__":
    main()
