"""The plan of a chaos run, all from one seed: what is ordered, what becomes of it, and which faults are made."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from chaos.pipelines import BULK

SHAPES = {"chain": 35, "weave": 25, "shaky": 20, "judged": 14, "boxed": 6}
FAULTS = {
    "kill worker": 24,
    "freeze worker": 18,
    "stop worker": 14,
    "drop connections": 18,
    "hold rows": 6,
    "fill connections": 6,
    "crash backend": 6,
    "kill postgres": 4,
    "kill api": 4,
}
# Of so many orders in a row, those that come in batches are in one batch for each pipeline and tenant.
_WINDOW = 200
TENANTS = 3
Place = tuple[str, int | None]


@dataclass(frozen=True)
class Order:
    """One job to be. `decisions`: of its reviewers, in turn. `cancel_after_s`: when somebody cancels it, or None.
    `batch`: those of the same name are ordered together."""

    key: str
    pipeline: str
    params: dict[str, Any]
    decisions: tuple[str, ...] = ()
    cancel_after_s: float | None = None
    by_api: bool = False
    tenant: int = 0
    batch: str | None = None


@dataclass(frozen=True)
class Fault:
    """One fault. `after`: the share of the work that is over when it is made; `chance`: decides its details."""

    kind: str
    after: float
    chance: float


@dataclass(frozen=True)
class Expected:
    """What a completed job must have: step runs with their status, artifacts by digest, and the last step's value."""

    runs: dict[Place, str]
    artifacts: dict[tuple[str, int | None, str], str]
    value: int
    last: str


@dataclass
class Plan:
    """Everything that a seed decides."""

    seed: int
    orders: list[Order]
    faults: list[Fault] = field(default_factory=list)


def make_plan(seed: int, jobs: int, faults: int, *, api: bool) -> Plan:
    """The same seed and numbers make the same plan."""
    chance = random.Random(seed)
    orders = [_order(chance, seed, number, api=api) for number in range(jobs)]
    kinds = {kind: weight for kind, weight in FAULTS.items() if api or kind != "kill api"}
    chosen = _deal(chance, kinds, faults)
    return Plan(seed, orders, [Fault(kind, (nr + 1) / (faults + 1), chance.random()) for nr, kind in enumerate(chosen)])


def _deal(chance: random.Random, kinds: dict[str, int], count: int) -> list[str]:
    """Every kind at least once when there is room for that, the rest by weight."""
    dealt = list(kinds)[:count]
    dealt += chance.choices(list(kinds), list(kinds.values()), k=count - len(dealt))
    chance.shuffle(dealt)
    return dealt


def _order(chance: random.Random, seed: int, number: int, *, api: bool) -> Order:
    key, tenant = f"{seed}-{number}", number % TENANTS
    pipeline = chance.choices(list(SHAPES), list(SHAPES.values()))[0]
    params = {
        "mark": key,
        "start": chance.randrange(1000),
        "width": chance.choice([0, 1, 3, 6]),
        "pause_s": round(chance.choice([0, 0, 0.01, 0.05, 0.2]) * chance.random(), 4),
        "bad": chance.choice([-1, -1, 0]) if pipeline == "weave" else -1,
        "stumbles": chance.choice([0, 1, 2]) if pipeline == "shaky" else 0,
    }
    decisions: tuple[str, ...] = ()
    if pipeline == "judged":
        ways = [("approved",), ("rejected",), ("reprocessed", "approved"), ("rejected", "approved")]
        decisions = chance.choices(ways, [5, 2, 2, 2])[0]
    cancel_after_s = chance.random() * 0.8 if chance.random() < 0.08 else None
    by_api = api and chance.random() < 0.3
    batched = not by_api and chance.random() < 0.3
    batch = f"{seed}-{pipeline}-{tenant}-{number // _WINDOW}" if batched else None
    return Order(key, pipeline, params, decisions, cancel_after_s, by_api, tenant, batch)


def expect(order: Order) -> Expected:
    """What the job of an order must have when it is completed."""
    return _EXPECT[order.pipeline](order.params)


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _chain(p: dict[str, Any]) -> Expected:
    value = (p["start"] + 1) * 2
    runs = dict.fromkeys([("first", None), ("second", None), ("third", None)], "completed")
    return Expected(runs, {("third", None, "answer.txt"): _digest(f"{p['mark']} {value}")}, value, "third")


def _weave(p: dict[str, Any]) -> Expected:
    runs: dict[Place, str] = {("cut", None): "completed", ("bind", None): "completed"}
    artifacts: dict[tuple[str, int | None, str], str] = {}
    good = [index for index in range(p["width"]) if index != p["bad"]]
    for index in range(p["width"]):
        runs |= dict.fromkeys([("press", index), ("fold", index)], "completed" if index in good else "failed")
    for index in good:
        artifacts["press", index, "part.txt"] = _digest(f"{p['mark']} {p['start'] + index}")
    return Expected(runs, artifacts, sum(4 * (p["start"] + index) for index in good), "bind")


def _shaky(p: dict[str, Any]) -> Expected:
    is_odd = p["start"] % 2 == 1
    runs = dict.fromkeys([("stumble", None), ("odd", None), ("even", None), ("meet", None)], "completed")
    runs |= {} if is_odd else {("odd", None): "skipped"}
    return Expected(runs, {}, p["start"] + 1 + (p["start"] if is_odd else 1000), "meet")


def _judged(p: dict[str, Any]) -> Expected:
    total = sum(p["start"] + index + 1 for index in range(p["width"]))
    runs = dict.fromkeys([("draft", None), ("approval", None), ("final", None)], "completed")
    runs |= {("polish", index): "completed" for index in range(p["width"])}
    return Expected(runs, {("final", None, "final.txt"): _digest(f"{p['mark']} {total} approved")}, total, "final")


def _boxed(p: dict[str, Any]) -> Expected:
    runs = dict.fromkeys([("fill", None), ("measure", None)], "completed")
    copy = {("measure", None, "copy.txt"): _digest(f"{p['mark']} {p['start']}")}
    return Expected(runs, copy, BULK + p["start"], "measure")


_EXPECT: dict[str, Callable[[dict[str, Any]], Expected]] = {
    "chain": _chain,
    "weave": _weave,
    "shaky": _shaky,
    "judged": _judged,
    "boxed": _boxed,
}
