"""Live streams on the wire, and the tickets that open them."""

from __future__ import annotations

from uuid import UUID

from pydantic import Field, RootModel

from api.headers import POSITION_PATTERN
from api.models.base import Answer, Request, example, example_of
from api.models.jobs import Event, JobStatus, JobSummary

_TICKET = Field(None, max_length=200, description="A ticket of `POST /stream-tickets`, where no header can be sent.")


class StreamQuery(Request):
    """Where to start. The header `Last-Event-ID` wins, because a reconnecting browser sends it."""

    after: int = Field(0, ge=0, le=2_147_483_647, description="Events with a greater number.")
    ticket: str | None = _TICKET


class DocumentStreamQuery(Request):
    """Where to start. The header `Last-Event-ID` wins, because a reconnecting browser sends it."""

    after: str | None = Field(
        None,
        max_length=64,
        pattern=f"^{POSITION_PATTERN}$",
        description="The `id` of a message of this stream; what follows it.",
    )
    ticket: str | None = _TICKET


class TenantStreamQuery(DocumentStreamQuery):
    """Where to start, and which jobs."""

    pipeline: str | None = Field(None, max_length=63, description="Only jobs of this pipeline.")


class Ended(Answer):
    """The last message of a job's stream."""

    status: JobStatus
    last_seq: int


class LiveEvent(Event):
    """An event in a stream of many jobs."""

    model_config = example(
        **example_of(Event),
        job_id=example_of(JobSummary)["id"],
        document_id=example_of(JobSummary)["document_id"],
        pipeline="manuscript",
    )

    job_id: UUID
    document_id: UUID | None
    pipeline: str


class ActiveJob(JobSummary):
    """A job that is not over."""

    last_seq: int = Field(description="Number of its latest event: those up to it are in here already.")


class ActiveJobs(Answer):
    """The first message of a tenant's stream that starts now: what is active, newest first."""

    model_config = example(jobs=[{**example_of(JobSummary), "last_seq": 35}], complete=True)

    jobs: list[ActiveJob]
    complete: bool = Field(description="False when there are more than these 200.")


class JobMessage(RootModel[Event | Ended]):
    """The data of a message in a job's stream: `Ended` with the type `end`, or an event."""


class TenantMessage(RootModel[LiveEvent | ActiveJobs]):
    """The data of a message in a tenant's stream: `ActiveJobs` with the type `jobs`, or an event."""


class StreamTicket(Answer):
    """Opens one stream, once: `?ticket=...`"""

    model_config = example(ticket="q3ZcVbq0x5lq0a7mXb7k4yJm0Z7oQ6B1zq5o6t3vQ2E", expires_in=60)

    ticket: str
    expires_in: int = Field(description="Seconds for which it is good.")
