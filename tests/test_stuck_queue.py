"""The story of the stuck queue: no worker ever starts, and a client that only asks is told so and let go."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from api_play import PREFIX, Front, Person, Served
from stream_play import following
from waiting import until


@contextmanager
def started(person: Person, served: Served) -> Iterator[tuple[httpx.Client, dict[str, Any]]]:
    """A client who has started a job and looks at it, as a page does."""
    with served.client(person) as client:
        job = client.post("/jobs", json={"pipeline": "line", "params": {"width": 2}})
        assert job.status_code == 202
        yield client, client.get(job.headers["Location"].removeprefix(PREFIX)).json()


def let_pass(front: Front, job: dict[str, Any], seconds: float) -> None:
    """As if the job had been waiting for so much longer. Nothing is written about it, so nobody is woken."""
    for change in (
        "update job_steps set queued_at = queued_at - make_interval(secs => %s) where job_id = %s returning 1",
        "update jobs set updated_at = updated_at - make_interval(secs => %s) where id = %s returning 1",
    ):
        front.play.all(change, seconds, job["id"])  # type: ignore[arg-type]


def test_a_client_that_polls_is_told_within_the_timeout_and_one_poll_and_unlocked(front: Front, served: Served) -> None:
    timeout = front.settings.queue_timeout_s
    with started(front.person(), served) as (client, job):
        assert (job["status"], job["active"], job["terminal"]) == ("queued", True, False)
        assert job["waiting_for"]["reason"] == "no_worker"
        assert 0 < job["poll_after_ms"] <= 5_000
        let_pass(front, job, timeout - 20)
        again = client.get(f"/jobs/{job['id']}").json()
        assert (again["status"], again["terminal"]) == ("queued", False), "it is not over a moment too soon"
        let_pass(front, job, 21)
        told = client.get(f"/jobs/{job['id']}").json()
        assert (told["status"], told["error"]["code"]) == ("failed", "queue_timeout")
        assert "no worker picked it up" in told["error"]["message"]
        assert (told["active"], told["terminal"], told["poll_after_ms"], told["waiting_for"]) == (
            False,
            True,
            None,
            None,
        )
        assert told["links"]["cancel"] is None
        retried = client.post(told["links"]["retry"].removeprefix(PREFIX))
        assert (retried.status_code, retried.json()["status"], retried.json()["active"]) == (202, "queued", True)


def test_of_two_clients_one_asks_and_the_one_that_waits_is_told_as_well(front: Front, served: Served) -> None:
    person = front.person()
    waiting: dict[str, Any] = {}

    def wait(job: dict[str, Any]) -> None:
        with served.client(person) as patient:
            etag = patient.get(f"/jobs/{job['id']}").headers["ETag"]
            waiting["begun"] = True
            # As a client does: until it is over. Each call is answered by the server, in its own time.
            while not waiting.get("told", {}).get("terminal"):
                answer = patient.get(f"/jobs/{job['id']}?wait=15", headers={"If-None-Match": etag})
                if answer.status_code == 200:
                    waiting["told"], etag = answer.json(), answer.headers["ETag"]

    with started(person, served) as (client, job):
        waiter = threading.Thread(target=wait, args=[job])
        waiter.start()
        until(lambda: waiting.get("begun"))
        let_pass(front, job, front.settings.queue_timeout_s + 1)
        assert client.get(f"/jobs/{job['id']}").json()["error"]["code"] == "queue_timeout"
    waiter.join(15)
    assert not waiter.is_alive()
    assert (waiting["told"]["status"], waiting["told"]["error"]["code"]) == ("failed", "queue_timeout")
    assert waiting["told"]["poll_after_ms"] is None


@pytest.mark.parametrize("way", ["events", "stream"])
def test_a_client_that_only_reads_the_history_or_follows_is_told_as_well(
    front: Front, served: Served, way: str
) -> None:
    person = front.person()
    with started(person, served) as (client, job):
        let_pass(front, job, front.settings.queue_timeout_s + 1)
        if way == "events":
            page = client.get(f"/jobs/{job['id']}/events?after=1").json()
            assert ([event["kind"] for event in page["events"]], page["terminal"]) == (["failed"], True)
            return
        with following(served, person, f"/jobs/{job['id']}/stream", after=1) as messages:
            told = list(messages)
    assert [message.get("event") for message in told[1:]] == [None, "end"]


def test_a_stream_that_was_open_all_the_time_is_told_as_well(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.live.PATIENCE_S", 0.05)
    monkeypatch.setattr("api.live.IMPATIENCE_S", 0.05)
    person = front.person()
    job = person.post("/jobs", json={"pipeline": "line", "params": {"width": 2}}).get_json()
    with person.get(f"/jobs/{job['id']}/stream", buffered=False) as response:
        pieces = response.iter_encoded()
        assert [next(pieces)[:5] for _ in range(2)] == [b"retry", b"id: 1"]
        monkeypatch.setattr("api.feeds.JobFeed._may_repair", lambda _: True)
        let_pass(front, job, front.settings.queue_timeout_s + 1)
        rest = b"".join(pieces).decode()
    assert "queue_timeout" in rest
    assert "event: end" in rest
