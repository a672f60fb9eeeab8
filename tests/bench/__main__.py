"""Benchmarks against peers: `make bench`. See README.md beside this file.

Contenders take turns round by round in one run on one machine, so that what disturbs one disturbs the others; what is
compared are the ratios of each round. Nothing here is asserted: targets are printed as met or not.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

from bench.contenders import CONTENDERS
from bench.figures import Measured, Verdict, describe, describe_verdicts, judge, show
from bench.plot import draw
from bench.scenarios import FULL, SCENARIOS, Scenario, Sizes, measure_round
from bench.servers import start_servers

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("procrastinate", "celery", "redis", "pgqueuer", "dbos", "psycopg")


def main() -> None:
    chosen = _list("ONLY") or list(SCENARIOS)
    if unknown := set(chosen) - set(SCENARIOS):
        raise SystemExit(f"there is no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    sizes = FULL if os.environ.get("FULL") else Sizes()
    sizes = replace(sizes, jobs=int(os.environ.get("JOBS") or sizes.jobs))
    rounds = int(os.environ.get("ROUNDS") or 3)
    report = {"command": _command(), "machine": _machine(), "sizes": asdict(sizes), "rounds": rounds, "scenarios": {}}
    measured = {}
    for name in chosen:
        measured[name] = (SCENARIOS[name].title, _measure(SCENARIOS[name], sizes, rounds))
        report["scenarios"][name] = _tell(SCENARIOS[name], measured[name][1])
    _write(report, draw(measured, _titles()))


def _measure(scenario: Scenario, sizes: Sizes, rounds: int) -> Measured:
    print(f"\n== {scenario.title} (load {os.getloadavg()[0]:.1f})", flush=True)
    wanted = _list("PEERS")
    names = [name for name in scenario.contenders if not wanted or name in wanted or name == "ledgerline"]
    measured: Measured = {}
    with start_servers(with_redis=any(CONTENDERS[name].needs_redis for name in names)) as servers:
        measures = scenario.prepare(servers, names, sizes)
        for number in range(1, rounds + 1):
            for name, values in measure_round(measures, measured):
                said = ", ".join(f"{show(value)} {what}" for what, value in values.items())
                print(f"round {number}  {name}: {said}", flush=True)
    return measured


def _tell(scenario: Scenario, measured: Measured) -> dict[str, object]:
    titles = _titles() | scenario.variants
    verdicts = [verdict for target in scenario.targets if (verdict := judge(target, measured))]
    print("", *describe(measured, titles), "", *describe_verdicts(verdicts, titles), sep="\n", flush=True)
    return {"title": scenario.title, "measured": measured, "verdicts": [_record(verdict) for verdict in verdicts]}


def _record(verdict: Verdict) -> dict[str, object]:
    return {**asdict(verdict), "met": verdict.met}


def _write(report: dict[str, object], picture: str) -> None:
    RESULTS.mkdir(exist_ok=True)
    stem = time.strftime("%Y%m%d-%H%M%S")
    (RESULTS / f"{stem}.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    (RESULTS / f"{stem}.svg").write_text(picture, encoding="utf-8")
    print(f"\nwritten to {RESULTS / stem}.json and .svg")


def _titles() -> dict[str, str]:
    variants = {name: title for scenario in SCENARIOS.values() for name, title in scenario.variants.items()}
    return {contender.name: contender.title for contender in CONTENDERS.values()} | variants


def _list(name: str) -> list[str]:
    return os.environ.get(name, "").replace(",", " ").split()


def _command() -> str:
    given = {name: os.environ[name] for name in ("ONLY", "PEERS", "ROUNDS", "JOBS", "FULL") if os.environ.get(name)}
    return " ".join(["make bench", *(f"{name}={value}" for name, value in given.items())])


def _machine() -> dict[str, object]:
    return {
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "system": platform.platform(),
        "python": sys.version.split()[0],
        "packages": {name: version(name) for name in PACKAGES},
    }


if __name__ == "__main__":
    main()
