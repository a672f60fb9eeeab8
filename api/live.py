"""Who wants to know that a job has moved, or any job of a document or a tenant; and the one connection per process on
which that is heard.

Notifications only wake; what happened is always read from the database, so a lost one costs time and nothing else.
The hub calls out to itself now and then: as long as it hears itself, followers may wait long between looks; when it
does not (the connection died, or goes through a transaction pool that swallows LISTEN), it says so, connects again,
and followers look every second meanwhile.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from types import TracebackType
from typing import Self
from uuid import UUID, uuid4

import psycopg
from psycopg_pool import PoolClosed, PoolTimeout

from api.topics import Connection, Topics
from tasks.db import Pool, statement

CHANNEL = "ledgerline_events"
# What operators see in pg_stat_activity.
NAME = "ledgerline live"
# Between looks at the database, when hearing is proven and when it is not.
PATIENCE_S = 10.0
IMPATIENCE_S = 1.0

_ECHO_EVERY_S = 10.0
_ECHO_WITHIN_S = 3.0
_TICK_S = 0.5
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0

_log = logging.getLogger("ledgerline.live")


class Deaf(Exception):
    """The connection stands, and nothing is heard on it."""


_FORESEEN = (psycopg.Error, PoolTimeout, PoolClosed, Deaf)


class Follower:
    """Wakes when what it follows has moved. `with hub.follow(job_id) as follower: ...`."""

    def __init__(self, hub: Hub, topic: UUID, wide: bool) -> None:
        self._hub = hub
        self._topic = topic
        self._wide = wide
        self._woken = threading.Event()

    def arm(self) -> None:
        """Forget earlier calls. Arm, look at the database, then wait: nothing slips through between."""
        self._woken.clear()

    def wait(self, most_s: float) -> None:
        """Until it may have moved, it is time for a look anyway, or `most_s` are over."""
        if not self._hub.closed:
            self._woken.wait(max(0.0, min(most_s, self._hub.patience_s)))

    def wake(self) -> None:
        """Called by the hub."""
        self._woken.set()

    def close(self) -> None:
        """Stop following."""
        self._hub.forget(self._topic, self, self._wide)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Hub:
    """One LISTEN connection for all followers of a process. `url`: a connection without a transaction pool."""

    def __init__(self, url: str, pool: Pool) -> None:
        self._url = url
        self._pool = pool
        self._token = uuid4().hex
        self._followers: defaultdict[UUID, set[Follower]] = defaultdict(set)
        self._wide = 0
        self._topics = Topics()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._hears = threading.Event()
        self._complained = False
        self._thread: threading.Thread | None = None

    @property
    def hears(self) -> bool:
        """Whether hearing is proven."""
        return self._hears.is_set()

    @property
    def closed(self) -> bool:
        """Whether the process is on its way out: whoever follows should end."""
        return self._closed.is_set()

    @property
    def patience_s(self) -> float:
        """How long a follower may wait before it looks for itself."""
        return PATIENCE_S if self.hears else IMPATIENCE_S

    @property
    def followers(self) -> int:
        """How many follow."""
        with self._lock:
            return sum(map(len, self._followers.values()))

    def start(self) -> None:
        """Begin to listen, once. Not before the process has forked."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ledgerline-live", daemon=True)
                self._thread.start()

    def follow(self, topic: UUID, wide: bool = False) -> Follower:
        """Be woken when that job moves, from now on. `wide`: when any job of that document or tenant does."""
        self.start()
        follower = Follower(self, topic, wide)
        with self._lock:
            self._followers[topic].add(follower)
            self._wide += wide
        return follower

    def forget(self, topic: UUID, follower: Follower, wide: bool) -> None:
        """No longer wake a follower."""
        with self._lock:
            if follower not in self._followers.get(topic, ()):
                return
            self._followers[topic].discard(follower)
            self._wide -= wide
            if not self._followers[topic]:
                del self._followers[topic]

    def close(self) -> None:
        """Stop listening and wake everybody, to see that it is over."""
        self._closed.set()
        self._wake_all()

    def _run(self) -> None:
        pause = _FIRST_PAUSE_S
        while not self.closed:
            try:
                with psycopg.connect(self._url, autocommit=True, application_name=NAME) as connection:
                    self._listen(connection)
                    self._attend(connection)
            # Whatever it is: nobody would begin to listen again.
            except Exception as error:
                pause = _FIRST_PAUSE_S if self.hears else min(pause * 2, _LONGEST_PAUSE_S)
                self._lose(error)
                self._closed.wait(pause)

    def _listen(self, connection: Connection) -> None:
        connection.execute(statement("api_listen"))
        connection.execute(statement("api_listen_echo"))

    def _attend(self, connection: Connection) -> None:
        """Deliver what is heard until the hub is closed. Raises Deaf when our own calls are not heard."""
        heard_at = called_at = float("-inf")
        while not self.closed:
            now = time.monotonic()
            if called_at > heard_at and now - called_at > _ECHO_WITHIN_S:
                raise Deaf("notifications are not heard; is there a transaction pool before the database?")
            if heard_at >= called_at and now - called_at > _ECHO_EVERY_S:
                called_at = now
                self._call()
            # All that has come by then, at once: of a burst, each job counts once.
            heard = list(connection.notifies(timeout=_TICK_S, stop_after=1))
            if any(note.channel != CHANNEL and note.payload == self._token for note in heard):
                heard_at = time.monotonic()
                self._gain()
            self._deliver(
                {job for note in heard if note.channel == CHANNEL and (job := _job(note.payload))}, connection
            )

    def _call(self) -> None:
        with self._pool.connection(timeout=_ECHO_WITHIN_S) as connection:
            connection.execute(statement("api_call_echo"), {"token": self._token})

    def _deliver(self, jobs: set[UUID], connection: Connection) -> None:
        self._wake(jobs)
        # Whose job it is has to be asked for, which is left out while nobody follows a document or a tenant.
        if jobs and self._wide:
            self._wake(self._topics.find(jobs, connection))

    def _wake(self, topics: Iterable[UUID]) -> None:
        with self._lock:
            for topic in topics:
                for follower in self._followers.get(topic, ()):
                    follower.wake()

    def _gain(self) -> None:
        if not self.hears:
            self._hears.set()
            self._complained = False
            _log.info("listening for jobs that move")
            # Whatever moved while nobody listened is in the database.
            self._wake_all()

    def _lose(self, error: Exception) -> None:
        if self.closed:
            return
        level = logging.WARNING if self.hears or not self._complained else logging.DEBUG
        unforeseen = None if isinstance(error, _FORESEEN) else error
        _log.log(level, "not listening, streams look every %g s instead: %r", IMPATIENCE_S, error, exc_info=unforeseen)
        self._complained = True
        self._hears.clear()
        # Those who wait long must learn to wait less.
        self._wake_all()

    def _wake_all(self) -> None:
        with self._lock:
            for followers in self._followers.values():
                for follower in followers:
                    follower.wake()


def _job(payload: str) -> UUID | None:
    try:
        return UUID(payload.partition(" ")[0])
    except ValueError:
        return None
