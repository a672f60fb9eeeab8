"""Health over HTTP: alive asks nobody, ready names what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_play import PREFIX, Front, Person, make_settings
from flask import Flask

from api import create_app
from api.house import house_of
from tasks.errors import Unavailable


def checks(front_or_app: Front | Flask, path: str = f"{PREFIX}/readyz") -> tuple[int, dict[str, str]]:
    """Status, and what each check says."""
    app = front_or_app.app if isinstance(front_or_app, Front) else front_or_app
    answer = Person(app, None).call("GET", path)  # type: ignore[arg-type]
    body = answer.get_json()
    assert body["ready"] == (answer.status_code == 200) == all(check["ok"] for check in body["checks"])
    return answer.status_code, {check["name"]: check["message"] for check in body["checks"]}


def make_ready(front: Front) -> None:
    """A worker for every queue, which has swept just now."""
    worker = [front.play.worker, "here", 1, "t", ["cpu", "llm", "media", "maintenance"], [], "{}", False]
    front.play.one("select ledger.beat(%s, %s, %s, %s, %s, %s, %s, %s)", *worker)
    front.play.one("select ledger.sign_chore('sweep', %s, 0)", front.play.worker)


@pytest.mark.parametrize("path", ["/healthz", f"{PREFIX}/healthz"])
def test_alive_is_said_at_both_addresses(front: Front, path: str) -> None:
    answer = front.app.test_client().get(path)
    assert (answer.status_code, answer.get_json()) == (200, {"status": "alive"})


@pytest.mark.parametrize("path", ["/readyz", f"{PREFIX}/readyz"])
def test_ready_when_everything_is_there(front: Front, path: str) -> None:
    make_ready(front)
    assert checks(front, path) == (200, dict.fromkeys(["database", "migrations", "storage", "workers", "sweep"], ""))


def test_without_workers_it_is_not_ready_and_names_the_queues(front: Front) -> None:
    status, said = checks(front)
    assert status == 503
    assert said["workers"] == "No live worker serves: cpu, llm."
    assert "never swept" in said["sweep"]


def test_a_worker_that_is_silent_or_stopping_does_not_count(front: Front) -> None:
    make_ready(front)
    front.play.all("update ops.workers set heartbeat_at = now() - interval '31 seconds' returning 1")
    assert "No live worker" in checks(front)[1]["workers"]
    front.play.all("update ops.workers set heartbeat_at = now(), stopping = true returning 1")
    assert "No live worker" in checks(front)[1]["workers"]


def test_a_sweep_that_is_overdue_is_told(front: Front) -> None:
    make_ready(front)
    front.play.all("update ops.chores set ran_at = now() - interval '170 seconds' returning 1")
    assert checks(front)[0] == 200
    front.play.all("update ops.chores set ran_at = now() - interval '190 seconds' returning 1")
    status, said = checks(front)
    assert (status, said["sweep"][:30]) == (503, "The ledger was last swept 190 ")


def test_a_store_that_is_away_is_told(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    make_ready(front)

    def away() -> None:
        raise Unavailable("storage_unavailable", "Files cannot be stored right now.", detail="secret path")

    monkeypatch.setattr(house_of(front.app).storage, "check", away)
    status, said = checks(front)
    assert (status, said["storage"]) == (503, "Files cannot be stored right now.")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Any]:
    """Makes an app on another database."""
    made: list[Flask] = []

    def make(url: str) -> Flask:
        made.append(create_app(make_settings(url, tmp_path)))
        return made[-1]

    yield make
    for app in made:
        house_of(app).close()


def test_missing_migrations_are_named(elsewhere: Any, empty_database_url: str) -> None:
    status, said = checks(elsewhere(empty_database_url))
    assert status == 503
    assert said["database"] == ""
    assert "20261101000100_tables" in said["migrations"]
    assert "ledgerline migrate" in said["migrations"]
    assert said["workers"] == said["sweep"] == "Not known without the database."


def test_a_database_that_is_away_is_told_in_time(elsewhere: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.health._PATIENCE_S", 0.1)
    status, said = checks(elsewhere("postgresql://nobody:secret@127.0.0.1:1/nothing"))
    assert (status, said["database"], said["storage"]) == (503, "The database cannot be reached.", "")
    assert "secret" not in str(said)
