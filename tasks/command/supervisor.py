"""Keep Postgres, the API and a worker running, and stop them in order."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from tasks.command.children import Child
from tasks.command.console import console, say, seconds
from tasks.command.signals import Signals
from tasks.embedded import EmbeddedPostgres, EmbeddedPostgresError

_TICK_S = 1.0
_POSTGRES_CHECK_S = 2.0
_POSTGRES_RECHECK_S = 0.5
# A Postgres that restarts itself after a crash of one session is silent for a moment: that is its own business.
_POSTGRES_MISSES = 3


@dataclass
class PostgresWatch:
    """Notices that the embedded Postgres is gone, and starts it again."""

    postgres: EmbeddedPostgres
    misses: int = 0
    check_at: float = 0.0

    def tend(self) -> bool:
        """Look after it when it is time to. Whether its address changed."""
        if time.monotonic() < self.check_at:
            return False
        if self.postgres.running:
            self.misses, self.check_at = 0, time.monotonic() + _POSTGRES_CHECK_S
            return False
        self.misses, self.check_at = self.misses + 1, time.monotonic() + _POSTGRES_RECHECK_S
        return self.misses >= _POSTGRES_MISSES and self._restart()

    def _restart(self) -> bool:
        before = self.postgres.url
        say("postgres", "is gone; starting it again", "yellow")
        self.postgres.stop()
        try:
            self.postgres.start()
        except EmbeddedPostgresError as error:
            say("postgres", error.message, "red")
            return False
        say("postgres", "runs again", "green")
        self.misses = 0
        return self.postgres.url != before


@dataclass
class Supervisor:
    """The processes of one `up`. `children` are started in order and stopped in reverse.

    on_move: told the URL of an embedded Postgres that came back at another address.
    """

    signals: Signals
    children: list[Child]
    postgres: PostgresWatch | None = None
    on_move: Callable[[str], None] = lambda url: None

    def start(self) -> None:
        """Start every child."""
        for child in self.children:
            child.start()

    def watch(self, done: Callable[[], bool]) -> None:
        """Keep everything running until `done` or until somebody asks to stop."""
        while not self.signals.stopping and not done():
            self.tend()
            self.signals.wait(self._next_s())

    def tend(self) -> None:
        """Notice ends, and start again what is due."""
        if self.postgres and self.postgres.tend():
            self._move_to(self.postgres.postgres.url)
        for child in self.children:
            self._tend_child(child)

    def stop(self) -> None:
        """Stop the children one after the other, each in its own time but within a bound."""
        for child in reversed(self.children):
            self._stop_child(child)

    def kill(self) -> None:
        """End every child at once."""
        for child in self.children:
            child.kill()

    def _tend_child(self, child: Child) -> None:
        end = child.notice_end()
        if end:
            delay = f"starting it again in {child.delay_s:g} s"
            say(child.name, f"{end}; {delay}. Its log ends with:", "yellow")
            for line in child.last_words():
                console().print(f"  {child.name} | {line}", style="dim", markup=False)
        if child.pid is None and child.due_at <= time.monotonic():
            child.start()
            say(child.name, f"runs again (process {child.pid})", "green")

    def _move_to(self, url: str) -> None:
        """Postgres came back at another address: everybody has to be told, which means started again."""
        self.on_move(url)
        for child in self.children:
            child.environment["DATABASE_URL"] = url
            child.send(signal.SIGTERM)

    def _stop_child(self, child: Child) -> None:
        if child.ended():
            return
        began = time.monotonic()
        child.send(signal.SIGTERM)
        said = False
        while not child.ended() and time.monotonic() - began < child.patience_s:
            self.signals.wait(0.2)
            if not said and time.monotonic() - began > 1:
                say(child.name, f"is finishing what it has in hand (at most {child.patience_s:g} s)")
                said = True
        if not child.ended():
            child.kill()
            say(child.name, f"did not stop within {child.patience_s:g} s and was ended", "yellow")
        else:
            say(child.name, f"stopped ({seconds(time.monotonic() - began)})")

    def _next_s(self) -> float:
        due = [child.due_at - time.monotonic() for child in self.children if child.pid is None]
        if self.postgres and self.postgres.misses:
            due.append(_POSTGRES_RECHECK_S)
        return min([_TICK_S, *due])
