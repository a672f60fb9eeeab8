"""What is measured, of whom, and what is promised. A scenario is prepared once and then run round by round."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

from bench import depth, front, killers
from bench.contenders import CONTENDERS, OURS, Contender, Place
from bench.figures import Measured, Target, quantile
from bench.runs import measure_pickup, run_backlog, run_map, run_through
from bench.servers import Servers


@dataclass(frozen=True)
class Sizes:
    """How much is done in one round."""

    jobs: int = 2_000
    queued: int = 50_000
    finished: int = 100_000
    delayed: int = 20_000
    samples: int = 100


FULL = Sizes(jobs=5_000, queued=500_000, finished=1_000_000, delayed=100_000, samples=200)

Values = dict[str, float]
"""measure → value of one round."""

Measure = Callable[[], Values]


@dataclass(frozen=True)
class Scenario:
    """`prepare` gives a function for each contender or variant, which measures it once."""

    title: str
    prepare: Callable[[Servers, list[str], Sizes], dict[str, Measure]]
    targets: list[Target] = field(default_factory=list)
    contenders: tuple[str, ...] = (OURS,)
    variants: dict[str, str] = field(default_factory=dict)


def measure_round(measures: dict[str, Measure], into: Measured) -> Iterator[tuple[str, Values]]:
    """Measure everybody once, in turn."""
    for name, measure in measures.items():
        values = measure()
        for what, value in values.items():
            into.setdefault(what, {}).setdefault(name, []).append(value)
        into.setdefault("load", {}).setdefault(name, []).append(os.getloadavg()[0])
        yield name, values


def _settled(prefix: str, servers: Servers, names: list[str]) -> list[tuple[Contender, Place]]:
    return [(CONTENDERS[name], CONTENDERS[name].settle(servers, f"{prefix}_{name}")) for name in names]


# Rates -----------------------------------------------------------------------------------------


def _prepare_rates(shape: str, servers: Servers, names: list[str], sizes: Sizes) -> dict[str, Measure]:
    return {
        contender.name: partial(_measure_rates, contender, place, sizes.jobs, shape)
        for contender, place in _settled(shape, servers, names)
    }


def _measure_rates(contender: Contender, place: Place, jobs: int, shape: str) -> Values:
    through = run_through(contender, place, jobs, shape)
    backlog = run_backlog(contender, place, jobs, shape)
    cpu = {f"CPU ms a job, {process}": used for process, used in through.cpu_ms.items()}
    return {"jobs/s, submitted while run": through.rate, "jobs/s, from a backlog": backlog.rate, **cpu}


def _rate_targets(least: dict[str, float]) -> list[Target]:
    measures = ("jobs/s, submitted while run", "jobs/s, from a backlog")
    return [Target(measure, OURS, other, least=ratio) for measure in measures for other, ratio in least.items()]


# A map -----------------------------------------------------------------------------------------


def _prepare_map(servers: Servers, names: list[str], sizes: Sizes) -> dict[str, Measure]:
    ((contender, place),) = _settled("map", servers, names)
    return {
        "independent": lambda: {"steps/s": run_backlog(contender, place, sizes.jobs).rate},
        "map": lambda: {"steps/s": run_map(contender, place, 1_000, max(2, sizes.jobs // 1_000))},
    }


# Pick-up ---------------------------------------------------------------------------------------


def _prepare_pickup(servers: Servers, names: list[str], sizes: Sizes) -> dict[str, Measure]:
    return {
        contender.name: partial(_measure_pickup, contender, place, sizes.samples)
        for contender, place in _settled("pickup", servers, names)
    }


def _measure_pickup(contender: Contender, place: Place, samples: int) -> Values:
    single = measure_pickup(contender, place, samples, 0.2)
    double = measure_pickup(contender, place, samples, 0.4, together=2)
    return {
        "ms to pick-up, median": quantile(single, 0.5),
        "ms to pick-up, p99": quantile(single, 0.99),
        "ms to pick-up of two at once, median": quantile(double, 0.5),
        "ms to pick-up of two at once, p99": quantile(double, 0.99),
    }


def _pickup_targets() -> list[Target]:
    targets = []
    for measure in ("ms to pick-up", "ms to pick-up of two at once"):
        targets.append(Target(f"{measure}, median", OURS, "celery_late", most=1))
        targets.append(Target(f"{measure}, p99", OURS, None, most=50))
    return targets


# Depth -----------------------------------------------------------------------------------------


def _prepare_depth(servers: Servers, names: list[str], sizes: Sizes) -> dict[str, Measure]:
    states = {
        "shallow": (depth.SHALLOW, 0, 0),
        "deep": (sizes.queued, 0, 0),
        "finished": (depth.SHALLOW, sizes.finished, 0),
        "delayed": (depth.SHALLOW, 0, sizes.delayed),
    }
    contender = CONTENDERS[OURS]
    measures: dict[str, Measure] = {}
    for name, state in states.items():
        place = contender.settle(servers, f"depth_{name}")
        depth.fill(contender, place, *state)
        measures[name] = partial(_measure_depth, contender, place, sizes.jobs)
    return measures


def _measure_depth(contender: Contender, place: Place, jobs: int) -> Values:
    return {"jobs/s": depth.run_on(contender, place, jobs)}


# The front door -----------------------------------------------------------------------------------


def _prepare_front(servers: Servers, names: list[str], sizes: Sizes) -> dict[str, Measure]:
    """Ours on an empty and on a deep queue, and the same endpoint on Celery."""
    measures: dict[str, Measure] = {}
    for name, queued in ((OURS, 0), ("deep", sizes.queued)):
        place = front.settle(name, servers)
        depth.fill(CONTENDERS[OURS], place, queued, 0, 0)
        measures[name] = partial(front.measure, CONTENDERS[OURS], place, front.OURS)
    for name in set(names) & {"celery"}:
        measures[name] = partial(front.measure, CONTENDERS[name], front.settle(name, servers), front.ON_CELERY)
    return measures


# Killers ---------------------------------------------------------------------------------------


def _prepare_killers(servers: Servers, names: list[str], sizes: Sizes) -> dict[str, Measure]:
    ((contender, place),) = _settled("killers", servers, names)
    ordinary, endless, crasher = killers.add_documents(place)
    jobs = sizes.jobs // 4

    def measure(killer: UUID, share: float) -> Values:
        with killers.shuffled(ordinary, killer, jobs, share):
            return {"jobs/s": run_backlog(contender, place, jobs, "parse").rate}

    return {
        "clean": partial(measure, ordinary, 0.0),
        "mixed": partial(measure, endless, 0.05),
        "crashing": partial(measure, crasher, 0.05),
    }


SCENARIOS = {
    "one": Scenario(
        "One-step jobs: submit, ledger, run, complete",
        partial(_prepare_rates, "one"),
        _rate_targets({"celery_late": 3, "celery": 2, "procrastinate": 4, "dbos": 8}),
        contenders=tuple(CONTENDERS),
    ),
    "five": Scenario("Five-step jobs", partial(_prepare_rates, "five"), _rate_targets({"dbos": 8}), (OURS, "dbos")),
    "map": Scenario(
        "A map over 1,000 items",
        _prepare_map,
        [Target("steps/s", "map", "independent", least=0.5)],
        variants={"independent": "one-step jobs", "map": "map over 1,000 items"},
    ),
    "pickup": Scenario(
        "Idle pick-up: from the call that submits to the first line of the step",
        _prepare_pickup,
        _pickup_targets(),
        (OURS, "celery_late", "celery_plain", "procrastinate"),
    ),
    "depth": Scenario(
        "Rate with a long queue, a long past, and many delayed retries",
        _prepare_depth,
        [Target("jobs/s", name, "shallow", least=0.9) for name in ("deep", "finished", "delayed")],
        variants={"shallow": "1,000 queued", "deep": "deep queue", "finished": "long past", "delayed": "many retries"},
    ),
    "front": Scenario(
        "POST /jobs under gunicorn, 16 connections",
        _prepare_front,
        [
            Target("requests/s", OURS, "celery", least=1.5),
            Target("ms, p99", OURS, "celery", most=1),
            Target("requests/s", "deep", OURS, least=0.9),
        ],
        (OURS, "celery"),
        variants={"deep": "Ledgerline, deep queue"},
    ),
    "killers": Scenario(
        "Confined steps, 5 % of the documents are made to kill the parser, or do",
        _prepare_killers,
        [Target("jobs/s", name, "clean", least=0.8) for name in ("mixed", "crashing")],
        variants={"clean": "clean", "mixed": "5 % draw without end", "crashing": "5 % end the process"},
    ),
}
