"""The state of a job as a client may rely on it: repaired when it looked stale, tagged, and waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from api.codes import refuse
from api.house import House
from api.models.jobs import Job
from api.people import Member, Outdated
from api.reading import read_one
from api.rows import is_terminal, show_job
from api.tags import tag_of
from tasks import ledger
from tasks.db import Row
from tasks.errors import Refused
from tasks.tracing import current_trace

# How far the queue before a job is counted: when somebody looks, and in passing, when it is submitted.
_MOST_AHEAD = 1_000
_MOST_AHEAD_IN_PASSING = 100
# What the ledger says when the one who submits has an old idea of who they are, or of what they run.
_OUTDATED = ("member_changed", "pipeline_changed", "unknown_pipeline")


@dataclass(frozen=True)
class Sight:
    """A job as it was seen: the model, its JSON and the tag of that."""

    job: Job
    json: str
    etag: str


def submit_and_look(desk: House, member: Member, submission: ledger.Submission) -> tuple[Job, bool]:
    """Submit, and see the job as the member may, in one round trip, which requests of the same moment share; whether it
    is a new one. Raises Refused; Outdated when what was recalled of the member is no longer so."""
    role = member.role if member.recalled else None
    order = ledger.Order(submission, member.caller.claims, _MOST_AHEAD_IN_PASSING, role, current_trace())
    try:
        seen = desk.submissions.ask(order)
    except Refused as refused:
        if member.recalled and refused.code in _OUTDATED:
            raise Outdated from refused
        raise
    if seen.look is None:
        raise job_not_found()
    return show_job(seen.look), seen.created


def find_job(desk: House, member: Member, job_id: UUID) -> Job:
    """The job as the member may see it. Raises Refused `job_not_found`.

    One that was silent for as long as a worker may be is looked at by the ledger's reconcile first, so nobody is told
    that something runs which died.
    """
    row = _read(desk, member, job_id)
    if repair_silent(desk, job_id, row["status"], row["silent_s"]):
        row = _read(desk, member, job_id)
    return show_job(row)


def repair_silent(desk: House, job_id: UUID, status: str, silent_s: float) -> bool:
    """Let the ledger look at a job that is not over and was silent for as long as a worker may be. Whether that has
    changed anything."""
    if is_terminal(status) or silent_s <= desk.settings.lease_s:
        return False
    with desk.pool.connection() as connection:
        return ledger.reconcile(connection, desk.settings, job_id) > 0


def see_job(desk: House, member: Member, job_id: UUID) -> Sight:
    """The job with its tag: a digest of all that is said about it. Raises Refused `job_not_found`."""
    job = find_job(desk, member, job_id)
    text = job.model_dump_json()
    return Sight(job, text, tag_of(text))


def await_change(
    desk: House, member: Member, job_id: UUID, is_known: Callable[[str], bool] | None, most_s: float
) -> Sight:
    """Look until the job differs from what is known, or `most_s` seconds are over.

    `is_known` tells whether the client has a tag already; without it, what we see first is taken for known. A job that
    is over is answered at once: it will not change.
    """
    deadline = time.monotonic() + most_s
    with desk.live.follow(job_id) as follower:
        while True:
            follower.arm()
            sight = see_job(desk, member, job_id)
            known = is_known or _same_as(sight.etag)
            is_known = known
            left = deadline - time.monotonic()
            if not known(sight.etag) or sight.job.terminal or left <= 0 or desk.live.closed:
                return sight
            follower.wait(left)


def job_not_found() -> Refused:
    """The refusal for a job that is not there, or is another tenant's."""
    return refuse("job_not_found", "There is no such job.")


def _same_as(etag: str) -> Callable[[str], bool]:
    return lambda other: other == etag


def _read(desk: House, member: Member, job_id: UUID) -> Row:
    asked = {"job_id": job_id, "tenant_id": member.tenant_id, "most_ahead": _MOST_AHEAD}
    row = read_one(desk, member.caller, "api_job", **asked)
    if row is None:
        raise job_not_found()
    return dict(row["job"])
