"""History and live streams: history first, then tail, without gap or repeat, whatever breaks on the way."""

from __future__ import annotations

import json
import threading
import time
from typing import Any
from uuid import UUID

import psycopg
import pytest
from api_play import Front, Served, error_code, finish_job, make_token, new_job_id, submit_job
from stream_play import following, frames
from waiting import until

from api import feeds, live, stream
from api.house import house_of
from tasks.db import open_pool

LISTENERS = "select pid from pg_stat_activity where datname = current_database() and application_name = %s"


def job_stream(job: UUID | str) -> str:
    return f"/jobs/{job}/stream"


def numbers(messages: list[dict[str, str]]) -> list[int]:
    return [int(message["id"]) for message in messages if "id" in message]


# History -------------------------------------------------------------------------------------------


def test_history_is_read_in_pages(front: Front) -> None:
    person = front.person()
    job = submit_job(front, person)["id"]
    finish_job(front.play, job)
    kinds, after = [], 0
    while page := person.get(f"/jobs/{job}/events?after={after}&limit=3").get_json():
        if not page["events"]:
            break
        assert [event["seq"] for event in page["events"]] == list(range(after + 1, page["next_after"] + 1))
        kinds += [event["kind"] for event in page["events"]]
        after = page["next_after"]
    assert kinds == front.play.kinds(UUID(job))
    assert (page["terminal"], page["status"], page["last_seq"]) == (True, "completed", after)


def test_an_event_tells_who_what_when_and_where_the_job_was_then(front: Front) -> None:
    person = front.person()
    job = submit_job(front, person)["id"]
    (event,) = person.get(f"/jobs/{job}/events").get_json()["events"]
    assert (event["seq"], event["kind"], event["actor"], event["stage"]) == (
        1, "submitted", str(person.user), "initializing",
    )  # fmt: skip
    assert (event["data"]["status"], event["data"]["percent"]) == ("queued", 0)


@pytest.mark.parametrize("query", ["after=-1", "after=x", "limit=0", "limit=1001", "after=99999999999"])
def test_a_part_of_history_that_cannot_be_is_refused(front: Front, query: str) -> None:
    person = front.person()
    answer = person.get(f"/jobs/{submit_job(front, person)['id']}/events?{query}")
    assert (answer.status_code, error_code(answer)) == (422, "request_invalid")


# Streams -------------------------------------------------------------------------------------------


def test_a_stream_gives_history_then_tail_and_ends_with_the_job(front: Front, served: Served) -> None:
    person = front.person()
    job = submit_job(front, person)["id"]
    front.play.begin()
    with following(served, person, job_stream(job)) as messages:
        first = next(messages)
        assert first == {"retry": "2000"}
        seen = [next(messages) for _ in range(3)]
        assert [json.loads(message["data"])["kind"] for message in seen] == ["submitted", "started", "step_started"]
        front.play.cancel(UUID(job))
        seen += list(messages)
    assert numbers(seen) == [1, 2, 3, 4]
    assert seen[-1]["event"] == "end"
    assert json.loads(seen[-1]["data"]) == {"status": "cancelled", "last_seq": 4}
    assert json.loads(seen[2]["data"]) == person.get(f"/jobs/{job}/events?after=2&limit=1").get_json()["events"][0]


def test_an_event_arrives_long_before_the_next_look_at_the_database(front: Front, served: Served) -> None:
    person = front.person()
    job = UUID(submit_job(front, person)["id"])
    front.play.beat(took_from=["llm"])
    work = front.play.begin()
    with following(served, person, job_stream(job)) as messages:
        for _ in range(4):
            next(messages)
        started = time.monotonic()
        for number in range(20):
            front.play.report(work, number, 20)
            assert json.loads(next(messages)["data"])["data"]["current"] == number
    assert time.monotonic() - started < live.IMPATIENCE_S * 10, "each was found by a look, none was heard"


def test_a_stream_that_breaks_off_again_and_again_misses_nothing_and_repeats_nothing(
    front: Front, served: Served
) -> None:
    person = front.person()
    job = submit_job(front, person, pipeline="fan", params={"width": 40})["id"]
    play = front.play
    play.beat(took_from=["llm"])

    def work() -> None:
        with psycopg.connect(
            front.settings.database_url.get_secret_value(), autocommit=True, row_factory=psycopg.rows.dict_row
        ) as connection:
            play.on(connection).finish_all(width=40)

    worker = threading.Thread(target=work)
    worker.start()
    seen: list[int] = []
    ended = False
    while not ended:
        with following(served, person, job_stream(job), seen[-1] if seen else None) as messages:
            for read, message in enumerate(messages):
                seen += numbers([message])
                ended = message.get("event") == "end"
                if read > 12:
                    break
    worker.join()
    assert seen == list(range(1, play.job(UUID(job))["last_seq"] + 1))


def test_a_stream_of_a_job_that_is_over_gives_its_history_and_ends(front: Front, served: Served) -> None:
    person = front.person()
    job = submit_job(front, person)["id"]
    finish_job(front.play, job)
    last = front.play.job(UUID(job))["last_seq"]
    with following(served, person, job_stream(job)) as messages:
        assert numbers(list(messages)) == list(range(1, last + 1))
    with following(served, person, job_stream(job), after=last) as messages:
        assert [message.get("event") for message in messages] == [None, "end"]


def test_a_long_history_is_sent_in_one_go(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "MOST", 7)
    person = front.person()
    job = submit_job(front, person, pipeline="fan", params={"width": 9})["id"]
    front.play.beat(took_from=["llm"])
    front.play.finish_all(width=9)
    text = person.get(f"/jobs/{job}/stream").text
    messages = list(frames(iter(text.split("\n"))))
    assert numbers(messages) == list(range(1, front.play.job(UUID(job))["last_seq"] + 1))


@pytest.mark.parametrize("number", ["x", "-1", "1.5", "9999999999"])
def test_a_last_event_id_that_is_none_is_refused(front: Front, number: str) -> None:
    person = front.person()
    job = submit_job(front, person)["id"]
    answer = person.get(f"/jobs/{job}/stream", headers={"Last-Event-ID": number})
    assert (answer.status_code, error_code(answer)) == (422, "request_invalid")


def test_a_silent_stream_shows_that_it_is_alive(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.05)
    person = front.person()
    job = submit_job(front, person)["id"]
    response = person.get(f"/jobs/{job}/stream", buffered=False)
    pieces = response.iter_encoded()
    assert [next(pieces)[:5] for _ in range(4)] == [b"retry", b"id: 1", b": not", b": not"]
    response.close()
    assert house_of(front.app).live.followers == 0


def test_a_stream_ends_with_the_token_that_opened_it(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.05)
    person = front.person()
    person.token = make_token(person.user, exp=int(time.time()) - front.settings.jwt_leeway_s + 2)
    job = submit_job(front, person)["id"]
    text = person.get(f"/jobs/{job}/stream").text
    assert "id: 1" in text
    assert "event: end" not in text


def test_who_is_put_out_of_the_tenant_hears_no_more(front: Front, served: Served) -> None:
    person = front.person()
    job = submit_job(front, person)["id"]
    with following(served, person, job_stream(job)) as messages:
        next(messages)
        next(messages)
        front.play.all("delete from members where user_id = %s returning 1", person.user)
        front.play.cancel(UUID(job))
        assert list(messages) == []


# When listening breaks -----------------------------------------------------------------------------


def test_a_killed_listener_comes_back_and_no_event_is_lost(front: Front, served: Served) -> None:
    person, play = front.person(), front.play
    job = submit_job(front, person)["id"]
    play.beat(took_from=["llm"])
    work = play.begin()
    with following(served, person, job_stream(job)) as messages:
        seen = [next(messages) for _ in range(4)]
        old = until(lambda: _listeners(front))
        for number in range(5):
            play.all("select pg_terminate_backend(pid) from (" + LISTENERS + ") l", live.NAME)
            play.report(work, number, 5)
        seen += [next(messages) for _ in range(5)]
        assert until(lambda: _listeners(front) - old)
        play.cancel(UUID(job))
        seen += list(messages)
    assert numbers(seen) == list(range(1, play.job(UUID(job))["last_seq"] + 1))


def _listeners(front: Front) -> set[int]:
    return {row["pid"] for row in front.play.all(LISTENERS, live.NAME)}


def test_without_hearing_anything_streams_look_for_themselves(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = house_of(front.app).live
    until(lambda: hub.start() or hub.hears)
    monkeypatch.setattr(hub, "_wake", lambda _: None)
    monkeypatch.setattr(live, "PATIENCE_S", 0.05)
    person = front.person()
    job = submit_job(front, person)["id"]
    response = person.get(f"/jobs/{job}/stream", buffered=False)
    pieces = response.iter_encoded()
    assert [next(pieces)[:5] for _ in range(2)] == [b"retry", b"id: 1"]
    front.play.cancel(UUID(job))
    assert next(pieces)[:5] == b"id: 2"


def test_a_hub_that_does_not_hear_itself_says_so_and_makes_followers_look(
    front: Front, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(live, "_ECHO_WITHIN_S", 0.1)
    monkeypatch.setattr(live, "_TICK_S", 0.02)
    url = front.settings.database_url.get_secret_value()
    with open_pool(url, 2) as pool:
        hub = live.Hub(url, pool)
        # What a transaction pool does to LISTEN.
        monkeypatch.setattr(hub, "_listen", lambda _: None)
        hub.start()
        until(lambda: "notifications are not heard" in caplog.text)
        assert not hub.hears
        assert hub.patience_s == live.IMPATIENCE_S
        monkeypatch.undo()
        until(lambda: hub.hears)
        assert hub.patience_s == live.PATIENCE_S
        hub.close()


def test_a_hub_that_meets_what_nobody_foresaw_says_so_and_listens_again(
    front: Front, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub = live.Hub(front.settings.direct_url, house_of(front.app).pool)

    def stumble(_: object) -> None:
        raise KeyError("nobody")

    with monkeypatch.context() as broken:
        broken.setattr(hub, "_attend", stumble)
        hub.start()
        until(lambda: "KeyError('nobody')" in caplog.text)
    until(lambda: hub.hears)
    hub.close()


def test_a_stream_outlives_a_database_that_is_away(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.02)
    person = front.person()
    job = submit_job(front, person)["id"]
    response = person.get(f"/jobs/{job}/stream", buffered=False)
    pieces = response.iter_encoded()
    assert [next(pieces)[:5] for _ in range(2)] == [b"retry", b"id: 1"]

    def away(*_: Any, **__: Any) -> None:
        raise psycopg.OperationalError("gone")

    with monkeypatch.context() as broken:
        broken.setattr(house_of(front.app).pool, "connection", away)
        assert [next(pieces)[:5] for _ in range(3)] == [b": not"] * 3
    front.play.cancel(UUID(job))
    assert "event: end" in b"".join(pieces).decode()


def test_closing_the_hub_wakes_who_waits_and_keeps_nobody_waiting_after(front: Front) -> None:
    hub = live.Hub(front.settings.direct_url, house_of(front.app).pool)
    woken: list[bool] = []
    with hub.follow(new_job_id()) as follower:
        until(lambda: hub.hears)
        waiter = threading.Thread(target=lambda: woken.append(follower.wait(30) is None))
        waiter.start()
        hub.close()
        waiter.join(5)
        follower.arm()
        follower.wait(30)
    assert woken == [True]
