"""The command `watch`, and how other commands follow a job with it."""

from __future__ import annotations

from pathlib import Path

import click

from tasks.command.client import Client, find_endpoint
from tasks.command.console import console
from tasks.command.display import Display, Standing, open_display
from tasks.command.follow import follow
from tasks.command.options import api_options
from tasks.command.state import StateFolder

EXIT_CODES = {"completed": 0, "failed": 1, "cancelled": 2}
STOPPED = 130


@click.command()
@click.argument("job")
@api_options
def watch(job: str, url: str | None, token: str | None, state: Path) -> int:
    """Follow a job live, or see how it went.

    Ctrl-C stops watching; the job goes on. Exit code: 0 completed, 1 failed, 2 cancelled.
    """
    with Client(find_endpoint(StateFolder(state), url, token)) as client:
        return watch_job(client, job, title_of(client.job(job)))


def watch_job(client: Client, job_id: str, title: str) -> int:
    """Show a job until it is over or Ctrl-C is pressed. Returns the exit code for its end."""
    display = open_display(title)
    try:
        show_events(client, job_id, display)
    except KeyboardInterrupt:
        display.close()
        console().print("Stopped watching. The job goes on.")
        return STOPPED
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


def title_of(job: dict[str, object]) -> str:
    """How a job is called on the screen."""
    document = job.get("document")
    name = document.get("filename") if isinstance(document, dict) else None
    return f"{name or job['id']}: {job['pipeline']}"
