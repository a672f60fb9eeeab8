"""The sample of `up --sample`: a file put through a pipeline over real HTTP, as any client would."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from tasks.command.client import Client, Endpoint
from tasks.command.console import console, nearby, program_name, say
from tasks.command.display import Display, open_display
from tasks.command.jobs import save_artifacts, start_job
from tasks.command.watch import EXIT_CODES, print_end, show_events, stages_of
from tasks.errors import LedgerlineError

_PIPELINE = "manuscript"


class Sample:
    """Runs beside the supervisor, which must go on looking after the processes meanwhile.

    code: the exit code for how the job ended; None while it has not.
    """

    def __init__(self, endpoint: Endpoint, path: Path, reports: Path, wake: Callable[[], None]) -> None:
        self.code: int | None = None
        self._endpoint = endpoint
        self._path = path
        self._reports = reports
        self._wake = wake
        self._left = False
        self._display: Display | None = None

    def start(self) -> None:
        """Begin, in a thread of its own, which nobody waits for."""
        threading.Thread(target=self._run, name="sample", daemon=True).start()

    def leave(self) -> None:
        """Show nothing more of it."""
        self._left = True
        if self._display:
            self._display.close()

    def _run(self) -> None:
        try:
            with Client(self._endpoint) as client:
                self.code = self._process(client)
        except (LedgerlineError, OSError) as error:
            if not self._left:
                self.leave()
                say("sample", str(error), "red")
            self.code = 1
        finally:
            self._wake()

    def _process(self, client: Client) -> int:
        job, new = start_job(client, self._path, _PIPELINE, {})
        again = "" if new else " (submitted before: nothing is done twice)"
        say("sample", f"{nearby(self._path.absolute())} is job {job['id']}{again}")
        self._display = display = open_display(f"{self._path.name}: {_PIPELINE}", stages_of(job))
        show_events(client, job["id"], display)
        if not self._left:
            display.close()
            print_end(display.standing)
            if display.standing.status == "completed":
                self._save(client, job["id"])
        return EXIT_CODES.get(display.standing.status, 1)

    def _save(self, client: Client, job_id: str) -> None:
        paths = save_artifacts(client, client.artifacts(job_id), self._reports / job_id)
        console().print("The report:", style="bold")
        for path in paths:
            console().print(f"  {nearby(path)}", markup=False, soft_wrap=True)
        links = f"{program_name()} artifacts {job_id} --links"
        console().print(f"Links for a browser: {links}", style="dim", markup=False, soft_wrap=True)
