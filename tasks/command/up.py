"""The command `up`: everything Ledgerline needs, in one terminal.

Postgres (embedded, unless DATABASE_URL is set), the schema, keys and a user for development, the API and a worker.
What is started here ends with this process, however that ends.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click

from tasks.command import development
from tasks.command.banner import print_banner
from tasks.command.children import Child
from tasks.command.client import Client, Endpoint
from tasks.command.console import nearby, say, seconds
from tasks.command.door import open_door, reachable_host
from tasks.command.environment import Completed, complete, given
from tasks.command.options import state_option
from tasks.command.release import connect, release
from tasks.command.sample import Sample
from tasks.command.signals import Signals
from tasks.command.state import Running, StateFolder
from tasks.command.supervisor import PostgresWatch, Supervisor
from tasks.command.watch import STOPPED
from tasks.db import ROOT
from tasks.embedded import EmbeddedPostgres
from tasks.errors import LedgerlineError, Unavailable
from tasks.settings import Settings

_READY_S = 90.0
_ASK_S = 0.5
_API_PATIENCE_S = 10.0
_WORKER_EXTRA_S = 5.0
# A process that ends this often before anything was ready will not get better by being started again.
_EARLY_DEATHS = 3
# Stands in while the settings are checked, before there is a Postgres.
_NO_DATABASE = {"DATABASE_URL": "postgresql://"}


@click.command()
@click.option("--sample", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A file to begin with.")
@click.option("--once", is_flag=True, help="Stop when the sample is done.")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port of the API. Default: 8000, or the next free one.")
@state_option
def up(sample: Path | None, once: bool, port: int | None, state: Path) -> int:
    """Run everything here: Postgres, the API and a worker.

    Ctrl-C stops it in good order; a second Ctrl-C stops it at once. What was made stays in the state folder.
    """
    if once and sample is None:
        raise click.UsageError("--once needs --sample: it stops when the sample is done.")
    return Household(StateFolder(state), port).run(sample, once=once)


class Household:
    """One `up`, from the first line to the last."""

    def __init__(self, state: StateFolder, port: int | None) -> None:
        self._state = state
        self._port = port
        self._began = time.monotonic()

    def run(self, sample: Path | None, *, once: bool) -> int:
        """Start, supervise, stop. Returns the exit code. Raises LedgerlineError and SettingsInvalid."""
        self._state.make()
        with Signals() as signals:
            try:
                with ExitStack() as stack:
                    code = self._live(signals, stack, sample, once=once)
            except LedgerlineError:
                # Ctrl-C may also hit what is only just being started; that is no failure.
                if not signals.stopping:
                    raise
                code = STOPPED if once else 0
        say("stopped", f"everything. What was made stays in {nearby(self._state.path)}.")
        return code

    def _live(self, signals: Signals, stack: ExitStack, path: Path | None, *, once: bool) -> int:
        stack.callback(os.close, self._state.lock())
        stack.callback(self._state.withdraw)
        door = stack.enter_context(self._open_door())
        postgres = stack.enter_context(self._postgres())
        completed = self._complete(postgres, door)
        settings = completed.load()
        token = self._release(settings, completed)
        children = self._children(settings, completed, door)
        supervisor = stack.enter_context(self._processes(signals, children, postgres))
        endpoint = Endpoint(f"http://{reachable_host(settings.host)}:{settings.port}", token)
        if not self._wait_until_ready(supervisor, endpoint):
            return STOPPED if once else 0
        self._welcome(endpoint)
        sample = self._start_sample(endpoint, path, signals)
        supervisor.watch(lambda: once and sample is not None and sample.code is not None)
        if sample:
            sample.leave()
        say("stopping", "the worker, then the API, then Postgres")
        if once and sample:
            return STOPPED if sample.code is None else sample.code
        return 0

    def _open_door(self) -> socket.socket:
        overrides = {} if "DATABASE_URL" in given() else _NO_DATABASE
        settings = complete(self._state, overrides).load()
        wanted = settings.port if self._port is None else self._port
        door = open_door(settings.host, wanted, exactly=self._port is not None or "PORT" in given())
        port = door.getsockname()[1]
        if wanted not in (0, port):
            say("api", f"port {wanted} is used by another program; taking {port}", "yellow")
        return door

    @contextmanager
    def _postgres(self) -> Iterator[EmbeddedPostgres | None]:
        """The embedded Postgres, or None when DATABASE_URL names another."""
        if "DATABASE_URL" in given():
            say("postgres", "the one in DATABASE_URL")
            yield None
            return
        began, first = time.monotonic(), not self._state.postgres.exists()
        with EmbeddedPostgres(self._state.postgres) as postgres:
            say("postgres", f"ready{', made for the first time' if first else ''} ({_since(began)})")
            try:
                yield postgres
            finally:
                postgres.stop()
                say("postgres", "stopped")

    def _complete(self, postgres: EmbeddedPostgres | None, door: socket.socket) -> Completed:
        database = {"DATABASE_URL": postgres.url} if postgres else {}
        return complete(self._state, database | {"PORT": str(door.getsockname()[1])})

    def _release(self, settings: Settings, completed: Completed) -> str | None:
        """Bring the database up to date. Returns a token to use the API with, if there is one."""
        began = time.monotonic()
        say("database", f"{release(settings)} ({_since(began)})")
        self._state.write_settings(completed.values)
        if "JWT_SECRET" not in completed.ours or settings.jwt_secret is None:
            return os.environ.get("LEDGERLINE_TOKEN")
        with connect(settings) as connection:
            development.settle(connection)
        return self._key(settings.jwt_secret.get_secret_value(), settings.jwt_issuer or development.ISSUER)

    def _key(self, secret: str, issuer: str) -> str:
        token = self._state.read_key()
        if token is None or not development.is_good(token, secret, issuer):
            token = development.issue_key(secret, issuer)
            self._state.write_key(token)
        return token

    def _children(self, settings: Settings, completed: Completed, door: socket.socket) -> list[Child]:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = dict(os.environ) | completed.values | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
        config, fd, logs = ROOT / "api" / "gunicorn.py", door.fileno(), self._state.logs
        api = ["-m", "gunicorn", "--config", str(config), "--bind", f"fd://{fd}", "api:create_app()"]
        worker, patience_s = ["-m", "tasks.command", "worker"], settings.drain_timeout_s + _WORKER_EXTRA_S
        return [
            Child("api", [sys.executable, *api], environment, logs / "api.log", _API_PATIENCE_S, (fd,)),
            Child("worker", [sys.executable, *worker], environment, logs / "worker.log", patience_s),
        ]

    @contextmanager
    def _processes(
        self, signals: Signals, children: list[Child], postgres: EmbeddedPostgres | None
    ) -> Iterator[Supervisor]:
        watch = PostgresWatch(postgres) if postgres else None
        supervisor = Supervisor(signals, children, watch, self._remember_database)
        try:
            supervisor.start()
            for child in children:
                say(child.name, f"started (process {child.pid})")
            yield supervisor
            supervisor.stop()
        finally:
            supervisor.kill()

    def _remember_database(self, url: str) -> None:
        self._state.write_settings(self._state.read_settings() | {"DATABASE_URL": url})

    def _wait_until_ready(self, supervisor: Supervisor, endpoint: Endpoint) -> bool:
        """Whether everything got ready; False when somebody asked to stop. Raises Unavailable with the reason."""
        deadline, answer = time.monotonic() + _READY_S, None
        with Client(endpoint) as client:
            while time.monotonic() < deadline and not supervisor.signals.stopping:
                supervisor.tend()
                _give_up_on_broken(supervisor.children)
                answer = client.readiness(_ASK_S) or answer
                if answer and answer["ready"]:
                    return True
                supervisor.signals.wait(0.1)
        if supervisor.signals.stopping:
            return False
        message = f"It did not get ready within {_READY_S:.0f} s. Look into {nearby(self._state.logs)}."
        raise Unavailable("not_ready", f"{message} {_complaints(answer)}")

    def _welcome(self, endpoint: Endpoint) -> None:
        self._state.announce(Running(endpoint.url, os.getpid()))
        say("ready", f"after {_since(self._began)}", "green")
        print_banner(
            self._state, endpoint.url, has_key=endpoint.token is not None and endpoint.token == self._state.read_key()
        )

    def _start_sample(self, endpoint: Endpoint, path: Path | None, signals: Signals) -> Sample | None:
        if path is None:
            return None
        sample = Sample(endpoint, path, self._state.reports, signals.wake)
        sample.start()
        return sample


def _give_up_on_broken(children: list[Child]) -> None:
    for child in children:
        if child.deaths >= _EARLY_DEATHS:
            raise Unavailable(
                f"{child.name}_failed", f"The {child.name} does not start. Its log is {nearby(child.log)}."
            )


def _complaints(answer: dict[str, Any] | None) -> str:
    """What the API says is not ready."""
    if answer is None:
        return "The API does not answer."
    return " ".join(check["message"] for check in answer["checks"] if not check["ok"])


def _since(began: float) -> str:
    return seconds(time.monotonic() - began)
