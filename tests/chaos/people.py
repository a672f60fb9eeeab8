"""The people of a chaos run: they order jobs, one by one and in batches, cancel some, and decide at gates.

They try again when nobody answers.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
from chaos.crew import Crew, Line
from chaos.plan import TENANTS, Order, Plan
from psycopg.types.json import Jsonb

from tasks import batches, ledger
from tasks.errors import Refused

_OPEN = """
  select r.id, r.job_id, (select count(*) from reviews p where p.job_id = r.job_id and p.id < r.id) as before
  from reviews r where r.status = 'open' order by r.id limit 200
"""
_REJECTED = "select id from jobs where status = 'failed' and error_code = 'rejected'"
_DECIDED = "select count(*) from reviews where job_id = %s"
_TAKEN_IN = "select batch_id, key, job_id, code from batch_items where batch_id = any(%s) and outcome <> 'waiting'"
# Nobody is at this address. That each event is told once is to hold whether anybody listens or not.
_WEBHOOK = """
  select id from ledger.add_webhook(
    %s, %s, %s, 'https://127.0.0.1/',
    array['submitted', 'awaiting_review', 'completed', 'failed', 'cancelled', 'reopened'],
    'whsec_' || repeat('A', 43) || '=', 1)
"""


class People:
    """Everybody outside. `jobs`: the job that answered each order's key."""

    def __init__(self, crew: Crew, plan: Plan, most_active: int) -> None:
        self.jobs: dict[str, UUID] = {}
        self.said: Counter[str] = Counter()
        self.errors: list[str] = []
        self._crew = crew
        self._plan = plan
        self._requests: queue.SimpleQueue[list[Order]] = queue.SimpleQueue()
        self._cancels: queue.SimpleQueue[tuple[float, Order]] = queue.SimpleQueue()
        self._by_job: dict[UUID, Order] = {}
        self._coming: dict[UUID, dict[str, Order]] = {}
        self._room = threading.Semaphore(most_active)
        self._entrance = threading.Lock()
        self._freed = 0
        self._over = threading.Event()
        self._tenants: list[UUID] = []
        self._user = uuid4()
        acts = [self._order, self._order, self._order, self._collect, self._review, self._cancel]
        self._threads = [threading.Thread(target=self._act, args=[act], daemon=True) for act in acts]

    def start(self) -> None:
        """Found the tenants, one of them with a webhook, and begin."""
        line = Line(self._crew)
        for number in range(TENANTS):
            tenant = ledger.new_id()
            line.rows("insert into tenants (id, name) values (%s, %s) returning id", tenant, f"Tenant {number}")
            line.rows("insert into members values (%s, %s, 'owner') returning role", tenant, self._user)
            self._tenants.append(tenant)
        line.rows(_WEBHOOK, ledger.new_id(), self._tenants[0], self._user)
        line.hang_up()
        for request in _bundle(self._plan.orders):
            self._requests.put(request)
        for thread in self._threads:
            thread.start()

    def hear(self, over: int) -> None:
        """So many jobs are over in all: there is room for as many new ones."""
        while self._freed < over:
            self._freed += 1
            self._room.release()

    @property
    def all_ordered(self) -> bool:
        return len(self.jobs) == len(self._plan.orders)

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    def _act(self, act: Any) -> None:
        line = Line(self._crew)
        try:
            while not self._over.is_set():
                act(line)
        except Exception as error:
            self.errors.append(f"{act.__name__}: {type(error).__name__}: {error}")
        line.hang_up()

    # Ordering

    def _order(self, line: Line) -> None:
        try:
            orders = self._requests.get(timeout=0.2)
        except queue.Empty:
            return
        if not self._find_room(len(orders)):
            return
        if orders[0].batch is not None:
            batch = line.ask(lambda connection: self._send_batch(connection, orders))
            self._coming[batch] = {order.key: order for order in orders}
            return
        (order,) = orders
        self._note(order, self._order_by_api(order) if order.by_api else self._order_directly(line, order))

    def _find_room(self, jobs: int) -> bool:
        """Wait until so many more jobs may be there; False when nobody waits any more."""
        # One at a time: two that have half of what they need would wait for each other.
        with self._entrance:
            for _ in range(jobs):
                while not self._room.acquire(timeout=0.2):
                    if self._over.is_set():
                        return False
        return not self._over.is_set()

    def _note(self, order: Order, job: UUID) -> None:
        self._by_job[job] = order
        self.jobs[order.key] = job
        if order.cancel_after_s is not None:
            self._cancels.put((time.monotonic() + order.cancel_after_s, order))

    def _order_directly(self, line: Line, order: Order) -> UUID:
        wanted = ledger.Submission(
            self._tenant(order), self._user, order.pipeline, params=order.params, idempotency_key=order.key
        )
        submitted = line.ask(lambda connection: ledger.submit(connection, wanted))
        self.said["ordered" if submitted.created else "ordered, answered by an earlier try"] += 1
        return submitted.job_id

    def _order_by_api(self, order: Order) -> UUID:
        body = {"pipeline": order.pipeline, "params": order.params}
        headers = {
            "Idempotency-Key": order.key, "X-Tenant-Id": str(self._tenant(order)),
            "Authorization": f"Bearer {self._token()}",
        }  # fmt: skip
        while True:
            try:
                answer = httpx.post(f"{self._crew.api_url}/api/v1/jobs", json=body, headers=headers, timeout=20)
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code in (200, 202):
                self.said["ordered through the API"] += 1
                return UUID(answer.json()["id"])
            if answer is not None and answer.status_code not in (429, 500, 502, 503, 504):
                raise AssertionError(f"the API answered {answer.status_code}: {answer.text}")
            self.said[f"asked the API again ({answer.status_code if answer is not None else 'no answer'})"] += 1
            time.sleep(0.1)

    def _send_batch(self, connection: ledger.Connection, orders: list[Order]) -> UUID:
        """Do what the API does. Sent again after a loss, it finds what it has sent."""
        name, tenant = str(orders[0].batch), self._tenant(orders[0])
        if known := batches.find_batch(connection, tenant, name, "digest"):
            return known
        batch = ledger.new_id()
        with connection.transaction():
            batches.open_batch(connection, batch, tenant, self._user, orders[0].pipeline)
            with batches.copying_items(connection) as copy:
                for nr, order in enumerate(orders, start=1):
                    told = [order.key, None, None, None, Jsonb(order.params), "waiting", None, None]
                    copy.write_row([batch, nr, tenant, *told])
            batches.close_batch(connection, batch, len(orders), name, "digest")
        return batch

    def _collect(self, line: Line) -> None:
        """See which items of batches have become jobs."""
        self._over.wait(0.1)
        for item in line.rows(_TAKEN_IN, list(self._coming)):
            assert item["job_id"], f"item {item['key']} of a batch was refused: {item['code']}"
            order = self._coming[item["batch_id"]].pop(item["key"], None)
            if order is not None:
                self.said["ordered in a batch"] += 1
                self._note(order, item["job_id"])
        for batch in [batch for batch, rest in list(self._coming.items()) if not rest]:
            del self._coming[batch]

    def _token(self) -> str:
        now = int(time.time())
        claims = {"iss": "http://127.0.0.1/auth/v1", "sub": str(self._user), "aud": "authenticated"}
        return jwt.encode(
            claims | {"iat": now, "exp": now + 3600, "role": "authenticated"}, self._crew.secret, algorithm="HS256"
        )

    def _tenant(self, order: Order) -> UUID:
        return self._tenants[order.tenant]

    # Deciding

    def _review(self, line: Line) -> None:
        self._over.wait(0.1)
        for review in line.rows(_OPEN):
            order = self._by_job.get(review["job_id"])
            if order is not None:
                self._decide(line, order, review)
        for row in line.rows(_REJECTED):
            order = self._by_job.get(row["id"])
            decided = line.rows(_DECIDED, row["id"])[0]["count"]
            if order is not None and len(order.decisions) > decided:
                self._ask(line, "retried", lambda c, j=row["id"], o=order: ledger.retry(c, j, self._tenant(o), None))

    def _decide(self, line: Line, order: Order, review: dict[str, Any]) -> None:
        decision: Any = order.decisions[review["before"]]
        from_step = "polish" if decision == "reprocessed" else None
        tenant = self._tenant(order)
        self._ask(
            line,
            decision,
            lambda c: ledger.decide(c, review["id"], tenant, self._user, decision, "by chance", from_step),
        )

    # Cancelling

    def _cancel(self, line: Line) -> None:
        try:
            at, order = self._cancels.get(timeout=0.2)
        except queue.Empty:
            return
        self._over.wait(max(0.0, at - time.monotonic()))
        job, tenant = self.jobs[order.key], self._tenant(order)
        self._ask(line, "cancelled", lambda c: ledger.cancel(c, job, tenant, self._user, "by chance"))

    def _ask(self, line: Line, what: str, do: Any) -> None:
        try:
            line.ask(do)
            self.said[what] += 1
        except Refused as refusal:
            self.said[f"{what}: refused, {refusal.code}"] += 1


def _bundle(orders: list[Order]) -> list[list[Order]]:
    """What is ordered together, where the first of it would be."""
    bundles: dict[str, list[Order]] = {}
    for order in orders:
        bundles.setdefault(order.batch or order.key, []).append(order)
    return list(bundles.values())
