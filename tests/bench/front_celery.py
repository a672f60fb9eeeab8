"""POST /jobs on Celery: our own endpoint with all that it checks, limits, logs and answers, but what keeps the job is a
row of a hand-written ledger and then a task that is sent. What can go wrong in between is the point of Ledgerline."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from bench.with_celery import run
from flask import Flask

from api import create_app as create_our_app
from api import jobs
from api.house import House
from api.models.jobs import Job
from api.people import Member, Outdated
from api.rows import show_job
from tasks import ledger

# For one who was known already it proves in passing that they still may, as ours does.
_INSERT = (
    "insert into plain.jobs (id) select %s where exists ("
    "select from public.members where tenant_id = %s and user_id = %s and role = %s)"
)
_COUNTS = ("held", "running", "retrying", "gated", "completed", "skipped", "failed", "cancelled")
_STEP = dict.fromkeys(_COUNTS, 0) | {
    "name": "only",
    "stage": "analyzing",
    "mapped": False,
    "gate": False,
    "total": 1,
    "finished": False,
    "queued": 1,
}


def create_app() -> Flask:
    """The application, for gunicorn."""
    jobs.submit_and_look = submit_on_celery
    return create_our_app()


def submit_on_celery(desk: House, member: Member, submission: ledger.Submission) -> tuple[Job, bool]:
    """What a careful team does: the row first, then the task."""
    job = str(ledger.new_id())
    with desk.pool.connection() as connection:
        if not connection.execute(_INSERT, [job, member.tenant_id, member.user_id, member.role]).rowcount:
            raise Outdated
    run.delay(job)
    return show_job(_tell(job, member, submission)), True


def _tell(job: str, member: Member, submission: ledger.Submission) -> dict[str, Any]:
    """The answer without another look: what is known of a job that was just submitted."""
    nothing = ("document_id", "batch_id", "error_code", "error_message", "started_at", "finished_at", "review_id")
    return dict.fromkeys((*nothing, "waiting_for", "deadline_at")) | {
        "id": job,
        "pipeline": submission.pipeline,
        "created_by": member.user_id,
        "status": "queued",
        "stage": "initializing",
        "percent": 0,
        "progress_current": 0,
        "progress_total": 0,
        "progress_message": "",
        "created_at": datetime.now(UTC),
        "params": submission.params,
        "fresh": False,
        "last_seq": 1,
        "steps": [_STEP],
    }
