"""The embedded Postgres when something dies: owner, guardian, server or machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from fixtures_embedded import (
    ask,
    postmaster,
    processes_of,
    wait_for_end,
)

from tasks.embedded import EmbeddedPostgres, EmbeddedPostgresError, cluster


def test_a_killed_server_is_seen_and_comes_back_with_its_data(new_folder: Path) -> None:
    postgres = EmbeddedPostgres(new_folder)
    postgres.start()
    ask(postgres.url, "create table notes as select 'committed'::text as note")
    alive = processes_of(new_folder)
    alive[1].kill()
    wait_for_end(*alive)
    assert not postgres.running
    assert ask(postgres.start(), "select note from notes") == "committed"
    postgres.stop()


def test_a_half_made_data_folder_is_made_again(new_folder: Path) -> None:
    (new_folder / "data.new" / "base").mkdir(parents=True)
    (new_folder / "data.new" / "PG_VERSION").write_text("16\n")
    with EmbeddedPostgres(new_folder, durable=False) as postgres:
        assert ask(postgres.url, "select 1") == 1
    assert not (new_folder / "data.new").exists()


def leave_pid_file(folder: Path, pid: int) -> None:
    """A pid file as a server of this folder leaves it when the machine goes down."""
    path = folder / "data" / "postmaster.pid"
    path.write_text(f"{pid}\n/elsewhere/data\n1700000000\n5432\n\n127.0.0.1\n  1234567         7\nready   \n")
    owner = (folder / "data").stat()
    os.chown(path, owner.st_uid, owner.st_gid)


def test_a_pid_file_of_a_process_long_gone_is_no_obstacle(database_copy: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    leave_pid_file(database_copy, gone.pid)
    with EmbeddedPostgres(database_copy, durable=False) as postgres:
        assert ask(postgres.url, "select note from notes") == "kept"


def test_a_stranger_with_the_number_of_a_dead_server_is_left_alone(database_copy: Path) -> None:
    owner = (database_copy / "data").stat()
    identity = {"user": owner.st_uid, "group": owner.st_gid} if os.geteuid() == 0 else {}
    with subprocess.Popen(["sleep", "600"], **identity) as stranger:
        leave_pid_file(database_copy, stranger.pid)
        with EmbeddedPostgres(database_copy, durable=False) as postgres:
            assert ask(postgres.url, "select note from notes") == "kept"
        assert stranger.poll() is None
        stranger.kill()


def test_another_postgres_with_the_number_of_a_dead_server_is_left_alone(database_copy: Path, tmp_path: Path) -> None:
    subprocess.run(["cp", "-a", database_copy, tmp_path / "other"], check=True)
    with EmbeddedPostgres(tmp_path / "other", durable=False) as other:
        leave_pid_file(database_copy, postmaster(tmp_path / "other").pid)
        with EmbeddedPostgres(database_copy, durable=False) as postgres:
            assert ask(postgres.url, "select note from notes") == "kept"
        assert other.running


def test_a_garbled_pid_file_is_told_in_a_sentence(database_copy: Path) -> None:
    (database_copy / "data" / "postmaster.pid").write_text("")
    with pytest.raises(EmbeddedPostgresError, match=r"Postgres failed while starting: .*postmaster\.pid.*is empty"):
        EmbeddedPostgres(database_copy, durable=False).start()


def test_a_server_that_someone_else_runs_on_our_data_is_not_touched(database_copy: Path, tmp_path: Path) -> None:
    with EmbeddedPostgres(database_copy, durable=False) as running:
        # Another path to the same data, with a lock of its own: as if started by hand.
        door = tmp_path / "door"
        door.mkdir()
        shutil.copy(database_copy / "password", door / "password")
        (door / "data").symlink_to(database_copy / "data")
        with pytest.raises(EmbeddedPostgresError, match="A Postgres that Ledgerline did not start") as refused:
            EmbeddedPostgres(door, durable=False).start()
        assert refused.value.code == "postgres_in_use"
        assert running.running


def test_a_server_that_lost_its_guardian_is_told_from_a_guarded_one(
    database_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedPostgres(database_copy, durable=False):
        data = database_copy / "data"
        assert cluster.find_orphan(data) is None
        monkeypatch.setattr(psutil.Process, "parent", lambda self: psutil.Process(1))
        assert cluster.find_orphan(data) == postmaster(database_copy)


def test_a_guardian_that_is_asked_to_end_shuts_the_server_down(database_copy: Path) -> None:
    with EmbeddedPostgres(database_copy, durable=False):
        alive = processes_of(database_copy)
        alive[0].send_signal(signal.SIGTERM)
        wait_for_end(*alive)
    assert "database system is shut down" in (database_copy / "postgres.log").read_text().splitlines()[-1]


def test_signals_of_the_terminal_do_not_reach_the_server(database_copy: Path) -> None:
    with EmbeddedPostgres(database_copy, durable=False):
        guardian, main = processes_of(database_copy)[:2]
        assert os.getpgid(guardian.pid) != os.getpgid(0)
        assert os.getpgid(main.pid) != os.getpgid(0)
