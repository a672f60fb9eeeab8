"""The commands of reviewers: the inbox, and the three decisions."""

from __future__ import annotations

from typing import Any

import click

from tasks.command.access import Access, api_options
from tasks.command.client import Client
from tasks.command.console import clock, console, program_name, table
from tasks.errors import Refused

Json = dict[str, Any]

_STATUSES = ("open", "approved", "rejected", "reprocessed", "expired", "withdrawn")

_comment = click.option("--comment", default="", help="A sentence for the job's history.")


@click.command()
@click.option("--status", type=click.Choice(_STATUSES), default="open", show_default=True, help="Which reviews.")
@click.option("--pipeline", help="Only reviews of this pipeline.")
@click.option("--assigned-to", metavar="USER", help="Only those that this user is to decide: me, none, or a user's id.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many at most.")
@api_options
def review(status: str, pipeline: str | None, assigned_to: str | None, limit: int, access: Access) -> None:
    """List what waits for a person.

    Those that wait longest come first. With --status, what was decided, newest first.
    """
    with access.open() as client:
        found = client.reviews(limit, status=status, pipeline=pipeline, assigned_to=assigned_to)
    if not found:
        console().print("Nothing waits for a person." if status == "open" else "There are no such reviews.")
    elif status == "open":
        _print_inbox(found)
    else:
        _print_decided(found)


@click.command()
@click.argument("review")
@_comment
@api_options
def approve(review: str, comment: str, access: Access) -> None:
    """Approve what waits: its job goes on."""
    with access.open() as client:
        job = client.decide(review, "approve", {"comment": comment})["job_id"]
    console().print(f"Approved. Job {job} goes on.")


@click.command()
@click.argument("review")
@_comment
@api_options
def reject(review: str, comment: str, access: Access) -> None:
    """Reject what waits: its job fails."""
    with access.open() as client:
        job = client.decide(review, "reject", {"comment": comment})["job_id"]
    console().print(f"Rejected. Job {job} has failed; `{program_name()} retry` would open the gate again.")


@click.command()
@click.argument("review")
@click.option("--from-step", help="Where to begin again. Without it, the possible steps are listed.")
@_comment
@api_options
def reprocess(review: str, from_step: str | None, comment: str, access: Access) -> None:
    """Run the job that waits again from a step.

    What that step and those after it made is done anew, and then the gate opens again.
    """
    with access.open() as client:
        if from_step is None:
            raise _which_step(client, review)
        job = client.decide(review, "reprocess", {"from_step": from_step, "comment": comment})["job_id"]
    console().print(f"Job {job} runs again from {from_step}.")


def _which_step(client: Client, review: str) -> Refused:
    found = client.review(review)
    if not found["reprocess_from"]:
        return Refused("already_decided", f"This was already {found['status']}.")
    return Refused("step_missing", f"Say with --from-step where to begin: {', '.join(found['reprocess_from'])}.")


def _print_inbox(found: list[Json]) -> None:
    shown = table("review", "job", "pipeline", "gate", "document", "waits since", "expires", "look at")
    for row in found:
        files = ", ".join(artifact["name"] for artifact in row["artifacts"])
        expires = clock(row["expires_at"]) if row["expires_at"] else "never"
        document = row["document_title"] or ""
        since = clock(row["opened_at"])
        shown.add_row(row["id"], row["job_id"], row["pipeline"], row["step"], document, since, expires, files)
    console().print(shown, markup=False)


def _print_decided(found: list[Json]) -> None:
    shown = table("review", "job", "pipeline", "gate", "document", "decided", "by", "comment")
    for row in found:
        document, by = row["document_title"] or "", row["decided_by"] or ""
        decided = clock(row["decided_at"])
        shown.add_row(row["id"], row["job_id"], row["pipeline"], row["step"], document, decided, by, row["comment"])
    console().print(shown, markup=False)
