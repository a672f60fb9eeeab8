"""The command `explain`: what happened to a job, and what it waits for.

Operators, who have the database, are told everything, the detail of failures included. Users are told by the API what
users may know.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import click

from tasks.command.access import Access, api_options
from tasks.command.console import clock, console, status_text, table
from tasks.command.events import Event
from tasks.command.state import StateFolder
from tasks.errors import Refused

Json = dict[str, Any]


@dataclass(frozen=True)
class Story:
    """A job, its history, what it waits for, and the details of its failures (None: not for this reader)."""

    job: Json
    events: list[Event]
    waiting_for: Json | None
    failures: list[Json] | None = field(default=None)


@click.command()
@click.argument("job")
@api_options
def explain(job: str, access: Access) -> None:
    """Show a job's history and what it waits for.

    Where the database is known (DATABASE_URL, or a running `up`), the operator's detail of each failure too, unless
    --url sends the question to an API.
    """
    from tasks.command.environment import has_database

    operator = access.url is None and has_database(access.state)
    print_story(_ask_database(access.state, job) if operator else _ask_api(access, job))


def print_story(story: Story) -> None:
    """The story in paragraphs: the job, its history, the failures, the waiting."""
    out, job = console(), story.job
    out.print(f"job {job['id']}  {job['pipeline']}  ", status_text(job["status"]), f"  {job['stage']}")
    if job.get("error"):
        out.print(f"{job['error']['code']}: {job['error']['message']}", style="red", markup=False)
    out.print()
    _print_history(story.events)
    if story.failures:
        _print_failures(story.failures)
    if story.waiting_for:
        out.print(f"\nIt waits: {story.waiting_for['message']}", style="bold", markup=False)


def _print_history(events: list[Event]) -> None:
    shown = table("seq", "time", "event", "step", "attempt", "done", "message")
    for event in events:
        attempt = "" if event.attempt is None else str(event.attempt)
        message = event.message or (f"{event.current} of {event.total}" if (event.total or 0) > 1 else "")
        if event.code:
            message = f"{event.code}: {message}"
        shown.add_row(str(event.seq), clock(event.at), event.kind, event.where, attempt, f"{event.percent} %", message)
    console().print(shown, markup=False)


def _print_failures(failures: list[Json]) -> None:
    console().print("\nFailures, for the operator:", style="bold")
    for failure in failures:
        where = " ".join(str(part) for part in (failure["step"], failure["item"]) if part is not None)
        head = f"  {clock(failure['at'])}  {failure['code']}  {where}  attempt {failure['attempt']}"
        console().print(head, markup=False)
        for line in str(failure["detail"]).splitlines():
            console().print(f"    {line}", style="dim", markup=False)


def _ask_api(access: Access, job: str) -> Story:
    with access.open() as client:
        row = client.job(job)
        return Story(row, client.events(job), row["waiting_for"])


def _ask_database(folder: StateFolder, job: str) -> Story:
    from tasks.command.environment import find_settings
    from tasks.command.release import connect
    from tasks.db import statement

    named = {"job_id": _read_id(job)}
    with connect(find_settings(folder)) as connection:
        row = connection.execute(statement("explain_job"), named).fetchone()
        if row is None:
            raise _no_such_job()
        events = [_plain(event) for event in connection.execute(statement("explain_events"), named)]
        failures = [_plain(failure) for failure in connection.execute(statement("explain_failures"), named)]
        with connection.transaction():
            # What a job waits for is told to its tenant's members; the operator asks as one of them.
            connection.execute(statement("explain_as_member"), {"claims": json.dumps({"sub": str(row["member"])})})
            waiting = connection.execute(statement("explain_waiting"), named).fetchone()
    error = {"code": row["error_code"], "message": row["error_message"]} if row["error_code"] else None
    return Story(
        row | {"error": error}, [Event.from_json(event) for event in events], (waiting or {}).get("waiting"), failures
    )


def _plain(row: Json) -> Json:
    """Times as ISO text, as the API gives them."""
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}


def _read_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise _no_such_job() from None


def _no_such_job() -> Refused:
    return Refused("job_not_found", "There is no such job.", status=404)
