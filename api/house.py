"""What one API process has in hand. Made once by the factory; views ask `house()` for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, cast

from flask import Flask, current_app

from api.acquaintances import Acquaintances
from api.clearing import Clearing
from api.graphs import Graphs
from api.live import Hub
from api.rates import Rates
from api.together import EntranceRounds, EventRounds, SubmissionRounds
from api.tokens import Verifier
from tasks.db import Pool
from tasks.settings import Settings
from tasks.storage import Storage

if TYPE_CHECKING:
    from tasks.spans import Tracing


@dataclass
class House:
    """Settings, connections, storage, the one who checks tokens, and the hub that says when a job has moved.

    `exports`: the turns of those who read more than a page, on connections that are not of the pool.
    `entrances`, `readings`, `submissions`: what many requests ask the database in one round trip.
    """

    settings: Settings
    pool: Pool
    storage: Storage
    tokens: Verifier
    live: Hub
    staging: Path
    exports: BoundedSemaphore
    entrances: EntranceRounds
    readings: EventRounds
    submissions: SubmissionRounds
    graphs: Graphs = field(default_factory=Graphs)
    rates: Rates = field(default_factory=Rates)
    acquaintances: Acquaintances = field(default_factory=Acquaintances)
    tracing: Tracing | None = None
    schema_current: bool = False
    clearing: Clearing = field(init=False)

    def open(self) -> None:
        """Make room for uploads, and clear away what killed processes leave there."""
        self.clearing = Clearing(self.staging, self.settings.sweep_interval_s)
        self.clearing.start()

    def close(self) -> None:
        """End streams and long polls, then the connections."""
        self.clearing.close()
        self.live.close()
        self.pool.close()
        self.send_traces()

    def send_traces(self) -> None:
        """Send what is left of them, and no more from here on."""
        if self.tracing is not None:
            self.tracing.close()

    def install(self, app: Flask) -> None:
        """Make `house()` find this house in requests of the app."""
        app.extensions["ledgerline"] = self


def house() -> House:
    """The house of the request at hand."""
    return house_of(current_app)


def house_of(app: Flask) -> House:
    """The house of an app."""
    return cast(House, app.extensions["ledgerline"])
