"""The commands about jobs that are one or two calls to the API: submit, jobs, cancel, retry, artifacts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from tasks.command.access import Access, api_options
from tasks.command.client import Client
from tasks.command.console import clock, console, nearby, program_name, size, status_text, table
from tasks.command.watch import STOPPED, watch_job
from tasks.errors import LedgerlineError, Refused

Json = dict[str, Any]

_STATUSES = ("queued", "running", "awaiting_review", "completed", "failed", "cancelled")


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--pipeline", default="manuscript", show_default=True, help="What to do with them.")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="A parameter of the pipeline; repeatable.")
@click.option("--fresh", is_flag=True, help="Do every step again, also those that were done before.")
@click.option("--watch", "watching", is_flag=True, help="Follow each job until it is over.")
@api_options
def submit(
    files: tuple[Path, ...],
    pipeline: str,
    params: tuple[str, ...],
    fresh: bool,
    watching: bool,
    access: Access,
) -> int:
    """Upload files and start a job for each.

    With several files, one that is refused does not keep the others from being done; the exit code tells of it.
    """
    chosen = read_params(params)
    with access.open() as client:
        started, codes = [], []
        for path in files:
            try:
                started.append((path, _start(client, path, pipeline, chosen, fresh)))
            except LedgerlineError as error:
                click.echo(f"{path}: {error}", err=True)
                codes.append(1)
        codes += _watch_all(client, started) if watching else []
    if started and not watching:
        console().print(f"Follow a job with: {program_name()} watch JOB", style="dim")
    return max(codes, default=0)


@click.command()
@click.option("--status", type=click.Choice(_STATUSES), help="Only jobs of this status.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many at most.")
@api_options
def jobs(status: str | None, limit: int, access: Access) -> None:
    """List jobs, newest first."""
    with access.open() as client:
        found = client.jobs(status, limit)
    if not found:
        console().print("There are no such jobs." if status else "There are no jobs yet.")
        return
    shown = table("job", "status", "stage", "done", "pipeline", "submitted", "error")
    for job in found:
        done = Text(f"{job['progress']['percent']} %", justify="right")
        error = (job.get("error") or {}).get("code", "")
        status_cell = status_text(job["status"])
        shown.add_row(job["id"], status_cell, job["stage"], done, job["pipeline"], clock(job["created_at"]), error)
    console().print(shown)


@click.command()
@click.argument("job")
@click.option("--reason", default="", help="A sentence for the job's history.")
@api_options
def cancel(job: str, reason: str, access: Access) -> None:
    """Stop a job."""
    with access.open() as client:
        client.cancel(job, reason)
    console().print(f"Job {job} is cancelled.")


@click.command()
@click.argument("job")
@click.option("--watch", "watching", is_flag=True, help="Follow it until it is over.")
@api_options
def retry(job: str, watching: bool, access: Access) -> int:
    """Take a failed job up again where it failed.

    What was done stays done.
    """
    with access.open() as client:
        client.retry(job)
        console().print(f"Job {job} goes on from where it failed.")
        return watch_job(client, client.job(job)) if watching else 0


@click.command()
@click.argument("job")
@click.option("--save", "folder", type=click.Path(file_okay=False, path_type=Path), help="Save them in this folder.")
@click.option("--links", is_flag=True, help="Show links for a browser, good for a few minutes.")
@api_options
def artifacts(job: str, folder: Path | None, links: bool, access: Access) -> None:
    """List a job's artifacts, or save them."""
    with access.open() as client:
        found = client.artifacts(job)
        if not found:
            console().print("This job has no artifacts.")
        elif folder:
            print_saved(save_artifacts(client, found, folder))
        elif links:
            for row in found:
                console().print(row["name"], client.link(row["id"])["url"], sep="\n", markup=False, soft_wrap=True)
        else:
            shown = table("artifact", "name", "size", "type", "made by")
            for row in found:
                shown.add_row(row["id"], row["name"], size(row["bytes"]), row["media_type"], row["step"])
            console().print(shown)


def read_params(texts: Iterable[str]) -> Json:
    """NAME=VALUE pairs as a dictionary. A value that is JSON is read as JSON, any other is text."""
    found: Json = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{text!r} is not of the form NAME=VALUE.", param_hint="--param")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def start_job(client: Client, path: Path, pipeline: str, params: Json, *, fresh: bool = False) -> tuple[Json, bool]:
    """Upload a file and start a job on it. The job, and whether it is new. Raises Refused and Unavailable."""
    try:
        document = client.upload(path)
    except OSError as error:
        raise Refused("file_unreadable", f"The file cannot be read: {error.strerror}.") from error
    return client.submit(pipeline, document["id"], params, fresh=fresh)


def save_artifacts(client: Client, found: list[Json], folder: Path) -> list[Path]:
    """Download artifacts into a folder, made when absent; their paths. Names that occur twice get the item's number."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [Path(row["name"]).name for row in found]
    saved = []
    for row, name in zip(found, names, strict=True):
        twice = names.count(name) > 1
        target = folder / (f"{row['step']}-{row.get('item') or 0}-{name}" if twice else name)
        client.save(row["id"], target)
        saved.append(target)
    return saved


def print_saved(paths: Iterable[Path]) -> None:
    """Where files were saved, one per line."""
    for path in paths:
        console().print(f"  {nearby(path)}  ({size(path.stat().st_size)})", markup=False)


def _start(client: Client, path: Path, pipeline: str, params: Json, fresh: bool) -> Json:
    job, new = start_job(client, path, pipeline, params, fresh=fresh)
    told = "submitted as" if new else "was submitted before as"
    console().print(f"{path}: {told} job {job['id']}", markup=False)
    return job


def _watch_all(client: Client, started: list[tuple[Path, Json]]) -> list[int]:
    """Follow jobs one after the other. Ctrl-C ends the watching of all."""
    codes: list[int] = []
    for path, job in started:
        codes.append(watch_job(client, job, path.name))
        if codes[-1] == STOPPED:
            break
    return codes
