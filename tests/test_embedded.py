"""The embedded Postgres: real servers, as this user and (where this is root) as an ordinary one."""

from __future__ import annotations

import ctypes
import json
import os
import pwd
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from tasks.embedded import EmbeddedPostgres, EmbeddedPostgresError, binaries, cluster
from tasks.embedded.problems import explain_output

ROOT = Path(__file__).resolve().parent.parent
SITE_PACKAGES = Path(psycopg.__file__).resolve().parent.parent
PATIENCE_S = 20

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root borrows another user")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells of a parent's death on Linux only")


def ask(url: str, question: str) -> Any:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(question)  # type: ignore[call-overload]
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def postmaster(folder: Path) -> psutil.Process:
    return psutil.Process(int((folder / "data" / "postmaster.pid").read_text().splitlines()[0]))


def wait_for_end(*processes: psutil.Process) -> None:
    for process in processes:
        try:
            handle = os.pidfd_open(process.pid)
        except ProcessLookupError:
            continue
        with open(handle, "rb") as file:
            ended, _, _ = select.select([file], [], [], PATIENCE_S)
            assert ended, f"{process} is still running"


def processes_of(folder: Path) -> list[psutil.Process]:
    """Postmaster, guardian and all backends of the server in `folder`."""
    main = postmaster(folder)
    guardian = main.parent()
    assert guardian is not None
    assert "guardian.py" in " ".join(guardian.cmdline())
    return [guardian, main, *main.children(recursive=True)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "postgres"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `postgres`."""
    return tmp_path_factory.mktemp("shared") / "postgres"


@pytest.fixture(scope="module")
def postgres(shared: Path) -> Iterator[EmbeddedPostgres]:
    """A server for tests that only look."""
    with EmbeddedPostgres(shared, durable=False) as started:
        yield started


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stopped database holding the note "kept"."""
    folder = tmp_path_factory.mktemp("made") / "postgres"
    with EmbeddedPostgres(folder, durable=False) as postgres:
        ask(postgres.url, "create table notes as select 'kept'::text as note")
    return folder


@pytest.fixture
def copied(made: Path, folder: Path) -> Path:
    """A copy of `made` for one test: a start without initdb."""
    subprocess.run(["cp", "-a", made, folder], check=True)
    return folder


# Who runs it ---------------------------------------------------------------------------------------


@dataclass
class Person:
    """Someone who can own a server: an interpreter, the user it runs as, and a folder of theirs."""

    python: str
    home: Path
    popen: dict[str, Any] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def receive(self, made: Path) -> Path:
        """A copy of a database, in this person's folder and owned by them."""
        folder = self.home / "postgres"
        subprocess.run(["cp", "-a", made, folder], check=True)
        if self.popen:
            subprocess.run(["chown", "-R", str(self.popen["user"]), folder], check=True)
        return folder

    def start(self, folder: Path, *options: str) -> subprocess.Popen[str]:
        owner = subprocess.Popen(
            [self.python, str(ROOT / "tests" / "embedded_owner.py"), str(folder), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            env=environment(),
            **self.popen,
        )
        self.started.append(owner)
        return owner


def environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{SITE_PACKAGES}", "PYTHONDONTWRITEBYTECODE": "1"}


def answer_of(owner: subprocess.Popen[str]) -> dict[str, Any]:
    assert owner.stdout is not None
    answer: dict[str, Any] = json.loads(owner.stdout.readline())
    return answer


def stop(owner: subprocess.Popen[str]) -> None:
    out, _ = owner.communicate(timeout=PATIENCE_S)
    assert out == "stopped\n"


@pytest.fixture(params=["caller", "ordinary user"])
def person(request: pytest.FixtureRequest) -> Iterator[Person]:
    home = Path(tempfile.mkdtemp(prefix="ledgerline-test-"))
    someone = Person(sys.executable, home) if request.param == "caller" else ordinary_person(home)
    yield someone
    for owner in someone.started:
        if owner.stdin is not None:
            owner.stdin.close()
        owner.wait(PATIENCE_S)
    shutil.rmtree(home)


def ordinary_person(home: Path) -> Person:
    if os.geteuid() != 0:
        pytest.skip("the caller is an ordinary user")
    entry = pwd.getpwnam("nobody")
    popen = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, shutil.which(version, path="/usr/local/bin:/usr/bin")):
        if python and can_run_us(python, popen):
            os.chown(home, entry.pw_uid, entry.pw_gid)
            return Person(python, home, popen)
    pytest.skip("no interpreter of this version, with our packages, that an ordinary user can run")


def can_run_us(python: str, popen: dict[str, Any]) -> bool:
    try:
        tried = subprocess.run([python, "-c", "import tasks.embedded"], cwd="/", env=environment(), **popen)
    except OSError:
        return False
    return tried.returncode == 0


# A server ------------------------------------------------------------------------------------------


def test_a_server_is_durable_local_and_in_utc(folder: Path) -> None:
    with EmbeddedPostgres(folder) as postgres:
        settings = ("fsync", "synchronous_commit", "full_page_writes", "data_checksums", "timezone", "listen_addresses")
        found = [ask(postgres.url, f"show {name}") for name in settings]
        assert found == ["on", "on", "on", "on", "UTC", "127.0.0.1"]
        assert ask(postgres.url, "show server_version").startswith("16.")


def test_both_ways_in_reach_the_same_server(postgres: EmbeddedPostgres) -> None:
    ask(postgres.url, "create table seen as select 'seen'::text as note")
    assert ask(postgres.socket_url, "select note from seen") == "seen"
    assert ask(postgres.socket_url, "select inet_server_addr() is null") is True


def test_nobody_enters_without_the_password(postgres: EmbeddedPostgres) -> None:
    for url in (postgres.url, postgres.socket_url):
        password = url.split(":")[2].split("@")[0]
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(url.replace(password, "guessed"))
        with pytest.raises(psycopg.OperationalError, match="no password supplied"):
            psycopg.connect(url.replace(f":{password}", ""), passfile="/dev/null")


def test_only_the_owner_may_open_what_lies_in_the_folder(shared: Path, postgres: EmbeddedPostgres) -> None:
    names = ("password", "socket", "data", "postgres.log", ".")
    modes = {name: stat.S_IMODE((shared / name).stat().st_mode) for name in names}
    assert modes == {"password": 0o600, "socket": 0o700, "data": 0o700, "postgres.log": 0o600, ".": 0o700}


def test_folders_above_keep_their_modes(folder: Path) -> None:
    folder.parent.chmod(0o700)
    with EmbeddedPostgres(folder, durable=False) as postgres:
        assert postgres.running
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


def test_letters_of_all_languages_have_an_upper_case(postgres: EmbeddedPostgres) -> None:
    assert ask(postgres.url, "select upper('élan žluťoučký ночь')") == "ÉLAN ŽLUŤOUČKÝ НОЧЬ"


def test_the_log_holds_no_text_of_users(shared: Path, postgres: EmbeddedPostgres) -> None:
    ask(postgres.url, "create table pages (page text primary key)")
    ask(postgres.url, "insert into pages values ('It was a dark night')")
    with pytest.raises(psycopg.errors.UniqueViolation):
        ask(postgres.url, "insert into pages values ('It was a dark night')")
    log = (shared / "postgres.log").read_text()
    assert "duplicate key value" in log
    assert "dark night" not in log


def test_a_restart_keeps_data_and_port(copied: Path) -> None:
    with EmbeddedPostgres(copied, durable=False) as first:
        url = first.url
    with EmbeddedPostgres(copied, durable=False) as second:
        assert second.url == url
        assert ask(second.url, "select note from notes") == "kept"


def test_a_port_that_was_taken_meanwhile_is_given_up(copied: Path, tmp_path: Path) -> None:
    port = json.loads((copied / "address.json").read_text())["port"]
    subprocess.run(["cp", "-a", copied, tmp_path / "other"], check=True)
    with (
        EmbeddedPostgres(copied, durable=False) as first,
        EmbeddedPostgres(tmp_path / "other", durable=False) as second,
    ):
        ports = [json.loads((where / "address.json").read_text())["port"] for where in (copied, tmp_path / "other")]
        assert ports[0] == port != ports[1]
        assert [ask(postgres.url, "select note from notes") for postgres in (first, second)] == ["kept", "kept"]


def test_a_port_lost_at_the_last_moment_is_replaced(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", 0))
        thief.listen()
        stolen = thief.getsockname()[1]
        monkeypatch.setattr(
            "tasks.embedded.folder.Folder.choose_port",
            lambda self, avoid: stolen if avoid is None else free_port(),
        )
        with EmbeddedPostgres(copied, durable=False) as postgres:
            assert f":{stolen}/" not in postgres.url
            assert ask(postgres.url, "select note from notes") == "kept"


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def test_a_stop_leaves_nothing_running_and_nothing_listening(copied: Path) -> None:
    postgres = EmbeddedPostgres(copied, durable=False)
    postgres.start()
    with psycopg.connect(postgres.url) as idle:
        alive = processes_of(copied)
        postgres.stop()
        wait_for_end(*alive)
        with pytest.raises(psycopg.OperationalError):
            idle.execute("select 1")
    assert not postgres.running
    assert list((copied / "socket").iterdir()) == []
    assert not (copied / "data" / "postmaster.pid").exists()


def test_an_attempt_that_fails_leaves_nothing_running(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[psutil.Process] = []

    def interrupted(self: EmbeddedPostgres, address: object) -> bool:
        assert self._guardian is not None
        seen.append(psutil.Process(self._guardian.pid))
        raise KeyboardInterrupt

    monkeypatch.setattr(EmbeddedPostgres, "_answers", interrupted)
    with pytest.raises(KeyboardInterrupt):
        EmbeddedPostgres(copied, durable=False).start()
    wait_for_end(*seen)
    assert len(seen) == 1


def test_a_fork_of_the_owner_cannot_stop_the_server(copied: Path) -> None:
    with EmbeddedPostgres(copied, durable=False) as postgres:
        child = os.fork()
        if child == 0:
            postgres.stop()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert postgres.running


# As root and as a user -----------------------------------------------------------------------------


def test_whoever_starts_it_gets_a_server_that_keeps_data(person: Person) -> None:
    folder = person.home / "postgres"
    for number in (1, 2):
        owner = person.start(folder)
        answer = answer_of(owner)
        assert answer["owner"] is True
        ask(answer["socket_url"], f"create table round_{number} ()")
        assert ask(answer["url"], "select count(*) from pg_tables where tablename like 'round%'") == number
        assert postmaster(folder).uids().effective != 0
        stop(owner)


def test_the_server_ends_when_its_owner_is_killed(person: Person, made: Path) -> None:
    folder = person.receive(made)
    owner = person.start(folder)
    answer_of(owner)
    alive = processes_of(folder)
    owner.kill()
    wait_for_end(*alive)
    assert answer_of(person.start(folder))["owner"] is True


def test_the_server_ends_though_a_fork_of_the_killed_owner_holds_the_pipe(person: Person, made: Path) -> None:
    folder = person.receive(made)
    owner = person.start(folder, "--fork")
    child = psutil.Process(answer_of(owner)["child"])
    try:
        alive = processes_of(folder)
        owner.kill()
        wait_for_end(*alive)
        assert child.is_running()
    finally:
        child.kill()


@needs_linux
def test_the_server_ends_when_its_guardian_is_killed(person: Person, made: Path) -> None:
    folder = person.receive(made)
    owner = person.start(folder)
    answer_of(owner)
    guardian, *rest = processes_of(folder)
    guardian.kill()
    wait_for_end(*rest)
    stop(owner)


@pytest.mark.parametrize("length", [300, 1500])
def test_a_long_path_works(person: Person, length: int) -> None:
    folder = person.home
    while len(str(folder)) < length:
        folder = folder / ("a long name " * 10)
    owner = person.start(folder)
    answer = answer_of(owner)
    assert ask(answer["url"], "select 1") == ask(answer["socket_url"], "select 1") == 1
    where = Path(json.loads((folder / "address.json").read_text())["socket"])
    assert len(str(where)) < 80
    stop(owner)
    assert not where.exists()


def test_many_starts_at_once_make_one_server(person: Person) -> None:
    owners = [person.start(person.home / "postgres") for _ in range(4)]
    answers = [answer_of(owner) for owner in owners]
    assert sorted(answer["owner"] for answer in answers) == [False, False, False, True]
    assert len({ask(answer["url"], "select pg_postmaster_start_time()") for answer in answers}) == 1
    for owner, answer in zip(owners, answers, strict=True):
        if not answer["owner"]:
            stop(owner)
    assert ask(answers[0]["url"], "select 1") == 1


@pytest.mark.parametrize("person", ["ordinary user"], indirect=True)
def test_an_ordinary_user_is_told_whose_the_database_is(person: Person, copied: Path) -> None:
    folder = person.home / "postgres"
    subprocess.run(["cp", "-a", copied, folder], check=True)
    folder.chmod(0o755)
    assert answer_of(person.start(folder))["code"] == "postgres_folder_denied"


@needs_root
def test_what_root_writes_in_a_users_folder_stays_the_users(person: Person, made: Path) -> None:
    folder = person.receive(made)
    with EmbeddedPostgres(folder, durable=False) as postgres:
        assert postmaster(folder).uids().effective == folder.joinpath("data").stat().st_uid
        ask(postgres.url, "update notes set note = 'by root'")
    again = person.start(folder)
    assert ask(answer_of(again)["url"], "select note from notes") == "by root"


# Sharing -------------------------------------------------------------------------------------------


def test_threads_that_start_at_once_share_one_server(copied: Path) -> None:
    servers = [EmbeddedPostgres(copied, durable=False) for _ in range(4)]
    threads = [threading.Thread(target=one.start) for one in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert [one.owner for one in servers].count(True) == 1
        assert len({ask(one.url, "select pg_postmaster_start_time()") for one in servers}) == 1
    finally:
        for one in servers:
            one.stop()


def test_one_who_attached_does_not_stop_the_server(copied: Path) -> None:
    with EmbeddedPostgres(copied, durable=False) as owner:
        with EmbeddedPostgres(copied, durable=False) as guest:
            assert guest.url == owner.url
            assert not guest.owner
        assert owner.running


# After a crash -------------------------------------------------------------------------------------


def test_a_killed_server_is_seen_and_comes_back_with_its_data(folder: Path) -> None:
    postgres = EmbeddedPostgres(folder)
    postgres.start()
    ask(postgres.url, "create table notes as select 'committed'::text as note")
    alive = processes_of(folder)
    alive[1].kill()
    wait_for_end(*alive)
    assert not postgres.running
    assert ask(postgres.start(), "select note from notes") == "committed"
    postgres.stop()


def test_a_half_made_data_folder_is_made_again(folder: Path) -> None:
    (folder / "data.new" / "base").mkdir(parents=True)
    (folder / "data.new" / "PG_VERSION").write_text("16\n")
    with EmbeddedPostgres(folder, durable=False) as postgres:
        assert ask(postgres.url, "select 1") == 1
    assert not (folder / "data.new").exists()


def leave_pid_file(folder: Path, pid: int) -> None:
    """A pid file as a server of this folder leaves it when the machine goes down."""
    path = folder / "data" / "postmaster.pid"
    path.write_text(f"{pid}\n/elsewhere/data\n1700000000\n5432\n\n127.0.0.1\n  1234567         7\nready   \n")
    owner = (folder / "data").stat()
    os.chown(path, owner.st_uid, owner.st_gid)


def test_a_pid_file_of_a_process_long_gone_is_no_obstacle(copied: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    leave_pid_file(copied, gone.pid)
    with EmbeddedPostgres(copied, durable=False) as postgres:
        assert ask(postgres.url, "select note from notes") == "kept"


def test_a_stranger_with_the_number_of_a_dead_server_is_left_alone(copied: Path) -> None:
    owner = (copied / "data").stat()
    identity = {"user": owner.st_uid, "group": owner.st_gid} if os.geteuid() == 0 else {}
    with subprocess.Popen(["sleep", "600"], **identity) as stranger:
        leave_pid_file(copied, stranger.pid)
        with EmbeddedPostgres(copied, durable=False) as postgres:
            assert ask(postgres.url, "select note from notes") == "kept"
        assert stranger.poll() is None
        stranger.kill()


def test_another_postgres_with_the_number_of_a_dead_server_is_left_alone(copied: Path, tmp_path: Path) -> None:
    subprocess.run(["cp", "-a", copied, tmp_path / "other"], check=True)
    with EmbeddedPostgres(tmp_path / "other", durable=False) as other:
        leave_pid_file(copied, postmaster(tmp_path / "other").pid)
        with EmbeddedPostgres(copied, durable=False) as postgres:
            assert ask(postgres.url, "select note from notes") == "kept"
        assert other.running


def test_a_garbled_pid_file_is_told_in_a_sentence(copied: Path) -> None:
    (copied / "data" / "postmaster.pid").write_text("")
    with pytest.raises(EmbeddedPostgresError, match=r"Postgres failed while starting: .*postmaster\.pid.*is empty"):
        EmbeddedPostgres(copied, durable=False).start()


def test_a_server_that_someone_else_runs_on_our_data_is_not_touched(copied: Path, tmp_path: Path) -> None:
    with EmbeddedPostgres(copied, durable=False) as running:
        # Another path to the same data, with a lock of its own: as if started by hand.
        door = tmp_path / "door"
        door.mkdir()
        shutil.copy(copied / "password", door / "password")
        (door / "data").symlink_to(copied / "data")
        with pytest.raises(EmbeddedPostgresError, match="A Postgres that Ledgerline did not start") as refused:
            EmbeddedPostgres(door, durable=False).start()
        assert refused.value.code == "postgres_in_use"
        assert running.running


def test_a_server_that_lost_its_guardian_is_told_from_a_guarded_one(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedPostgres(copied, durable=False):
        data = copied / "data"
        assert cluster.find_orphan(data) is None
        monkeypatch.setattr(psutil.Process, "parent", lambda self: psutil.Process(1))
        assert cluster.find_orphan(data) == postmaster(copied)


# What is said when it cannot -----------------------------------------------------------------------


def refusal(start: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(EmbeddedPostgresError) as refused:
        start()
    return refused.value.code, refused.value.message


def test_absent_programs_are_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, message = refusal(EmbeddedPostgres(folder, binaries=tmp_path).start)
    assert (code, "DATABASE_URL" in message) == ("postgres_missing", True)
    monkeypatch.setattr(binaries, "_WHEEL", "no_such_wheel")
    code, message = refusal(EmbeddedPostgres(folder).start)
    assert (code, "Install the locked requirements" in message) == ("postgres_missing", True)


def test_a_full_disk_is_told() -> None:
    output = 'FATAL:  could not write lock file "postmaster.pid": No space left on device\n'
    error = explain_output(output, "starting")
    assert (error.code, error.message) == ("disk_full", "The disk is full. Free some space and start again.")
    assert error.detail == output


def test_a_lost_password_is_told_and_nothing_is_thrown_away(copied: Path) -> None:
    (copied / "password").unlink()
    assert refusal(EmbeddedPostgres(copied).start)[0] == "postgres_no_password"
    assert (copied / "data" / "PG_VERSION").exists()


def test_data_of_another_version_is_told(copied: Path) -> None:
    (copied / "data" / "PG_VERSION").write_text("14\n")
    code, message = refusal(EmbeddedPostgres(copied).start)
    assert (code, "made by Postgres 14; this is Postgres 16" in message) == ("postgres_version", True)


def test_damaged_data_is_told_in_the_words_of_postgres(copied: Path) -> None:
    (copied / "data" / "global" / "pg_control").unlink()
    code, message = refusal(EmbeddedPostgres(copied, durable=False).start)
    assert code == "postgres_failed"
    assert "could not find the database system" in message or "pg_control" in message


def test_a_file_in_the_place_of_the_folder_is_told(folder: Path) -> None:
    folder.write_text("not a folder")
    assert refusal(EmbeddedPostgres(folder).start)[0] == "postgres_failed"


def test_asking_for_the_address_before_the_start_is_told(folder: Path) -> None:
    assert refusal(lambda: EmbeddedPostgres(folder).url)[0] == "postgres_not_started"


@needs_root
def test_root_without_a_user_to_lend_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.embedded.account._CANDIDATES", ("no_such_user",))
    assert refusal(EmbeddedPostgres(folder).start)[0] == "postgres_no_user"


# Programs the borrowed user cannot read --------------------------------------------------------------


@needs_root
def test_programs_in_a_closed_folder_are_copied_once_to_where_the_server_can_read_them(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = hide_the_wheel(tmp_path)
    with tempfile.TemporaryDirectory(prefix="ledgerline-test-") as shelf:
        os.chmod(shelf, 0o755)
        monkeypatch.setattr(binaries, "_SHELVES", (Path("/proc/cannot-be-made"), Path(shelf)))
        monkeypatch.setattr(binaries, "_search_wheel", lambda: hidden)
        for _ in range(2):
            with EmbeddedPostgres(copied, durable=False) as postgres:
                assert ask(postgres.url, "select note from notes") == "kept"
                assert postmaster(copied).exe().startswith(shelf)
        assert len(list(Path(shelf).iterdir())) == 1
    assert stat.S_IMODE(hidden.folder.stat().st_mode) == 0o700


@needs_root
def test_programs_that_cannot_be_read_or_copied_are_told(folder: Path, tmp_path: Path) -> None:
    hidden = hide_the_wheel(tmp_path)
    code, message = refusal(EmbeddedPostgres(folder, binaries=hidden.folder).start)
    assert (code, "cannot run the programs" in message) == ("postgres_missing", True)


@needs_root
@needs_linux
def test_a_root_that_may_not_become_another_user_is_told(folder: Path) -> None:
    powerless = Person(sys.executable, folder.parent, {"preexec_fn": drop_the_power_to_change_user})
    assert answer_of(powerless.start(folder))["code"] == "postgres_no_user"


def drop_the_power_to_change_user() -> None:
    drop_from_bounding_set, cap_setgid, cap_setuid = 24, 6, 7
    for capability in (cap_setgid, cap_setuid):
        assert ctypes.CDLL(None).prctl(drop_from_bounding_set, capability, 0, 0, 0) == 0


def hide_the_wheel(tmp_path: Path) -> binaries.Binaries:
    """A copy of the installed programs that only root can read."""
    found = binaries._search_wheel()
    package = found.folder.parent.parent
    hidden = tmp_path / "site" / package.name / found.folder.parent.name
    hidden.parent.mkdir(parents=True)
    shutil.copytree(found.folder.parent, hidden, ignore=shutil.ignore_patterns("include"))
    shutil.copytree(package.with_name(f"{package.name}.libs"), tmp_path / "site" / f"{package.name}.libs")
    for path in (hidden / "bin", *(hidden / "bin").iterdir()):
        path.chmod(0o700)
    return binaries.Binaries(hidden / "bin", found.major)


def test_signals_of_the_terminal_do_not_reach_the_server(copied: Path) -> None:
    with EmbeddedPostgres(copied, durable=False):
        guardian, main = processes_of(copied)[:2]
        assert os.getpgid(guardian.pid) != os.getpgid(0)
        assert os.getpgid(main.pid) != os.getpgid(0)


def test_a_guardian_that_is_asked_to_end_shuts_the_server_down(copied: Path) -> None:
    with EmbeddedPostgres(copied, durable=False):
        alive = processes_of(copied)
        alive[0].send_signal(signal.SIGTERM)
        wait_for_end(*alive)
    assert "database system is shut down" in (copied / "postgres.log").read_text().splitlines()[-1]
