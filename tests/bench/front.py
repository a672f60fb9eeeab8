"""POST /jobs over real HTTP: our API and the same endpoint on Celery, both under gunicorn, called by wrk.

No worker runs: what is measured is how fast work is accepted, and what that costs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jwt
import psycopg
from bench import plain_ledger
from bench.contenders import CONTENDERS, Contender, Place
from bench.contenders import OURS as OUR_NAME
from bench.servers import Servers, free_port, tree_cpu_s
from bench.with_ledgerline import TENANT, USER

from tasks.db import ROOT

SECRET = "a secret that is long enough for HS256"
ISSUER = "http://127.0.0.1/auth/v1"
CONNECTIONS = 16
SECONDS = 10
WARM_UP_S = 2

OURS = "api:create_app()"
ON_CELERY = "bench.front_celery:create_app()"

# Each request is another job: the number makes its parameters and its key its own.
_SCRIPT = """
local n = 0
request = function()
  n = n + 1
  local mark = "%(run)s-" .. n
  return wrk.format("POST", "/api/v1/jobs", {
    ["Authorization"] = "Bearer %(token)s", ["Content-Type"] = "application/json", ["Idempotency-Key"] = mark,
  }, '{"pipeline": "one", "params": {"mark": "' .. mark .. '"}}')
end
"""
_RATE = re.compile(r"Requests/sec:\s+([0-9.]+)")
_LATENCY = re.compile(r"^\s+(50|99)%\s+([0-9.]+)(us|ms|s)$", re.MULTILINE)
_FAILED = re.compile(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)")
_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


@dataclass(frozen=True)
class Answered:
    """What wrk saw. `latency_ms`: by percentile."""

    rate: float
    latency_ms: dict[int, float]


def settle(name: str, servers: Servers) -> Place:
    """A database of ours with the user of the benchmark as a member, and a hand-written ledger beside it."""
    place = CONTENDERS[OUR_NAME].settle(servers, f"front_{name}")
    with psycopg.connect(place.url, autocommit=True) as connection:
        connection.execute("create schema plain")
        connection.execute("set search_path = plain")
        connection.execute(plain_ledger.TABLE)
        connection.execute("reset search_path")
        connection.execute("insert into members (tenant_id, user_id, role) values (%s, %s, 'owner')", [TENANT, USER])
    return place


def measure(contender: Contender, place: Place, app: str) -> dict[str, float]:
    """Serve, warm up, and call for a while."""
    with _serve(contender, place, app) as (url, process):
        _call(url, WARM_UP_S, place.servers.folder)
        before = tree_cpu_s([process]), place.servers.cpu_s()["postgres"]
        began = time.monotonic()
        answered = _call(url, SECONDS, place.servers.folder)
        requests = answered.rate * (time.monotonic() - began)
        after = tree_cpu_s([process]), place.servers.cpu_s()["postgres"]
    return {
        "requests/s": answered.rate,
        "ms, median": answered.latency_ms[50],
        "ms, p99": answered.latency_ms[99],
        "CPU ms a request, web": 1000 * (after[0] - before[0]) / requests,
        "CPU ms a request, postgres": 1000 * (after[1] - before[1]) / requests,
    }


@contextmanager
def _serve(contender: Contender, place: Place, app: str) -> Iterator[tuple[str, int]]:
    port = free_port()
    environment = {
        "JWT_SECRET": SECRET,
        "JWT_ISSUER": ISSUER,
        "PORT": str(port),
        # All requests are one member's.
        "REQUESTS_PER_MINUTE": "1000000000",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    log = place.servers.folder / f"front-{place.name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--config", "api/gunicorn.py", app],
            env=os.environ
            | CONTENDERS[OUR_NAME].environment(place)
            | contender.environment(place)
            | {"BENCH_URL": place.url, **contender.options}
            | environment,
            cwd=ROOT,
            stdout=output,
            stderr=output,
        )
    try:
        _wait_until_up(f"http://127.0.0.1:{port}/healthz", process, log)
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait(40)


def _call(url: str, seconds: int, folder: Path) -> Answered:
    program = shutil.which("wrk")
    if program is None:
        raise SystemExit("this scenario needs wrk: apt-get install wrk")
    now = int(time.time())
    claims = {"iss": ISSUER, "sub": str(USER), "aud": "authenticated", "iat": now, "exp": now + 3600}
    token = jwt.encode(claims | {"role": "authenticated"}, SECRET, algorithm="HS256")
    script = folder / "post.lua"
    script.write_text(_SCRIPT % {"run": uuid.uuid4().hex, "token": token}, encoding="utf-8")
    options = ["--threads", "1", "--connections", str(CONNECTIONS), "--duration", f"{seconds}s", "--latency"]
    said = subprocess.run([program, *options, "--script", str(script), url], capture_output=True, text=True, check=True)
    if failed := _FAILED.search(said.stdout):
        raise RuntimeError(f"not every request was answered: {failed[0]}")
    rate = _RATE.search(said.stdout)
    assert rate is not None, said.stdout
    latency_ms = {int(share): float(value) * _MS[unit] for share, value, unit in _LATENCY.findall(said.stdout)}
    return Answered(float(rate[1]), latency_ms)


def _wait_until_up(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"the server did not start: {log.read_text()[-2000:]}")
