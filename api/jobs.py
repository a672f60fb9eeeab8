"""Jobs: start, list, look at, cancel, retry."""

from __future__ import annotations

from uuid import UUID

from flask import Response, g, request

from api.codes import LIMITED
from api.contract import Access, Reply, Room
from api.headers import IDEMPOTENCY_KEY, IF_NONE_MATCH
from api.house import house
from api.incoming import read_idempotency_key
from api.jobs_state import await_change, find_job, see_job, submit_and_look
from api.models.jobs import Cancellation, Job, JobQuery, Jobs, JobsPage, NewJob
from api.paging import cut, read_cursor
from api.paths import job_path
from api.people import Member
from api.reading import read
from api.rows import show_summary
from api.tags import TAGGED, UNCHANGED, answer_tagged
from tasks import ledger

jobs = Room("jobs", "One run of one pipeline each. They go on whoever watches; nothing depends on the client staying.")


@jobs.call(
    "POST",
    "/jobs",
    "Start a job",
    access=Access.WRITE,
    body=NewJob,
    gives=Job,
    status=202,
    takes_headers={"Idempotency-Key": IDEMPOTENCY_KEY},
    gives_headers={
        "Location": "Path of the job.",
        "Idempotent-Replayed": "`true` when an equal request made this job before.",
    },
    errors=(
        "unknown_pipeline", "params_invalid", "document_required", "document_not_found", "document_not_accepted",
        "document_quarantined", "idempotency_key_invalid", "idempotency_key_reused", "pipeline_changed", "try_again",
        *LIMITED,
    ),
    proves=True,
)  # fmt: skip
def submit_job(member: Member, body: NewJob) -> Reply:
    """Answers at once; the work is done in the background. Ten clicks make one job: without an Idempotency-Key, an
    equal request finds the job that is live or completed already, unless `fresh` is set.

    Takes two round trips to the database: who is it and which pipeline is current; submit and look at the job. From
    somebody who has asked for the same a moment ago it takes one, which proves that they still may.
    """
    desk = house()
    assert member.graph is not None
    submission = ledger.Submission(
        tenant_id=member.tenant_id,
        user_id=member.user_id,
        pipeline=member.graph.name,
        graph=member.graph.digest,
        document_id=body.document_id,
        params=member.graph.check(body.params),
        idempotency_key=read_idempotency_key(),
        fresh=body.fresh,
        deadline_s=body.deadline_s,
    )
    job, created = submit_and_look(desk, member, submission)
    g.job_id = job.id
    headers = {"Location": job_path(job.id)}
    if not created:
        headers["Idempotent-Replayed"] = "true"
    return Reply(job, headers=headers)


@jobs.call("GET", "/jobs", "List jobs", access=Access.READ, query=JobsPage, gives=Jobs, errors=("cursor_invalid",))
def list_jobs(member: Member, query: JobsPage) -> Jobs:
    """The tenant's jobs, newest first, all or those of one status, pipeline, document or batch."""
    rows = read(
        house(),
        member.caller,
        "api_jobs",
        tenant_id=member.tenant_id,
        before=read_cursor(query.cursor),
        status=query.status,
        pipeline=query.pipeline,
        document_id=query.document_id,
        batch_id=query.batch_id,
        most=query.limit + 1,
    )
    rows, cursor = cut(rows, query.limit)
    return Jobs(jobs=[show_summary(row) for row in rows], next_cursor=cursor)


@jobs.call(
    "GET",
    "/jobs/<uuid:job_id>",
    "Look at a job",
    access=Access.READ,
    query=JobQuery,
    gives=Job,
    takes_headers={"If-None-Match": IF_NONE_MATCH},
    gives_headers=TAGGED,
    also=UNCHANGED,
    errors=("job_not_found",),
)
def look_at_job(member: Member, job_id: UUID, query: JobQuery) -> Response:
    """Polling that cannot hang: `terminal` is decided here from status alone, `poll_after_ms` says when to ask again,
    and a job that looks stale is repaired before it is returned.

    With `wait`, the answer comes when the job differs from the ETag in If-None-Match (without one: when anything
    changes), or when the time is over. A job that is over is answered at once.
    """
    desk = house()
    known = request.if_none_match
    wait_s = min(query.wait, desk.settings.max_wait_s)
    if wait_s:
        is_known = known.contains_weak if known else None
        sight = await_change(desk, member, job_id, is_known, wait_s)
    else:
        sight = see_job(desk, member, job_id)
    return answer_tagged(sight.json, sight.etag)


@jobs.call(
    "POST",
    "/jobs/<uuid:job_id>/cancel",
    "Cancel a job",
    access=Access.WRITE,
    body=Cancellation,
    gives=Job,
    errors=("job_not_found", "job_is_over"),
)
def cancel_job(member: Member, job_id: UUID, body: Cancellation) -> Job:
    """A queued job stops at once, a running one within seconds; nothing of it is written after this answer."""
    desk = house()
    with desk.pool.connection() as connection:
        ledger.cancel(connection, job_id, member.tenant_id, member.user_id, body.reason)
    return find_job(desk, member, job_id)


@jobs.call(
    "POST",
    "/jobs/<uuid:job_id>/retry",
    "Retry a failed job",
    access=Access.WRITE,
    gives=Job,
    status=202,
    errors=("job_not_found", "job_did_not_fail", "newer_job_exists", *LIMITED),
)
def retry_job(member: Member, job_id: UUID) -> Job:
    """The same job goes on from the step that failed; what was done stays done."""
    desk = house()
    with desk.pool.connection() as connection:
        ledger.retry(connection, job_id, member.tenant_id, member.user_id)
    return find_job(desk, member, job_id)
