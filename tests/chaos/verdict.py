"""The verdict on a chaos run: everything that was ordered happened, once, and nothing else did."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID

from chaos.crew import Line, Row
from chaos.plan import Expected, Order, Place, expect

from tasks.settings import Settings
from tasks.storage import LocalStorage, digest_file

_ENDS = {"completed", "failed", "cancelled"}
_EXPECTED_FAILURES = {"not_yet", "bad_item", "worker_lost"}
_BATCH = 500
_FILES = 500


@dataclass
class Verdict:
    """What is wrong, in sentences, and what was counted."""

    wrong: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def must(self, holds: object, sentence: str) -> None:
        if not holds:
            self.wrong.append(sentence)


@dataclass
class Story:
    """All rows of one job."""

    job: Row
    runs: dict[Place, Row] = field(default_factory=dict)
    events: list[Row] = field(default_factory=list)
    artifacts: list[Row] = field(default_factory=list)


def judge(line: Line, orders: dict[UUID, Order], storage: Path) -> Verdict:
    """Compare every job with its order, and the ledger with itself."""
    verdict = Verdict()
    for jobs in _batches(orders):
        for story in _tell(line, jobs).values():
            _judge_history(verdict, story)
            _judge_end(verdict, story, orders[story.job["id"]])
    _judge_ledger(verdict, line, len(orders))
    _judge_files(verdict, line, storage)
    return verdict


def _batches(jobs: Iterable[UUID]) -> Iterator[list[UUID]]:
    rest = iter(jobs)
    while batch := list(islice(rest, _BATCH)):
        yield batch


def _tell(line: Line, jobs: list[UUID]) -> dict[UUID, Story]:
    stories = {row["id"]: Story(row) for row in line.rows("select * from jobs where id = any(%s)", jobs)}
    runs = """select s.*, r.value from job_steps s left join step_results r on r.id = s.result_id
              where s.job_id = any(%s)"""
    for row in line.rows(runs, jobs):
        stories[row["job_id"]].runs[row["step"], row["item"]] = row
    for row in line.rows("select * from job_events where job_id = any(%s) order by job_id, seq", jobs):
        stories[row["job_id"]].events.append(row)
    for row in line.rows("select * from artifacts where job_id = any(%s)", jobs):
        stories[row["job_id"]].artifacts.append(row)
    return stories


# One job --------------------------------------------------------------------------------------------------


def _judge_history(verdict: Verdict, story: Story) -> None:
    name, kinds = f"job {story.job['id']}", [event["kind"] for event in story.events]
    numbers = [event["seq"] for event in story.events]
    verdict.counts["events"] += len(numbers)
    verdict.must(numbers == list(range(1, story.job["last_seq"] + 1)), f"{name}: its event numbers have gaps")
    verdict.must(kinds[0] == "submitted" and kinds.count("submitted") == 1, f"{name}: was not submitted once")
    verdict.must(kinds[-1] == story.job["status"], f"{name}: something came after its end: {kinds[-3:]}")
    for number, kind in enumerate(kinds[:-1]):
        if kind in _ENDS:
            reopened = kind == "failed" and kinds[number + 1] == "reopened"
            verdict.must(reopened, f"{name}: {kinds[number + 1]} came after {kind}")
    repairs = [event["data"]["case"] for event in story.events if event["kind"] == "repaired"]
    verdict.counts.update(f"repairs, {case}" for case in repairs)
    verdict.must(kinds.count("reused") == story.job["reused"], f"{name}: counts {story.job['reused']} reuses")
    verdict.counts.update(f"events, {kind}" for kind in kinds if kind in ("step_released", "step_retrying", "reused"))


def _judge_end(verdict: Verdict, story: Story, order: Order) -> None:
    job, name = story.job, f"job {story.job['id']} ({order.pipeline})"
    verdict.counts[f"jobs, {job['status']}"] += 1
    verdict.must(bool(job["batch_id"]) == bool(order.batch), f"{name}: came with batch {job['batch_id']}")
    verdict.counts["jobs that came in batches"] += bool(job["batch_id"])
    match job["status"]:
        case "completed":
            _judge_completed(verdict, story, order, name)
        case "cancelled":
            verdict.must(order.cancel_after_s is not None, f"{name}: was cancelled by nobody")
        case "failed":
            rejected = job["error_code"] == "rejected" and order.decisions[-1:] == ("rejected",)
            verdict.must(rejected, f"{name}: failed with {job['error_code']}: {job['error_message']}")
        case other:
            verdict.wrong.append(f"{name}: is still {other}")


def _judge_completed(verdict: Verdict, story: Story, order: Order, name: str) -> None:
    expected: Expected = expect(order)
    runs = {place: run["status"] for place, run in story.runs.items()}
    verdict.must(runs == expected.runs, f"{name}: step runs are {runs}, not {expected.runs}")
    value = story.runs[expected.last, None]["value"]
    verdict.must(value == {"value": expected.value}, f"{name}: gave {value}, not {expected.value}")
    files = {(row["step"], row["item"], row["name"]): row["sha256"] for row in story.artifacts}
    verdict.must(len(files) == len(story.artifacts), f"{name}: names files twice")
    verdict.must(files == expected.artifacts, f"{name}: its files are not what its steps wrote")
    verdict.must(
        all(run["result_id"] for run in story.runs.values() if run["status"] in ("completed", "skipped")),
        f"{name}: a done step run has no result",
    )
    again = order.decisions.count("reprocessed")
    done = Counter(
        (event["step"], event["item"])
        for event in story.events
        if event["kind"] in ("step_completed", "step_skipped", "step_failed") and event["data"].get("current")
    )
    for place in expected.runs:
        verdict.must(1 <= done[place] <= 1 + again, f"{name}: {place} was done {done[place]} times")
    verdict.counts["step runs done"] += sum(done.values())
    verdict.counts["attempts of them"] += sum(run["attempt"] for run in story.runs.values())


# The whole ledger -----------------------------------------------------------------------------------------

_LEDGER = {
    "there are queue jobs left": """
      select id, status, args from procrastinate.procrastinate_jobs where task_name = 'run_step' limit 5""",
    "the ledger drifts at the end": "select * from ops.drift limit 5",
    "a finished step has not counted all its step runs": """
      select t.* from job_step_totals t join jobs j on j.id = t.job_id where j.status = 'completed' and (
        t.completed + t.failed <> t.total
        or (select count(*) from job_steps s where s.job_id = t.job_id and s.step = t.step) <> t.total) limit 5""",
    "a review is open although its job is over": """
      select r.id, r.job_id from reviews r join jobs j on j.id = r.job_id
      where r.status = 'open' and j.finished_at is not null limit 5""",
    # What is sent back is forgotten from its step on. What comes after that one waits for the gate: it is not done yet.
    "results do not add up with the history (a result for each completion that was no reuse and was not sent back)": """
      select * from (select
        (select count(*) from step_results) as results,
        (select count(*) from job_events where kind in ('step_completed', 'step_skipped')) as done,
        (select count(*) from job_events where kind = 'reused') as reused,
        (select count(*) from job_events e where e.kind in ('step_completed', 'step_skipped') and exists (
          select from job_events d where d.job_id = e.job_id and d.seq > e.seq and d.kind = 'gate_decided'
            and d.data ->> 'decision' = 'reprocessed' and d.data ->> 'from_step' = e.step)) as forgotten,
        (select coalesce(sum(hits), 0) from step_results) as hits) c
      where results <> done - reused - forgotten or hits <> reused""",
    "a result belongs to no step run": """
      select r.id, r.created_at from step_results r
      where not exists (select from job_steps s where s.result_id = r.id) limit 5""",
    "an item of a batch is not one job": """
      select i.batch_id, i.nr, i.outcome, i.code, i.job_id from batch_items i
      left join jobs j on j.id = i.job_id and j.batch_id = i.batch_id and j.idempotency_key = i.key
      where i.outcome <> 'created' or j.id is null limit 5""",
    "a batch is not over although all of it has come in": """
      select id, items, due_at, wish from batches where due_at is not null limit 5""",
    "events and deliveries of webhooks disagree": """
      select e.job_id, e.seq, e.kind, d.id, d.kind as told from webhooks w
      join job_events e on e.tenant_id = w.tenant_id and e.kind = any(w.kinds)
      full join webhook_deliveries d
        on d.webhook_id = w.id and d.job_id = e.job_id and d.seq = e.seq and d.kind = e.kind
      where e.seq is null or d.id is null limit 5""",
    "artifacts belong to step runs that are not done": """
      select a.id, a.job_id from artifacts a join jobs j on j.id = a.job_id
      left join job_steps s on s.job_id = a.job_id and s.step = a.step and s.item is not distinct from a.item
      where s.id is null or s.status not in ('completed', 'skipped') limit 5""",
}


def _judge_ledger(verdict: Verdict, line: Line, orders: int) -> None:
    made = line.rows("select count(*) from jobs")[0]["count"]
    verdict.must(made == orders, f"{orders} jobs were ordered and {made} made")
    for sentence, query in _LEDGER.items():
        rows = line.rows(query)
        verdict.must(not rows, f"{sentence}: {rows}")
    verdict.counts["deliveries of webhooks"] += line.rows("select count(*) from webhook_deliveries")[0]["count"]
    for row in line.rows("select code, count(*), min(detail) as detail from ops.failures group by code order by code"):
        verdict.counts[f"failed attempts, {row['code']}"] += row["count"]
        verdict.must(
            row["code"] in _EXPECTED_FAILURES,
            f"{row['count']} attempts failed with {row['code']}: {row['detail'][:500]}",
        )


def _judge_files(verdict: Verdict, line: Line, folder: Path) -> None:
    """The bytes that the ledger names are there, and are what their name says."""
    storage = LocalStorage(Settings(_env_file=None, database_url="", link_secret="x" * 32, storage_path=folder))
    query = """select distinct tenant_id, sha256 from artifacts
               union select tenant_id, blob ->> 'sha256' from step_results where blob is not null limit %s"""
    with tempfile.TemporaryDirectory() as place:
        for row in line.rows(query, _FILES):
            target = Path(place) / "file"
            storage.fetch(row["tenant_id"], row["sha256"], target)
            verdict.must(digest_file(target)[0] == row["sha256"], f"the bytes of {row['sha256']} are others")
            verdict.counts["files compared"] += 1


# What the logs say ------------------------------------------------------------------------------------------

_SERVER_ERROR = re.compile(r"(?:ERROR|PANIC):  (.+)")
_IDS = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d+")


def count_server_errors(log: Path) -> Counter[str]:
    """Errors of Postgres by sentence, with numbers left out."""
    found = _SERVER_ERROR.findall(log.read_text(errors="replace")) if log.exists() else []
    return Counter(_IDS.sub("#", sentence) for sentence in found)


def describe(line: Line, job: Any) -> str:
    """A job's rows, for whoever looks for the cause."""
    parts = [f"job {job}"]
    for title, query in (
        ("", "select status, stage, error_code, created_at, finished_at, last_seq from jobs where id = %s"),
        ("run", "select step, item, status, attempt, queue_job_id, worker_id from job_steps where job_id = %s"),
        ("event", "select seq, at, kind, step, item, attempt, message from job_events where job_id = %s order by seq"),
    ):
        parts += [f"  {title} {list(row.values())}" for row in line.rows(query, job)]
    return "\n".join(parts)
