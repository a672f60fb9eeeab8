"""The command `watch`, and how other commands follow a job with it."""

from __future__ import annotations

from typing import Any

import click

from tasks.command.access import Access, api_options
from tasks.command.client import Client
from tasks.command.console import console
from tasks.command.display import Display, Standing, open_display
from tasks.command.follow import follow, patiently
from tasks.errors import Refused, Unavailable

Json = dict[str, Any]

EXIT_CODES = {"completed": 0, "failed": 1, "cancelled": 2}
STOPPED = 130


@click.command()
@click.argument("job")
@api_options
def watch(job: str, access: Access) -> int:
    """Follow a job live, or see how it went.

    Ctrl-C stops watching; the job goes on. Exit code: 0 completed, 1 failed, 2 cancelled.
    """
    with access.open() as client:
        return watch_job(client, patiently(lambda: client.job(job)))


def watch_job(client: Client, job: Json, name: str | None = None) -> int:
    """Show a job until it is over or Ctrl-C is pressed. Returns the exit code for its end.

    job: as the API gives it. name: of its file, if the caller knows it.
    """
    try:
        return _watch_to_end(client, job, name)
    except KeyboardInterrupt:
        console().print("Stopped watching. The job goes on.")
        return STOPPED


def _watch_to_end(client: Client, job: Json, name: str | None) -> int:
    display = open_display(f"{name or name_of(client, job)}: {job['pipeline']}", stages_of(job))
    try:
        show_events(client, job["id"], display)
    finally:
        display.close()
    print_end(display.standing)
    return EXIT_CODES.get(display.standing.status, 1)


def show_events(client: Client, job_id: str, display: Display) -> None:
    """Feed a display with a job's events until its end."""
    for event in follow(client, job_id, display.note):
        display.show(event)


def print_end(standing: Standing) -> None:
    """How a job ended, in one line."""
    mark, style = {"completed": ("✓", "green"), "cancelled": ("✗", "yellow")}.get(standing.status, ("✗", "red"))
    console().print(f"{mark} {standing.summary()}", style=style, markup=False)


def name_of(client: Client, job: Json) -> str:
    """How a job is called on the screen: by its file, or by its id when there is none any more."""
    try:
        return str(client.document(job["document_id"])["filename"]) if job["document_id"] else f"job {job['id']}"
    except (Refused, Unavailable):
        return f"job {job['id']}"


def stages_of(job: Json) -> list[str]:
    """The stages a job goes through, in order."""
    return list(dict.fromkeys(step["stage"] for step in job["steps"]))
