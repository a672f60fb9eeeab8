"""The embedded Postgres: what a server is like, sharing it, and what is said when it cannot run."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from fixtures_embedded import (
    Person,
    answer_of,
    ask,
    needs_linux,
    needs_root,
    postmaster,
    processes_of,
    wait_for_end,
)

from tasks.embedded import EmbeddedPostgres, EmbeddedPostgresError, binaries
from tasks.embedded.problems import explain_output


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `postgres`."""
    return tmp_path_factory.mktemp("shared") / "postgres"


@pytest.fixture(scope="module")
def postgres(shared: Path) -> Iterator[EmbeddedPostgres]:
    """A server for tests that only look."""
    with EmbeddedPostgres(shared, durable=False) as started:
        yield started


def test_a_server_is_durable_local_and_in_utc(new_folder: Path) -> None:
    with EmbeddedPostgres(new_folder) as postgres:
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


def test_folders_above_keep_their_modes(new_folder: Path) -> None:
    new_folder.parent.chmod(0o700)
    with EmbeddedPostgres(new_folder, durable=False) as postgres:
        assert postgres.running
    assert stat.S_IMODE(new_folder.parent.stat().st_mode) == 0o700


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


def test_a_restart_keeps_data_and_port(database_copy: Path) -> None:
    with EmbeddedPostgres(database_copy, durable=False) as first:
        url = first.url
    with EmbeddedPostgres(database_copy, durable=False) as second:
        assert second.url == url
        assert ask(second.url, "select note from notes") == "kept"


def test_a_port_that_was_taken_meanwhile_is_given_up(database_copy: Path, tmp_path: Path) -> None:
    port = json.loads((database_copy / "address.json").read_text())["port"]
    subprocess.run(["cp", "-a", database_copy, tmp_path / "other"], check=True)
    with (
        EmbeddedPostgres(database_copy, durable=False) as first,
        EmbeddedPostgres(tmp_path / "other", durable=False) as second,
    ):
        ports = [
            json.loads((where / "address.json").read_text())["port"] for where in (database_copy, tmp_path / "other")
        ]
        assert ports[0] == port != ports[1]
        assert [ask(postgres.url, "select note from notes") for postgres in (first, second)] == ["kept", "kept"]


def test_a_port_lost_at_the_last_moment_is_replaced(database_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", 0))
        thief.listen()
        stolen = thief.getsockname()[1]
        monkeypatch.setattr(
            "tasks.embedded.folder.Folder.choose_port",
            lambda self, avoid: stolen if avoid is None else free_port(),
        )
        with EmbeddedPostgres(database_copy, durable=False) as postgres:
            assert f":{stolen}/" not in postgres.url
            assert ask(postgres.url, "select note from notes") == "kept"


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def test_a_stop_leaves_nothing_running_and_nothing_listening(database_copy: Path) -> None:
    postgres = EmbeddedPostgres(database_copy, durable=False)
    postgres.start()
    with psycopg.connect(postgres.url) as idle:
        alive = processes_of(database_copy)
        postgres.stop()
        wait_for_end(*alive)
        with pytest.raises(psycopg.OperationalError):
            idle.execute("select 1")
    assert not postgres.running
    assert list((database_copy / "socket").iterdir()) == []
    assert not (database_copy / "data" / "postmaster.pid").exists()


def test_an_attempt_that_fails_leaves_nothing_running(database_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[psutil.Process] = []

    def interrupted(self: EmbeddedPostgres, address: object) -> bool:
        assert self._guardian is not None
        seen.append(psutil.Process(self._guardian.pid))
        raise KeyboardInterrupt

    monkeypatch.setattr(EmbeddedPostgres, "_answers", interrupted)
    with pytest.raises(KeyboardInterrupt):
        EmbeddedPostgres(database_copy, durable=False).start()
    wait_for_end(*seen)
    assert len(seen) == 1


def test_a_fork_of_the_owner_cannot_stop_the_server(database_copy: Path) -> None:
    with EmbeddedPostgres(database_copy, durable=False) as postgres:
        child = os.fork()
        if child == 0:
            postgres.stop()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert postgres.running


def test_threads_that_start_at_once_share_one_server(database_copy: Path) -> None:
    servers = [EmbeddedPostgres(database_copy, durable=False) for _ in range(4)]
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


def test_one_who_attached_does_not_stop_the_server(database_copy: Path) -> None:
    with EmbeddedPostgres(database_copy, durable=False) as owner:
        with EmbeddedPostgres(database_copy, durable=False) as guest:
            assert guest.url == owner.url
            assert not guest.owner
        assert owner.running


def refusal(start: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(EmbeddedPostgresError) as refused:
        start()
    return refused.value.code, refused.value.message


def test_absent_programs_are_told(new_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, message = refusal(EmbeddedPostgres(new_folder, binaries=tmp_path).start)
    assert (code, "DATABASE_URL" in message) == ("postgres_missing", True)
    monkeypatch.setattr(binaries, "_WHEEL", "no_such_wheel")
    code, message = refusal(EmbeddedPostgres(new_folder).start)
    assert (code, "Install the locked requirements" in message) == ("postgres_missing", True)


def test_a_full_disk_is_told() -> None:
    output = 'FATAL:  could not write lock file "postmaster.pid": No space left on device\n'
    error = explain_output(output, "starting")
    assert (error.code, error.message) == ("disk_full", "The disk is full. Free some space and start again.")
    assert error.detail == output


def test_a_lost_password_is_told_and_nothing_is_thrown_away(database_copy: Path) -> None:
    (database_copy / "password").unlink()
    assert refusal(EmbeddedPostgres(database_copy).start)[0] == "postgres_no_password"
    assert (database_copy / "data" / "PG_VERSION").exists()


def test_data_of_another_version_is_told(database_copy: Path) -> None:
    (database_copy / "data" / "PG_VERSION").write_text("14\n")
    code, message = refusal(EmbeddedPostgres(database_copy).start)
    assert (code, "made by Postgres 14; this is Postgres 16" in message) == ("postgres_version", True)


def test_damaged_data_is_told_in_the_words_of_postgres(database_copy: Path) -> None:
    (database_copy / "data" / "global" / "pg_control").unlink()
    code, message = refusal(EmbeddedPostgres(database_copy, durable=False).start)
    assert code == "postgres_failed"
    assert "could not find the database system" in message or "pg_control" in message


def test_a_file_in_the_place_of_the_folder_is_told(new_folder: Path) -> None:
    new_folder.write_text("not a new_folder")
    assert refusal(EmbeddedPostgres(new_folder).start)[0] == "postgres_failed"


def test_asking_for_the_address_before_the_start_is_told(new_folder: Path) -> None:
    assert refusal(lambda: EmbeddedPostgres(new_folder).url)[0] == "postgres_not_started"


@needs_root
def test_root_without_a_user_to_lend_is_told(new_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.embedded.account._CANDIDATES", ("no_such_user",))
    assert refusal(EmbeddedPostgres(new_folder).start)[0] == "postgres_no_user"


@needs_root
def test_programs_in_a_closed_folder_are_copied_once_to_where_the_server_can_read_them(
    database_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = hide_the_wheel(tmp_path)
    with tempfile.TemporaryDirectory(prefix="ledgerline-test-") as shelf:
        os.chmod(shelf, 0o755)
        monkeypatch.setattr(binaries, "_SHELVES", (Path("/proc/cannot-be-made"), Path(shelf)))
        monkeypatch.setattr(binaries, "_search_wheel", lambda: hidden)
        for _ in range(2):
            with EmbeddedPostgres(database_copy, durable=False) as postgres:
                assert ask(postgres.url, "select note from notes") == "kept"
                assert postmaster(database_copy).exe().startswith(shelf)
        assert len(list(Path(shelf).iterdir())) == 1
    assert stat.S_IMODE(hidden.folder.stat().st_mode) == 0o700


@needs_root
def test_programs_that_cannot_be_read_or_copied_are_told(new_folder: Path, tmp_path: Path) -> None:
    hidden = hide_the_wheel(tmp_path)
    code, message = refusal(EmbeddedPostgres(new_folder, binaries=hidden.folder).start)
    assert (code, "cannot run the programs" in message) == ("postgres_missing", True)


@needs_root
@needs_linux
def test_a_root_that_may_not_become_another_user_is_told(new_folder: Path) -> None:
    powerless = Person(sys.executable, new_folder.parent, {"preexec_fn": drop_the_power_to_change_user})
    assert answer_of(powerless.start(new_folder))["code"] == "postgres_no_user"


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
