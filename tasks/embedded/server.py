"""Start, share and stop one embedded Postgres.

Whoever starts first owns the server; the others attach to it and leave it running when they stop. The chain is
owner → guardian → Postgres: see guardian.py for how the end of each ends the next.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psutil
import psycopg

from tasks.embedded import guardian
from tasks.embedded.account import Account, choose_account
from tasks.embedded.binaries import Binaries, find_binaries
from tasks.embedded.cluster import (
    check_version,
    clear_stale_pid_file,
    create_cluster,
    find_orphan,
    reachable,
    says_ready,
)
from tasks.embedded.folder import Address, Folder
from tasks.embedded.problems import EmbeddedPostgresError, PortTaken, explain_os_error, explain_output

_POLL_S = 0.02
_PORT_TRIES = 5
_FAREWELL_S = 40

_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "random_page_cost": "1.1",
    # Parallel queries keep tables in /dev/shm, which containers make tiny.
    "max_parallel_workers_per_gather": "0",
    "max_parallel_maintenance_workers": "0",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    # Failing statements and rows hold users' text: the log must not.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}
_CARELESS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class EmbeddedPostgres:
    """A Postgres in a folder. `with EmbeddedPostgres(folder) as postgres: use(postgres.url)`.

    folder: where it keeps everything; made when absent.
    durable: False trades safety in a power cut for speed. For tests.
    binaries: a `bin` folder of another Postgres; default is the one that is installed with us.
    timeout_s: how long start() waits for the server, recovery after a crash included.
    """

    def __init__(
        self, folder: Path, *, durable: bool = True, binaries: Path | None = None, timeout_s: float = 120
    ) -> None:
        self._folder = Folder(folder)
        self._durable = durable
        self._binaries = binaries
        self._timeout_s = timeout_s
        self._guardian: subprocess.Popen[bytes] | None = None
        self._process_id = os.getpid()
        self._address: Address | None = None
        self._password = ""

    @property
    def url(self) -> str:
        """Connection string over 127.0.0.1, for any client. The database and its superuser are both `postgres`."""
        return f"postgresql://postgres:{self._password}@127.0.0.1:{self._found.port}/postgres"

    @property
    def socket_url(self) -> str:
        """Connection string over the Unix socket: less work per round trip, for libpq clients of the same user."""
        host = quote(self._found.socket, safe="")
        return f"postgresql://postgres:{self._password}@/postgres?host={host}&port={self._found.port}"

    @property
    def owner(self) -> bool:
        """Whether stop() ends the server: true for the one who started it."""
        return self._guardian is not None and self._process_id == os.getpid()

    @property
    def running(self) -> bool:
        """Whether the server answers."""
        return self._address is not None and self._answers(self._address)

    def start(self) -> str:
        """Start the server, or attach to the one that runs. Returns `url`. Raises EmbeddedPostgresError."""
        if self.owner and self._guardian is not None and self._guardian.poll() is None:
            return self.url
        try:
            self.stop()
            self._folder.make()
            self._start_or_attach()
        except OSError as error:
            self.stop()
            raise explain_os_error(error, self._folder.path) from error
        except BaseException:
            self.stop()
            raise
        return self.url

    def stop(self) -> None:
        """End the server if we own it; every session ends, everything committed is on disk."""
        # A fork of the owner holds copies of all this, and is not the owner.
        if self._guardian is None or not self.owner:
            return
        keeper, self._guardian = self._guardian, None
        if keeper.stdin is not None:
            with suppress(BrokenPipeError):
                keeper.stdin.write(b".")
            keeper.stdin.close()
        keeper.wait()
        self._wait_until_gone()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _found(self) -> Address:
        if self._address is None:
            raise EmbeddedPostgresError("postgres_not_started", "The embedded Postgres has not been started.")
        return self._address

    def _start_or_attach(self) -> None:
        deadline = time.monotonic() + self._timeout_s
        while time.monotonic() < deadline:
            lock = self._folder.try_lock()
            if lock is not None:
                return self._own(lock, deadline)
            if self._attach():
                return
            time.sleep(_POLL_S)
        message = f"Another process holds the database in {self._folder.path} and its server does not answer."
        raise EmbeddedPostgresError("postgres_in_use", f"{message} Look at {self._folder.log}.")

    def _attach(self) -> bool:
        password, address = self._folder.password(), self._folder.address()
        if password is None or address is None or self._dismiss_orphan():
            return False
        self._password = password
        if not self._answers(address):
            return False
        self._address = address
        return True

    def _own(self, lock: int, deadline: float) -> None:
        try:
            account = choose_account(self._folder.data)
            binaries = find_binaries(self._binaries, account)
            self._password = self._folder.make_password()
            self._folder.forget_socket()
            if self._folder.data.exists():
                check_version(self._folder, binaries)
                clear_stale_pid_file(self._folder.data)
            else:
                create_cluster(self._folder, binaries, account, self._password, lock, self._durable)
            self._serve(binaries, account, lock, deadline)
        finally:
            # Guardian and Postgres hold it from here on, for exactly as long as they live.
            os.close(lock)

    def _serve(self, binaries: Binaries, account: Account, lock: int, deadline: float) -> None:
        refused: int | None = None
        for _ in range(_PORT_TRIES):
            port = self._folder.choose_port(avoid=refused)
            log = self._folder.open_log()
            try:
                logged = os.fstat(log).st_size
                address = self._launch(binaries, account, (lock, log), port)
                self._wait_until_ready(address, logged, deadline)
            except PortTaken:
                refused = port
                continue
            finally:
                os.close(log)
            self._address = address
            return self._folder.remember(address)
        raise EmbeddedPostgresError("postgres_no_port", "Postgres found no free port on 127.0.0.1.")

    def _launch(self, binaries: Binaries, account: Account, held: tuple[int, int], port: int) -> Address:
        """Start the guardian and, through it, Postgres. `held`: the open lock and the open log."""
        lock, log = held
        place = self._folder.make_socket_folder(account)
        with (
            reachable(self._folder.data, account) as (data, data_handles),
            reachable(place, account) as (sockets, socket_handles),
        ):
            handles = (*data_handles, *socket_handles, lock)
            order = {
                "command": self._command(binaries, data, sockets, port),
                "account": account.popen(),
                "handles": handles,
                "owner": os.getpid(),
                "temporary": None if place.parent == self._folder.path else str(place),
            }
            self._process_id = os.getpid()
            self._guardian = _run_guardian(order, handles, log)
        return Address(port, str(place))

    def _command(self, binaries: Binaries, data: str, sockets: str, port: int) -> list[str]:
        options = _OPTIONS | {"port": str(port), "unix_socket_directories": sockets}
        options |= {} if self._durable else _CARELESS
        return [binaries.program("postgres"), "-D", data, *(f"--{name}={value}" for name, value in options.items())]

    def _wait_until_ready(self, address: Address, logged: int, deadline: float) -> None:
        assert self._guardian is not None
        # The pid file first: before our server listens, a stranger may be holding its port.
        while not (says_ready(self._folder.data, address.port) and self._answers(address)):
            if self._guardian.poll() is not None:
                self._guardian = None
                raise self._explain_end(logged)
            if time.monotonic() > deadline:
                message = f"Postgres did not get ready within {self._timeout_s:.0f} s. Look at {self._folder.log}."
                raise EmbeddedPostgresError("postgres_slow", message)
            time.sleep(_POLL_S)

    def _explain_end(self, logged: int) -> Exception:
        with self._folder.log.open("rb") as log:
            log.seek(logged)
            output = log.read().decode(errors="replace")
        if "could not create any TCP/IP sockets" in output:
            return PortTaken()
        return explain_output(output, "starting")

    def _wait_until_gone(self) -> None:
        """Normally at once. A guardian that was killed leaves a Postgres on its way out, or (on macOS) an orphan."""
        deadline = time.monotonic() + _FAREWELL_S
        while self._dismiss_orphan() and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def _dismiss_orphan(self) -> bool:
        """Ask a server that lost its guardian to end. Whether there was one."""
        orphan = find_orphan(self._folder.data)
        if orphan is not None:
            with suppress(psutil.Error):
                orphan.send_signal(signal.SIGINT)
        return orphan is not None

    def _answers(self, address: Address) -> bool:
        """Whether our server, and not a stranger on its port, answers: the scram handshake proves both sides."""
        try:
            psycopg.connect(
                host="127.0.0.1",
                port=address.port,
                user="postgres",
                dbname="postgres",
                password=self._password,
                connect_timeout=5,
                require_auth="scram-sha-256",
                sslmode="disable",
                gssencmode="disable",
            ).close()
        except psycopg.OperationalError:
            return False
        return True


def _run_guardian(order: dict[str, object], handles: tuple[int, ...], log: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        # Isolated, so that nothing of the caller's environment changes it; a session of its own, so that Ctrl-C in
        # the terminal reaches the owner only and the owner ends the rest in order.
        [sys.executable, "-I", "-S", guardian.__file__, json.dumps(order)],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        cwd="/",
        env={"PATH": "/usr/bin:/bin"},
        pass_fds=handles,
        start_new_session=True,
        bufsize=0,
    )
