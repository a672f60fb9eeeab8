"""How often a call goes to the database and back, counted on the wire."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from api_play import Front, Person, make_settings, submit_job
from wire_counter import WireCounter, counting

from api import create_app
from api.acquaintances import LIFESPAN_S
from api.house import house_of


@pytest.fixture
def counter(front: Front) -> Iterator[WireCounter]:
    with counting(front.settings.database_url.get_secret_value()) as counter:
        yield counter


@pytest.fixture
def caller(front: Front, counter: WireCounter, tmp_path: Path) -> Iterator[Person]:
    """An owner at an API whose every word to the database is counted."""
    app = create_app(make_settings(counter.url, tmp_path, database_pool_size=1))
    desk = house_of(app)
    desk.pool.wait()
    yield Person(app, front.person().user)
    desk.close()


def taken(counter: WireCounter, before: int) -> int:
    return counter.round_trips - before


def test_submitting_a_job_takes_two_round_trips_and_one_when_that_was_done_a_moment_ago(
    front: Front, caller: Person, counter: WireCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trips(width: int) -> int:
        before = counter.round_trips
        submit_job(front, caller, params={"width": width})
        return taken(counter, before)

    assert [trips(width) for width in (1, 2, 2)] == [2, 1, 1]
    now = time.monotonic()
    monkeypatch.setattr("api.acquaintances.time.monotonic", lambda: now + LIFESPAN_S)
    assert [trips(width) for width in (3, 4)] == [2, 1]


def test_a_key_costs_no_more_than_a_token(front: Front, caller: Person, counter: WireCounter) -> None:
    key = front.key()
    key.app = caller.app
    for use in (1, 2):
        before = counter.round_trips
        submit_job(front, key, params={"width": use})
        assert taken(counter, before) == 2, use
    before = counter.round_trips
    key.get("/jobs")
    assert taken(counter, before) == 2


def test_what_cannot_be_a_key_never_reaches_the_database(front: Front, caller: Person, counter: WireCounter) -> None:
    key = front.key()
    key.app, key.token = caller.app, f"{key.token}"[:-6] + "000000"
    before = counter.round_trips
    assert key.get("/jobs").status_code == 401
    assert taken(counter, before) == 0


def test_a_pipeline_that_was_published_again_costs_one_more(front: Front, caller: Person, counter: WireCounter) -> None:
    submit_job(front, caller)
    front.play.all(
        "update pipelines set graph = (select graph from pipelines where name = 'one') where name = 'line' returning 1"
    )
    before = counter.round_trips
    job = submit_job(front, caller, params={"width": 7})
    assert taken(counter, before) == 3  # the first of them found out
    assert [step["name"] for step in job["steps"]] == ["only"]
    before = counter.round_trips
    submit_job(front, caller, params={"width": 8})
    assert taken(counter, before) == 1


def test_looking_at_a_job_takes_two(front: Front, caller: Person, counter: WireCounter) -> None:
    job = submit_job(front, caller)["id"]
    for path in (f"/jobs/{job}", f"/jobs/{job}/events", "/jobs", "/documents"):
        before = counter.round_trips
        caller.get(path)
        assert taken(counter, before) == 2, path


def test_reading_as_somebody_leaves_nothing_of_them_on_the_connection(front: Front, caller: Person) -> None:
    caller.get("/jobs")
    with house_of(caller.app).pool.connection() as connection:
        row = connection.execute(
            "select current_user::text as who, session_user::text as login,"
            " coalesce(current_setting('request.jwt.claims', true), '') as claims"
        ).fetchone()
    assert row is not None
    assert (row["who"], row["claims"]) == (row["login"], "")


def test_the_counter_counts(front: Front, counter: WireCounter) -> None:
    with psycopg.connect(counter.url, autocommit=True) as connection:
        before = counter.round_trips
        for _ in range(3):
            connection.execute("select 1")
        assert taken(counter, before) == 3
        with connection.transaction():
            connection.execute("select 1")
        assert taken(counter, before) == 6
