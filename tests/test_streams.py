"""Streams over many jobs: of a document and of a tenant, gapless and without repeats, wherever they break off."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from api_play import Front, Served, error_code, make_token, serve, submit_job
from ledger_play import Play
from psycopg.rows import dict_row
from stream_play import events, following, frames, lines_of
from waiting import until
from werkzeug.test import TestResponse

from api import feeds, live, stream
from api.house import house_of
from tasks.settings import Settings

TENANT = "/stream"


@pytest.fixture(scope="module")
def second(served: Served, api_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Another process of the same API."""
    with serve(api_settings, tmp_path_factory.mktemp("second") / "api.log") as running:
        yield running


def document_stream(document: UUID | str) -> str:
    return f"/documents/{document}/stream"


def told_of(play: Play, *jobs: UUID | str) -> set[tuple[str, int]]:
    """All there is to tell of these jobs."""
    return {(str(job), event["seq"]) for job in jobs for event in play.events(UUID(str(job)))}


@contextmanager
def on_another_connection(front: Front) -> Iterator[Play]:
    url = front.settings.database_url.get_secret_value()
    with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:
        yield front.play.on(connection)


def messages_of(response: TestResponse) -> Iterator[dict[str, str]]:
    """Messages of a stream in this process, as they come."""

    def lines() -> Iterator[str]:
        for piece in response.iter_encoded():
            yield from piece.decode().split("\n")

    return frames(lines())


# What they tell ------------------------------------------------------------------------------------


def test_a_documents_stream_tells_of_all_its_jobs_and_of_those_that_come_later(front: Front, served: Served) -> None:
    person, play = front.person(), front.play
    document, other = play.add_document("One."), play.add_document("Two.")
    first = submit_job(front, person, pipeline="reading", document_id=str(document), params={})["id"]
    submit_job(front, person, pipeline="reading", document_id=str(other), params={})
    play.cancel(UUID(first))
    with following(served, person, document_stream(document)) as messages:
        assert [lines_of(event) for event in events(messages, 2)] == [(first, 1), (first, 2)]
        second = submit_job(front, person, pipeline="reading", document_id=str(document), params={})["id"]
        (event,) = events(messages, 1)
        assert (lines_of(event), event["kind"]) == ((second, 1), "submitted")
        assert (event["document_id"], event["pipeline"]) == (str(document), "reading")


def test_a_tenants_stream_begins_with_what_is_active_and_goes_on_with_what_happens(
    front: Front, served: Served
) -> None:
    person, play = front.person(), front.play
    over, active = (submit_job(front, person, params={"width": width})["id"] for width in (1, 2))
    play.cancel(UUID(over))
    with following(served, person, TENANT) as messages:
        assert next(messages) == {"retry": "2000"}
        start = next(messages)
        assert start["event"] == "jobs"
        told = json.loads(start["data"])
        assert [(job["id"], job["status"], job["last_seq"]) for job in told["jobs"]] == [(active, "queued", 1)]
        assert told["complete"] is True
        later = submit_job(front, person, params={"width": 3})["id"]
        play.cancel(UUID(active))
        assert [lines_of(event) for event in events(messages, 2)] == [(later, 1), (active, 2)]


def test_a_tenants_stream_can_be_narrowed_to_a_pipeline(front: Front, served: Served) -> None:
    person, play = front.person(), front.play
    wanted = submit_job(front, person, pipeline="fan", params={"width": 2})["id"]
    other = submit_job(front, person)["id"]
    with following(served, person, f"{TENANT}?pipeline=fan") as messages:
        next(messages)
        assert [job["id"] for job in json.loads(next(messages)["data"])["jobs"]] == [wanted]
        play.cancel(UUID(other))
        play.cancel(UUID(wanted))
        assert [lines_of(event) for event in events(messages, 1)] == [(wanted, 2)]


def test_more_active_jobs_than_are_shown_are_said_to_be_more(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "MOST_ACTIVE", 2)
    person = front.person()
    jobs = [submit_job(front, person, params={"width": width})["id"] for width in (1, 2, 3)]
    with person.get(TENANT, buffered=False) as response:
        messages = messages_of(response)
        next(messages)
        told = json.loads(next(messages)["data"])
    assert ([job["id"] for job in told["jobs"]], told["complete"]) == ([jobs[2], jobs[1]], False)


@pytest.mark.parametrize("of", ["document", "tenant"])
def test_the_whole_history_comes_in_pages_and_each_event_once(
    front: Front, monkeypatch: pytest.MonkeyPatch, of: str
) -> None:
    monkeypatch.setattr(feeds, "MOST", 7)
    person, play = front.person(), front.play
    document = play.add_document("One.")
    jobs = [submit_job(front, person, pipeline="reading", document_id=str(document), params={}, fresh=True)["id"]]
    play.beat(took_from=["cpu", "llm"])
    play.finish_all()
    jobs += [submit_job(front, person, pipeline="reading", document_id=str(document), params={}, fresh=True)["id"]]
    play.finish_all()
    expected = told_of(play, *jobs)
    path = document_stream(document) if of == "document" else f"{TENANT}?after=0"
    with person.get(path, buffered=False) as response:
        found = events(messages_of(response), len(expected))
    assert len(expected) > 7
    assert {lines_of(event) for event in found} == expected
    for event in found:
        with person.get(path.split("?")[0], headers={"Last-Event-ID": event["position"]}, buffered=False) as response:
            rest = events(messages_of(response), len(found) - found.index(event) - 1)
        assert [lines_of(one) for one in rest] == [lines_of(one) for one in found[found.index(event) + 1 :]]


def test_strangers_hear_nothing(front: Front, served: Served) -> None:
    person, stranger, play = front.person(), front.stranger(), front.play
    document = play.add_document("One.")
    assert error_code(stranger.get(document_stream(document))) == "document_not_found"
    assert error_code(person.get(document_stream(uuid4()))) == "document_not_found"
    theirs = stranger.post("/jobs", json={"pipeline": "line", "params": {"width": 9}}).get_json()["id"]
    with following(served, stranger, TENANT) as messages:
        next(messages)
        assert [job["id"] for job in json.loads(next(messages)["data"])["jobs"]] == [theirs]
        play.cancel(UUID(submit_job(front, person)["id"]))
        assert stranger.post(f"/jobs/{theirs}/cancel", json={}).status_code == 200
        assert [lines_of(event) for event in events(messages, 1)] == [(theirs, 2)]


# Where they break off ------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["document", "tenant"])
def test_breaking_off_again_and_again_at_two_servers_in_turn_misses_and_repeats_nothing(
    front: Front, served: Served, second: Served, of: str
) -> None:
    person, play = front.person(), front.play
    document = play.add_document("One.")
    play.beat(took_from=["cpu", "llm"])
    path = document_stream(document) if of == "document" else TENANT
    jobs: list[str] = []

    def work() -> None:
        with on_another_connection(front) as other:
            for _ in range(12):
                jobs.append(str(other.submit("reading", document_id=document, params={}, fresh=True)))
                other.finish_all()

    worker = threading.Thread(target=work)
    seen: list[dict[str, Any]] = []
    servers = [served, second]
    with following(served, person, path) as messages:
        next(messages)
        after = next(messages)["id"] if of == "tenant" else "0"
        worker.start()
    while worker.is_alive() or {lines_of(event) for event in seen} != told_of(play, *jobs):
        servers.reverse()
        with following(servers[0], person, path, after) as messages:
            seen += events(messages, 1)
            for _ in range(3):
                if {lines_of(event) for event in seen} == told_of(play, *jobs):
                    break
                seen += events(messages, 1)
        after = seen[-1]["position"]
    worker.join()
    assert len(seen) == len({lines_of(event) for event in seen})
    for job in jobs:
        numbers = [event["seq"] for event in seen if event["job_id"] == job]
        assert numbers == list(range(1, play.job(UUID(job))["last_seq"] + 1))


def test_a_killed_server_is_followed_by_another(front: Front, second: Served, log: Path) -> None:
    person, play = front.person(), front.play
    job = submit_job(front, person)["id"]
    with serve(front.settings, log) as first:
        with following(first, person, f"{TENANT}?after=0") as messages:
            seen = events(messages, 1)
            play.beat(took_from=["llm"])
            work = play.begin()
            seen += events(messages, 2)
            worker = first.worker_pid
            first.process.kill()
            os.kill(worker, signal.SIGKILL)
        play.report(work, 1, 2)
        with following(second, person, TENANT, seen[-1]["position"]) as messages:
            seen += events(messages, 1)
    assert [lines_of(event) for event in seen] == [(job, number) for number in (1, 2, 3, 4)]


@pytest.mark.parametrize("id", ["x", "-1", "1-2", "1-" + "0" * 32, "1" * 19, "1-" + "g" * 32 + "-1", ""])
def test_a_position_that_is_none_is_refused(front: Front, id: str) -> None:
    person = front.person()
    document = front.play.add_document("One.")
    for path in (TENANT, document_stream(document)):
        answer = person.get(path, headers={"Last-Event-ID": id})
        assert (answer.status_code, error_code(answer)) == (422, "request_invalid")
        answer = person.get(f"{path}?after={id}")
        assert (answer.status_code, error_code(answer)) == (422, "request_invalid")


def test_a_position_ahead_of_the_database_is_refused(front: Front) -> None:
    person = front.person()
    for path in (TENANT, document_stream(front.play.add_document("One."))):
        answer = person.get(path, headers={"Last-Event-ID": "999999999999999999"})
        assert (answer.status_code, error_code(answer)) == (410, "position_unknown")


# How they live and end -----------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["document", "tenant"])
def test_an_event_is_heard_long_before_the_next_look_at_the_database(front: Front, served: Served, of: str) -> None:
    person, play = front.person(), front.play
    document = play.add_document("One.")
    play.submit("reading", document_id=document, params={})
    play.beat(took_from=["cpu", "llm"])
    work = play.begin()
    path = document_stream(document) if of == "document" else f"{TENANT}?after=0"
    with following(served, person, path) as messages:
        events(messages, 3)
        started = time.monotonic()
        for number in range(10):
            play.report(work, number, 10)
            (event,) = events(messages, 1)
            assert event["data"]["current"] == number
    assert time.monotonic() - started < live.PATIENCE_S, "each was found by a look, none was heard"


def test_what_was_held_back_by_another_transaction_comes_when_that_is_over(front: Front, served: Served) -> None:
    person, play = front.person(), front.play
    job = submit_job(front, person)["id"]
    with following(served, person, f"{TENANT}?after=0") as messages:
        assert len(events(messages, 1)) == 1
        with on_another_connection(front) as slow:
            started = time.monotonic()
            with slow.connection.transaction():
                slow.all("select pg_current_xact_id()")
                play.cancel(UUID(job))
            assert [event["kind"] for event in events(messages, 1)] == ["cancelled"]
    assert time.monotonic() - started < live.PATIENCE_S


def test_a_silent_stream_shows_that_it_is_alive_and_stays_when_its_jobs_are_over(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.05)
    person, play = front.person(), front.play
    document = play.add_document("One.")
    play.cancel(play.submit("reading", document_id=document, params={}))
    for path in (document_stream(document), TENANT):
        with person.get(path, buffered=False) as response:
            heard = [piece for piece, _ in zip(response.iter_encoded(), range(5), strict=False)]
        assert heard[-1] == b": nothing new\n\n"
    assert house_of(front.app).live.followers == 0


def test_a_stream_ends_with_the_token_that_opened_it(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.05)
    person = front.person()
    person.token = make_token(person.user, exp=int(time.time()) - front.settings.jwt_leeway_s + 1)
    assert "event: jobs" in person.get(TENANT).text


def test_who_is_put_out_of_the_tenant_hears_no_more(front: Front, served: Served) -> None:
    person, play = front.person(), front.play
    document = play.add_document("One.")
    job = play.submit("reading", document_id=document, params={})
    with (
        following(served, person, document_stream(document)) as of_document,
        following(served, person, TENANT) as of_tenant,
    ):
        for messages in (of_document, of_tenant):
            next(messages)
            next(messages)
        play.all("delete from members where user_id = %s returning 1", person.user)
        play.cancel(job)
        assert list(of_document) + list(of_tenant) == []


def test_nobody_asks_whose_a_job_is_until_somebody_follows_a_tenant(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = house_of(front.app).live
    until(lambda: hub.start() or hub.hears)
    asked: list[UUID] = []
    find = hub._topics.find
    monkeypatch.setattr(hub._topics, "find", lambda jobs, connection: asked.extend(jobs) or find(jobs, connection))
    job = front.play.submit()
    with hub.follow(job) as follower:
        front.play.cancel(job)
        follower.wait(5)
    assert asked == []
    with hub.follow(front.play.tenant, wide=True) as follower:
        later = front.play.submit()
        until(lambda: later in asked)
        follower.wait(5)
    assert hub.followers == 0
