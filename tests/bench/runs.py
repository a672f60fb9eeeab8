"""One run of one contender: workers up, jobs in, time taken. Rates come from the ledger's own clock."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from bench.contenders import Contender, Place
from bench.entries import read_entries
from bench.servers import tree_cpu_s

THREADS = 16
WARM_UP = 60
PATIENCE_S = 900
SKIPPED = 0.1  # of a backlog: until then, workers are starting


@dataclass(frozen=True)
class Run:
    """What came out. `rate`: jobs a second. `cpu_ms`: per job, by process."""

    rate: float
    cpu_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Submitting:
    """When paced jobs were sent, by mark (monotonic ns), and the CPU seconds it took to send all."""

    sent: dict[str, int]
    cpu_s: float


def run_through(contender: Contender, place: Place, jobs: int, shape: str = "one", width: int = 0) -> Run:
    """Submit while warm workers run; from the first submission to the last completion."""
    with psycopg.connect(place.url, autocommit=True) as connection, workers(contender, place) as pids:
        submit(contender, place, min(jobs, WARM_UP), shape, width)
        wait_until_done(connection)
        connection.execute("vacuum analyze")
        began, before = _now(connection), _cpu(place, pids)
        submitting = submit(contender, place, jobs, shape, width)
        wait_until_done(connection)
        after = _cpu(place, pids)
        first, last, done = _row(
            connection,
            "select min(created_at), max(finished_at), count(*) from jobs"
            " where created_at > %s and status = 'completed'",
            began,
        )
    if done != jobs:
        raise RuntimeError(f"{contender.title}: {done} of {jobs} jobs completed")
    used = {"submitting": submitting.cpu_s} | {process: after[process] - before[process] for process in after}
    used["all"] = sum(used.values())
    return Run(jobs / (last - first).total_seconds(), {process: 1000 * cpu_s / jobs for process, cpu_s in used.items()})


def run_backlog(contender: Contender, place: Place, jobs: int, shape: str = "one", width: int = 0) -> Run:
    """Submit everything first; then start workers, and measure once the first tenth is done."""
    with psycopg.connect(place.url, autocommit=True) as connection:
        began = _now(connection)
        submit(contender, place, jobs, shape, width)
        connection.execute("vacuum analyze")
        with workers(contender, place):
            wait_until_done(connection)
        ended = "select finished_at from jobs where created_at > %s and finished_at is not null order by 1"
        times = [at for (at,) in connection.execute(ended, [began])]
    if len(times) != jobs:
        raise RuntimeError(f"{contender.title}: {len(times)} of {jobs} jobs ended")
    skipped = int(jobs * SKIPPED)
    return Run((jobs - skipped) / (times[-1] - times[skipped - 1]).total_seconds())


def measure_pickup(contender: Contender, place: Place, samples: int, every_s: float, together: int = 1) -> list[float]:
    """Milliseconds from the call that submits to the first line of the step function, for an idle worker."""
    log = place.servers.folder / f"entries-{place.name}-{time.monotonic_ns()}"
    with (
        psycopg.connect(place.url, autocommit=True) as connection,
        workers(contender, place, {"BENCH_ENTRIES": str(log)}),
    ):
        submit(contender, place, WARM_UP)
        wait_until_done(connection)
        paced = submit(contender, place, samples, extra=["--every", str(every_s), "--together", str(together)])
        wait_until_done(connection)
    entered = read_entries(log)
    return [(entered[mark] - at) / 1e6 for mark, at in paced.sent.items()]


def run_map(contender: Contender, place: Place, width: int, times: int) -> float:
    """Step runs a second of jobs that map over `width` items, one job after the other, warm workers."""
    with psycopg.connect(place.url, autocommit=True) as connection, workers(contender, place):
        submit(contender, place, WARM_UP)
        wait_until_done(connection)
        began = _now(connection)
        for _ in range(times):
            submit(contender, place, 1, "wide", width)
            wait_until_done(connection)
        steps, seconds = _row(
            connection,
            "select sum((select count(*) from job_steps s where s.job_id = j.id)),"
            " sum(extract(epoch from j.finished_at - j.started_at)) from jobs j where j.created_at > %s",
            began,
        )
    return float(steps) / float(seconds)


@contextmanager
def workers(contender: Contender, place: Place, more: dict[str, str] | None = None) -> Iterator[list[int]]:
    """The contender's worker processes, by id; stopped in good order at the end."""
    environment = os.environ | contender.environment(place) | (more or {})
    log = place.servers.folder / f"{place.name}.log"
    with log.open("ab") as output:
        started = [
            subprocess.Popen(contender.command(), env=environment, stdout=output, stderr=output)
            for _ in range(contender.processes)
        ]
    try:
        yield [process.pid for process in started]
    except BaseException:
        print(f"the workers of {contender.title} said:", *log.read_text().splitlines()[-40:], sep="\n")
        raise
    finally:
        for process in started:
            process.terminate()
        for process in started:
            _wait_for_end(process)


def submit(
    contender: Contender,
    place: Place,
    jobs: int,
    shape: str = "one",
    width: int = 0,
    extra: list[str] | None = None,
    threads: int = THREADS,
) -> Submitting:
    """Submit in a process of its own, as a front door would."""
    options = [contender.name, shape, str(jobs), str(threads), "--width", str(width), *(extra or [])]
    answer = subprocess.run(
        [sys.executable, "-m", "bench.submitting", *options],
        env=os.environ | contender.environment(place),
        stdout=subprocess.PIPE,
        check=True,
    )
    return Submitting(**json.loads(answer.stdout))


def wait_until_done(connection: psycopg.Connection[Any]) -> None:
    """Until no job is open. Asks seldom, not to be a load itself."""
    deadline = time.monotonic() + PATIENCE_S
    while _row(connection, "select exists (select from jobs where status in ('queued', 'running'))")[0]:
        if time.monotonic() > deadline:
            raise TimeoutError("jobs are still open")
        time.sleep(0.1)


def _now(connection: psycopg.Connection[Any]) -> Any:
    return _row(connection, "select clock_timestamp()")[0]


def _row(connection: psycopg.Connection[Any], query: str, *arguments: Any) -> Any:
    return connection.execute(query, arguments).fetchone()  # type: ignore[call-overload]


def _cpu(place: Place, pids: list[int]) -> dict[str, float]:
    return {"workers": tree_cpu_s(pids), **place.servers.cpu_s()}


def _wait_for_end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
