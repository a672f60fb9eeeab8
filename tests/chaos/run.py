"""Run thousands of small jobs while processes are killed, frozen and cut off, and see that nothing is lost or doubled.

    PYTHONPATH=.:tests python -m chaos.run --seed 7 --jobs 3000 --faults 150

Everything that is ordered and every fault follow from the seed; when each happens depends on the machine. Exit code 0:
all holds. The folder with all logs is kept when something does not.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from chaos.crew import Crew, Line
from chaos.faults import Saboteur
from chaos.people import People
from chaos.plan import Plan, make_plan
from chaos.verdict import Verdict, count_server_errors, describe, judge
from chaos.watch import Sampler, count_over

from tasks import ledger
from tasks.migrations import migrate
from tasks.pipelines import declared

_STANDSTILL_S = 90.0
_LOOK_S = 0.1
_LAG = 3


def main(arguments: list[str] | None = None) -> int:
    options = _parse(arguments)
    # Whoever ends this run early ends everything it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    plan = make_plan(options.seed, options.jobs, options.faults, api=options.api)
    folder = Path(options.folder or tempfile.mkdtemp(prefix="ledgerline-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(
        f"seed {options.seed}: {options.jobs} jobs, {options.faults} faults, {options.workers} workers, in {folder}",
        flush=True,
    )
    run = Run(plan, Crew(folder, options.workers, api=options.api), options.most_active)
    wrong = run.run()
    for line in run.report():
        print(line)
    if not wrong:
        print("all holds")
        shutil.rmtree(folder, ignore_errors=True)
        return 0
    print(f"\n{len(wrong)} things are wrong:")
    print("\n".join(wrong[:50]))
    print(
        f"\nAgain: PYTHONPATH=.:tests python -m chaos.run --seed {options.seed} --jobs {options.jobs} --faults "
        f"{options.faults} --workers {options.workers}{'' if options.api else ' --no-api'}\nLogs: {folder}"
    )
    return 1


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Prove by breaking.")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--jobs", type=int, default=3000)
    parser.add_argument("--faults", type=int, default=150)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--most-active", type=int, default=60, help="jobs that are not over at a time")
    parser.add_argument("--no-api", dest="api", action="store_false", help="order everything at the ledger")
    parser.add_argument("--folder", help="where Postgres, storage and logs go; default: a temporary folder")
    return parser.parse_args(arguments)


class Run:
    """One chaos run."""

    def __init__(self, plan: Plan, crew: Crew, most_active: int) -> None:
        self._plan = plan
        self._crew = crew
        self._people = People(crew, plan, most_active)
        self._sampler = Sampler(crew)
        self._saboteur = Saboteur(crew)
        self._line = Line(crew)
        self._verdict = Verdict()
        self._took_s = 0.0
        self._over = 0
        self._broken: list[str] = []
        self._end = threading.Event()

    def run(self) -> list[str]:
        """Everything from start to end. Returns what is wrong."""
        began = time.monotonic()
        try:
            self._crew.postgres.start()
            self._prepare()
            saboteur = threading.Thread(target=self._sabotage, daemon=True)
            saboteur.start()
            self._wait_until_over()
            self._end.set()
            saboteur.join(120)
            self._saboteur.end()
            self._people.stop()
            self._crew.stop()
            self._sampler.stop()
            self._took_s = time.monotonic() - began
            return self._judge()
        finally:
            self._line.hang_up()
            self._crew.close()

    def report(self) -> list[str]:
        """What was made, counted and seen."""
        rate = self._over / self._took_s if self._took_s else 0
        return [
            f"took {self._took_s:.1f} s, {rate:.1f} jobs a second, {self._sampler.samples} samples of drift",
            *_table("faults", self._saboteur.made),
            *_table("people", self._people.said),
            *_table("counted", self._verdict.counts),
            *_table("errors in Postgres's log", count_server_errors(self._crew.folder / "postgres" / "postgres.log")),
        ]

    def _prepare(self) -> None:
        migrate(self._crew.postgres.url)
        with self._crew.connect() as connection:
            ledger.publish(connection, declared(("chaos.pipelines",)).values(), "chaos")
        self._crew.start()
        self._people.start()
        self._sampler.start()

    def _sabotage(self) -> None:
        try:
            for fault in self._plan.faults:
                while self._over < fault.after * len(self._plan.orders) and not self._end.is_set():
                    self._end.wait(_LOOK_S)
                self._saboteur.make(fault)
        except Exception as error:
            self._broken.append(f"the saboteur failed: {type(error).__name__}: {error}")

    def _wait_until_over(self) -> None:
        moved = time.monotonic()
        while not self._is_over():
            over = count_over(self._line)
            # Nothing more is ordered while the faults lag behind: they are to hit work, not to come after it.
            due = sum(fault.after * len(self._plan.orders) <= over for fault in self._plan.faults)
            if self._saboteur.made.total() + _LAG >= due:
                self._people.hear(over)
            if over > self._over:
                self._over, moved = over, time.monotonic()
            if time.monotonic() - moved > _STANDSTILL_S:
                stuck = self._line.rows("select id from jobs where finished_at is null order by id limit 5")
                self._broken.append(f"nothing was finished for {_STANDSTILL_S:.0f} s with {over} jobs over")
                self._broken += [describe(self._line, row["id"]) for row in stuck]
                return
            time.sleep(_LOOK_S)

    def _is_over(self) -> bool:
        """All ordered, all over, and no reviewer has anything left to say. All faults are made by then or soon."""
        if self._people.errors or not self._people.all_ordered:
            return bool(self._people.errors)
        if self._over < len(self._plan.orders):
            return False
        rows = self._line.rows(
            "select id, finished_at, error_code from jobs where finished_at is null or error_code = 'rejected'"
        )
        orders = self._orders()
        return all(row["finished_at"] and orders[row["id"]].decisions[-1:] == ("rejected",) for row in rows)

    def _orders(self) -> dict[Any, Any]:
        by_key = {order.key: order for order in self._plan.orders}
        return {job: by_key[key] for key, job in self._people.jobs.items()}

    def _judge(self) -> list[str]:
        wrong = [*self._broken, *self._people.errors, *self._crew.fell]
        odd = [code for code in self._crew.exits if code not in (0, -signal.SIGTERM)]
        wrong += [f"a worker told to stop ended with {code}" for code in odd]
        wrong += [f"drift: {row}" for row in self._sampler.drift]
        jobs = {row["job_id"] for row in self._sampler.drift}
        wrong += [describe(self._line, job) for job in list(jobs)[:3]]
        if not self._broken and not self._people.errors:
            self._verdict = judge(self._line, self._orders(), self._crew.folder / "storage")
        missing = len(self._plan.faults) - self._saboteur.made.total()
        wrong += [f"{missing} faults were not made"] if missing else []
        return wrong + self._verdict.wrong


def _table(title: str, counts: Counter[str]) -> list[str]:
    return [f"{title}:", *(f"  {count:>8} {name}" for name, count in sorted(counts.items()))] if counts else []


if __name__ == "__main__":
    sys.exit(main())
