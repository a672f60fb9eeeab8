"""The embedded Postgres as this user and, where this is root, as an ordinary one."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import psutil
import pytest
from fixtures_embedded import (
    Person,
    answer_of,
    ask,
    needs_linux,
    needs_root,
    postmaster,
    processes_of,
    stop,
    wait_for_end,
)

from tasks.embedded import EmbeddedPostgres


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


def test_the_server_ends_when_its_owner_is_killed(person: Person, stopped_database: Path) -> None:
    folder = person.receive(stopped_database)
    owner = person.start(folder)
    answer_of(owner)
    alive = processes_of(folder)
    owner.kill()
    wait_for_end(*alive)
    assert answer_of(person.start(folder))["owner"] is True


def test_the_server_ends_though_a_fork_of_the_killed_owner_lives_on(person: Person, stopped_database: Path) -> None:
    folder = person.receive(stopped_database)
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
def test_the_server_ends_when_its_guardian_is_killed(person: Person, stopped_database: Path) -> None:
    folder = person.receive(stopped_database)
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
def test_an_ordinary_user_is_told_whose_the_database_is(person: Person, database_copy: Path) -> None:
    folder = person.home / "postgres"
    subprocess.run(["cp", "-a", database_copy, folder], check=True)
    folder.chmod(0o755)
    assert answer_of(person.start(folder))["code"] == "postgres_folder_denied"


@needs_root
def test_what_root_writes_in_a_users_folder_stays_the_users(person: Person, stopped_database: Path) -> None:
    folder = person.receive(stopped_database)
    with EmbeddedPostgres(folder, durable=False) as postgres:
        assert postmaster(folder).uids().effective == folder.joinpath("data").stat().st_uid
        ask(postgres.url, "update notes set note = 'by root'")
    again = person.start(folder)
    assert ask(answer_of(again)["url"], "select note from notes") == "by root"
