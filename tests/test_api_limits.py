"""Limits at the front door: what is refused with 429 and 413, when to try again, and what is left of a rate."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from api_play import NEW, Front, Person, error_code, make_settings, submit_job
from flask import Flask, g

from api import create_app
from api.house import house_of
from api.rates import Counts, Rates
from tasks import ledger


def limit(front: Front, **own: int | None) -> None:
    ledger.limit_tenant(front.play.connection, front.play.tenant, own)


def release(front: Front, **limits: int) -> None:
    ledger.release_settings(front.play.connection, front.settings.model_copy(update=limits))


@pytest.fixture
def slow(front: Front, tmp_path: Path) -> Iterator[Flask]:
    """An API that answers five requests a minute."""
    url = front.settings.database_url.get_secret_value()
    made = create_app(make_settings(url, tmp_path, requests_per_minute=5, allowed_origins="https://app.example.com"))
    yield made
    house_of(made).close()


# Jobs ----------------------------------------------------------------------------------------------


def test_a_job_too_many_is_refused_with_the_limit_and_when_to_try_again(front: Front) -> None:
    release(front, max_active_jobs=1)
    person = front.person()
    submit_job(front, person)
    answer = person.post("/jobs", json=NEW | {"params": {"width": 5}})
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "10")
    error = answer.get_json()["error"]
    assert error["code"] == "active_jobs_limit_reached"
    assert error["details"] == {"limit": "active_jobs", "value": 1, "current": 1, "retry_after_s": 10}


def test_an_upload_that_may_not_start_its_job_leaves_nothing(front: Front) -> None:
    release(front, max_active_jobs=1)
    person = front.person()
    submit_job(front, person)
    answer = person.upload(b"Once upon a time.", query="?pipeline=reading")
    assert error_code(answer) == "active_jobs_limit_reached"
    assert front.play.one("select count(*) from documents") == 0
    assert front.stored == []


def test_a_retry_too_many_is_refused(front: Front) -> None:
    release(front, max_active_jobs=1)
    person = front.person()
    failed = submit_job(front, person)["id"]
    front.play.fail(front.play.begin())
    submit_job(front, person, params={"width": 5})
    answer = person.post(f"/jobs/{failed}/retry")
    assert (answer.status_code, error_code(answer)) == (429, "active_jobs_limit_reached")


def test_when_too_much_waits_nobody_may_start_more(front: Front) -> None:
    release(front, max_queue_depth=1)
    submit_job(front)
    front.play.all("delete from ops.counts returning 1")
    answer = front.stranger().post("/jobs", json=NEW)
    assert (answer.status_code, error_code(answer), answer.headers["Retry-After"]) == (
        429, "queue_depth_limit_reached", "30",
    )  # fmt: skip


# Bytes ---------------------------------------------------------------------------------------------


def test_a_document_beyond_the_stored_bytes_is_refused_and_leaves_nothing(front: Front) -> None:
    limit(front, stored_bytes=100)
    person = front.person()
    assert person.upload(b"x" * 90).status_code == 201
    kept = front.stored
    answer = person.upload(b"y" * 11)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "3600")
    details = answer.get_json()["error"]["details"]
    assert (details["limit"], details["value"], details["current"]) == ("stored_bytes", 100, 90)
    assert (front.play.one("select count(*) from documents"), front.stored) == (1, kept)


def test_a_tenants_own_upload_limit_may_be_lower_or_higher_than_everybodys(front: Front) -> None:
    person = front.person()
    limit(front, upload_bytes=1000)
    answer = person.upload(b"x" * 1001)
    assert (answer.status_code, error_code(answer)) == (413, "file_too_large")
    assert answer.get_json()["error"]["details"]["value"] == 1000
    large = b"A line.\n" * (front.settings.max_upload_bytes // 8 + 1)
    limit(front, upload_bytes=None)
    assert error_code(person.upload(large)) == "file_too_large"
    limit(front, upload_bytes=len(large))
    assert person.upload(large).status_code == 201


# Rates ---------------------------------------------------------------------------------------------


def left(answer: Any) -> tuple[str, str]:
    return answer.headers["RateLimit-Limit"], answer.headers["RateLimit-Remaining"]


def test_every_answer_tells_what_is_left_of_the_rate(front: Front, slow: Flask) -> None:
    person = Person(slow, front.person().user)
    answers = [person.get("/jobs"), person.get(f"/jobs/{uuid4()}"), person.post("/jobs", json=NEW)]
    assert [left(answer) for answer in answers] == [("5", "4"), ("5", "3"), ("5", "2")]
    assert [answer.status_code for answer in answers] == [200, 404, 202]
    headers = answers[-1].headers
    seconds = int(headers["RateLimit-Reset"])
    assert 50 <= seconds <= 60
    assert headers["RateLimit-Policy"] == '"member";q=5;w=60'
    assert headers["RateLimit"] == f'"member";r=2;t={seconds}'


def test_one_request_too_many_is_refused_until_the_minute_is_over(
    front: Front, slow: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = Person(slow, front.person().user)
    for _ in range(5):
        assert person.get("/jobs").status_code == 200
    answer = person.get("/jobs")
    assert (answer.status_code, error_code(answer), left(answer)) == (429, "rate_limited", ("5", "0"))
    details = answer.get_json()["error"]["details"]
    assert (details["limit"], details["value"], details["current"]) == ("requests_per_minute", 5, 6)
    assert answer.headers["Retry-After"] == answer.headers["RateLimit-Reset"] == str(details["retry_after_s"])
    later = time.time() + 61
    monkeypatch.setattr("api.rates.time", SimpleNamespace(time=lambda: later))
    assert person.get("/jobs").status_code == 200


def test_members_and_tenants_are_counted_apart(front: Front, slow: Flask) -> None:
    user = front.person().user
    other = front.play.add_tenant(user)
    first, second = Person(slow, user, front.play.tenant), Person(slow, user, other)
    colleague = Person(slow, front.person().user)
    for _ in range(6):
        answer = first.get("/jobs")
    assert answer.status_code == 429
    assert [left(one.get("/jobs"))[1] for one in (second, colleague)] == ["4", "4"]
    assert left(first.get("/me"))[1] == "4"


def test_a_tenants_own_rate_goes_before_everybodys(front: Front, slow: Flask) -> None:
    limit(front, requests_per_minute=1)
    person = Person(slow, front.person().user)
    assert left(person.get("/jobs")) == ("1", "0")
    assert person.get("/jobs").status_code == 429
    limit(front, requests_per_minute=100)
    assert left(person.get("/jobs"))[0] == "100"


def test_what_is_open_to_anyone_is_not_counted(slow: Flask) -> None:
    for _ in range(7):
        answer = slow.test_client().get("/healthz")
        assert answer.status_code == 200
        assert "RateLimit" not in answer.headers


def test_a_page_of_another_origin_can_read_what_is_left(front: Front, slow: Flask) -> None:
    person = Person(slow, front.person().user, headers={"Origin": "https://app.example.com"})
    exposed = person.get("/jobs").headers["Access-Control-Expose-Headers"]
    assert {"RateLimit", "RateLimit-Policy", "RateLimit-Remaining", "Retry-After"} <= set(exposed.split(", "))


def test_counts_of_those_who_left_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("api.rates.time", SimpleNamespace(time=lambda: clock[0]))
    counts = Counts()
    for number in range(5000):
        clock[0] += 1
        counts.incr(str(number), 60)
    assert counts.reset() <= 1001


def test_threads_that_count_at_once_lose_nothing(front: Front, app: Flask) -> None:
    rates, user = Rates(), UUID(int=1)

    def ask() -> None:
        with app.test_request_context():
            for _ in range(500):
                rates.count(user, None, 10_000)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with app.test_request_context():
        rates.count(user, None, 10_000)
        assert g.rate.remaining == 10_000 - 4_001
