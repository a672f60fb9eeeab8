"""Jobs on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from api.models.base import Answer, Page, Request, example

JobStatus = Literal["queued", "running", "awaiting_review", "completed", "failed", "cancelled"]
StepStatus = Literal[
    "pending", "queued", "held", "running", "retrying", "gated", "completed", "skipped", "failed", "cancelled"
]
TERMINAL = ("completed", "failed", "cancelled")
LONGEST_DEADLINE_S = 30 * 86_400

_ID = "01931c2f-0d6b-7a40-8c59-8d7d1a4f3e21"
_DOCUMENT_ID = "01931c2e-8f1a-7c3e-9a55-2f6f0f7c1b10"
_SUMMARY = {
    "id": _ID,
    "pipeline": "manuscript",
    "document_id": _DOCUMENT_ID,
    "batch_id": None,
    "created_by": "5f0c2a52-2a6e-4d2f-9c1e-6f9d0c5a7e11",
    "status": "running",
    "active": True,
    "terminal": False,
    "stage": "analyzing",
    "progress": {"current": 12, "total": 40, "percent": 31, "message": "Chapter 12 of 40"},
    "error": None,
    "created_at": "2026-11-23T09:30:01Z",
    "started_at": "2026-11-23T09:30:01Z",
    "finished_at": None,
    "links": {
        "self": f"/api/v1/jobs/{_ID}",
        "events": f"/api/v1/jobs/{_ID}/events",
        "stream": f"/api/v1/jobs/{_ID}/stream",
        "artifacts": f"/api/v1/jobs/{_ID}/artifacts",
        "cancel": f"/api/v1/jobs/{_ID}/cancel",
        "retry": None,
        "document": f"/api/v1/documents/{_DOCUMENT_ID}",
        "batch": None,
        "review": None,
    },
}
_EVENT = {
    "seq": 4,
    "at": "2026-11-23T09:30:02Z",
    "kind": "progress",
    "stage": "parsing",
    "step": "extract",
    "item": None,
    "attempt": 1,
    "actor": None,
    "message": "Page 120 of 300",
    "data": {"status": "running", "percent": 8, "current": 120, "total": 300},
}


class Progress(Answer):
    """How far a job is. `percent` never goes back; `current` of `total` belongs to the stage at hand."""

    current: int
    total: int
    percent: int = Field(ge=0, le=100)
    message: str


class JobError(Answer):
    """Why a job failed."""

    code: str
    message: str


class JobLinks(Answer):
    """Where to go from a job."""

    self: str
    events: str
    stream: str
    artifacts: str
    cancel: str | None = Field(description="Null when there is nothing to cancel.")
    retry: str | None = Field(description="Null unless the job failed.")
    document: str | None
    batch: str | None
    review: str | None = Field(description="What a person has to decide now; null when nothing waits for one.")


class JobSummary(Answer):
    """A job as lists show it."""

    model_config = example(**_SUMMARY)

    id: UUID
    pipeline: str
    document_id: UUID | None
    batch_id: UUID | None = Field(description="The batch it came in with.")
    created_by: UUID | None
    status: JobStatus
    active: bool = Field(description="Still moving, or waiting to. The opposite of `terminal`.")
    terminal: bool = Field(description="Over: nothing will change any more, unless a person retries it.")
    stage: str = Field(description="What it is busy with, for people. `status` decides; this only tells.")
    progress: Progress
    error: JobError | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    links: JobLinks


class Step(Answer):
    """One step of a job, and its step runs counted by status. A map step has one step run per item: `total` of them,
    null while that is not known. A gate waits for a person.
    """

    name: str
    stage: str
    status: StepStatus
    mapped: bool
    gate: bool
    total: int | None
    queued: int
    held: int
    running: int
    retrying: int
    gated: int
    completed: int
    skipped: int
    failed: int
    cancelled: int


class WaitingFor(Answer):
    """Why a job does not move right now."""

    reason: str = Field(
        description="`queue`, `no_worker`, `retry`, `rate_limit`, `queue_paused`, `tenant_paused` or `review`."
    )
    message: str
    step: str | None = None
    queue: str | None = None
    ahead: int | None = Field(None, description="Queue jobs before it, counted up to 1000.")
    until: datetime | None = None
    code: str | None = Field(None, description="The error that made it wait for another try.")


class Job(JobSummary):
    """A job with its steps."""

    model_config = example(
        **_SUMMARY,
        params={"language": "en"},
        fresh=False,
        deadline_at=None,
        steps=[
            {
                "name": "analyze",
                "stage": "analyzing",
                "status": "running",
                "mapped": True,
                "gate": False,
                "total": 40,
                "queued": 27,
                "held": 0,
                "running": 2,
                "retrying": 0,
                "gated": 0,
                "completed": 11,
                "skipped": 0,
                "failed": 0,
                "cancelled": 0,
            }
        ],
        waiting_for=None,
        poll_after_ms=1000,
        last_seq=35,
    )

    params: dict[str, Any]
    fresh: bool
    deadline_at: datetime | None = Field(description="If it is not over by then, it fails: `deadline_exceeded`.")
    steps: list[Step]
    waiting_for: WaitingFor | None
    poll_after_ms: int | None = Field(description="When asking again makes sense; null when the job is over.")
    last_seq: int = Field(description="Number of its latest event.")


class Jobs(Answer):
    """A page of jobs, newest first."""

    model_config = example(jobs=[_SUMMARY], next_cursor="AZMcLw1rekCMWY19Gk8-IQ")

    jobs: list[JobSummary]
    next_cursor: str | None = Field(description="For the next page; null on the last one.")


class NewJob(Request):
    """A request for a job."""

    model_config = example(pipeline="manuscript", document_id=_DOCUMENT_ID, params={}, fresh=False)

    pipeline: str = Field(min_length=1, max_length=63, description="A name that `GET /pipelines` lists.")
    document_id: UUID | None = None
    params: dict[str, Any] = Field(default_factory=dict, description="Must fit the pipeline's `params_schema`.")
    fresh: bool = Field(False, description="Compute everything again, also what was computed before.")
    deadline_s: float | None = Field(
        None,
        ge=1,
        le=LONGEST_DEADLINE_S,
        description="Seconds from now until the job fails if it is not over, time spent waiting included. Not part of "
        "what makes two requests equal: a job that an equal request made keeps its own deadline.",
    )


class JobsPage(Page):
    """Which jobs."""

    status: JobStatus | None = Field(None, description="Only jobs of this status.")
    pipeline: str | None = Field(None, max_length=63, description="Only jobs of this pipeline.")
    document_id: UUID | None = Field(None, description="Only jobs on this document.")
    batch_id: UUID | None = Field(None, description="Only jobs of this batch.")


class JobQuery(Request):
    """How to be told about a job."""

    wait: int = Field(0, ge=0, le=120, description="Seconds to wait for a change; see MAX_WAIT_S.")


class Cancellation(Request):
    """Why a job is cancelled."""

    model_config = example(reason="Wrong file.")

    reason: str = Field("", max_length=500, description="Becomes part of the job's history.")


class Event(Answer):
    """One line of a job's history. Lines are numbered without gaps and never change."""

    model_config = example(**_EVENT)

    seq: int
    at: datetime
    kind: str = Field(
        description="submitted, started, step_started, progress, step_completed, step_skipped, reused, step_retrying, "
        "step_failed, step_released, gate_opened, gate_assigned, gate_decided, awaiting_review, repaired, "
        "completed, failed, cancelled or reopened."
    )
    stage: str | None
    step: str | None
    item: int | None
    attempt: int | None
    actor: UUID | None = Field(description="The user who did it, if a person did.")
    message: str
    data: dict[str, Any] = Field(description="The job's `status` and `percent` then, and what belongs to the kind.")


class Events(Answer):
    """A part of a job's history, oldest first."""

    model_config = example(events=[_EVENT], next_after=4, last_seq=35, status="running", terminal=False)

    events: list[Event]
    next_after: int = Field(description="Ask with `after` set to this to go on.")
    last_seq: int = Field(description="Number of the latest event there is.")
    status: JobStatus
    terminal: bool


class EventsQuery(Request):
    """Which part of the history."""

    after: int = Field(0, ge=0, le=2_147_483_647, description="Events with a greater number.")
    limit: int = Field(100, ge=1, le=1000, description="Most events of this answer.")
