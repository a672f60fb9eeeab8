"""Stream tickets: good once, for a minute, for streams only, at any process of the API, and written down nowhere."""

from __future__ import annotations

import threading
import time
from typing import Any
from uuid import UUID

import pytest
from api_play import PREFIX, Front, Person, Served, check_promise, error_code, make_token, submit_job
from stream_play import events, following
from waiting import until
from werkzeug.test import TestResponse

from api import stream, tickets


def get_ticket(person: Person) -> str:
    answer = person.post("/stream-tickets")
    assert answer.status_code == 201
    body: dict[str, Any] = answer.get_json()
    assert body["expires_in"] == tickets.TTL_S
    return str(body["ticket"])


def open_with(front: Front, path: str, ticket: str, **request: Any) -> TestResponse:
    """As EventSource does: an address and nothing else."""
    response = front.app.test_client().get(f"{PREFIX}{path}", query_string={"ticket": ticket}, **request)
    check_promise(front.app, "GET", response)
    return response


@pytest.fixture
def over(front: Front) -> str:
    """A job that is over: its stream ends by itself."""
    job = front.play.submit()
    front.play.cancel(job)
    return f"/jobs/{job}/stream"


def test_a_ticket_opens_each_kind_of_stream_without_a_header(front: Front, served: Served) -> None:
    person = front.person()
    document = front.play.add_document("One.")
    job = submit_job(front, person, pipeline="reading", document_id=str(document), params={})["id"]
    for path in (f"/jobs/{job}/stream", f"/documents/{document}/stream", "/stream?after=0"):
        joint = "&" if "?" in path else "?"
        with following(served, None, f"{path}{joint}ticket={get_ticket(person)}") as messages:
            assert events(messages, 1)[0]["kind"] == "submitted"


def test_a_used_ticket_is_worth_nothing(front: Front, over: str) -> None:
    ticket = get_ticket(front.person())
    assert "event: end" in open_with(front, over, ticket).text
    again = open_with(front, over, ticket)
    assert (again.status_code, error_code(again)) == (401, "ticket_invalid")
    assert "WWW-Authenticate" in again.headers


def test_of_many_who_use_a_ticket_at_once_one_gets_in(front: Front, served: Served, over: str) -> None:
    ticket = get_ticket(front.person())
    found: list[int] = []
    ready = threading.Barrier(8)

    def use() -> None:
        with served.client() as client:
            ready.wait()
            found.append(client.get(over, params={"ticket": ticket}).status_code)

    users = [threading.Thread(target=use) for _ in range(8)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert sorted(found) == [200, *[401] * 7]


def test_a_ticket_expires_after_a_minute_and_is_cleared_away(front: Front, over: str) -> None:
    person, play = front.person(), front.play
    ticket = get_ticket(person)
    play.connection.execute("update ops.stream_tickets set expires_at = expires_at - interval '60 seconds'")
    assert error_code(open_with(front, over, ticket)) == "ticket_invalid"
    get_ticket(person)
    play.connection.execute("update ops.stream_tickets set expires_at = expires_at - interval '61 seconds'")
    get_ticket(person)
    assert play.one("select count(*) from ops.stream_tickets") == 1


@pytest.mark.parametrize("ticket", ["", "x", "A" * 43, "A" * 500, "\x00"])
def test_what_is_no_ticket_opens_nothing(front: Front, over: str, ticket: str) -> None:
    answer = open_with(front, over, ticket)
    assert (answer.status_code, error_code(answer)) == (401, "ticket_invalid")


def test_a_ticket_opens_nothing_but_streams(front: Front) -> None:
    ticket = get_ticket(front.person())
    for path in ("/me", "/jobs", f"/jobs/{front.play.submit()}", "/documents"):
        answer = open_with(front, path, ticket)
        assert (answer.status_code, error_code(answer)) == (401, "token_missing")
    answer = front.app.test_client().post(f"{PREFIX}/stream-tickets", query_string={"ticket": ticket})
    assert error_code(answer) == "token_missing"


def test_a_ticket_stands_for_its_owner_in_its_tenant(front: Front, over: str) -> None:
    person = front.person()
    other = front.play.add_tenant()
    front.join(person.user, other)
    assert error_code(person.post("/stream-tickets")) == "tenant_required"
    person.tenant = other
    elsewhere = open_with(front, over, get_ticket(person))
    assert (elsewhere.status_code, error_code(elsewhere)) == (404, "job_not_found")
    person.tenant = front.play.tenant
    here = open_with(front, over, get_ticket(person), headers={"X-Tenant-Id": str(other)})
    assert here.status_code == 200


def test_who_was_put_out_of_the_tenant_gets_in_with_no_ticket(front: Front, over: str) -> None:
    person = front.person()
    ticket = get_ticket(person)
    front.play.all("delete from members where user_id = %s returning 1", person.user)
    assert error_code(open_with(front, over, ticket)) == "no_tenant"


def test_the_stream_ends_with_the_token_that_the_ticket_was_made_with(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.05)
    person = front.person()
    person.token = make_token(person.user, exp=int(time.time()) - front.settings.jwt_leeway_s + 2)
    answer = person.post("/stream-tickets").get_json()
    assert answer["expires_in"] <= 2
    assert "event: jobs" in open_with(front, "/stream", answer["ticket"]).text


def test_beside_a_token_a_ticket_is_left_alone(front: Front, over: str) -> None:
    person = front.person()
    ticket = get_ticket(person)
    assert person.get(over, query_string={"ticket": ticket}).status_code == 200
    assert open_with(front, over, ticket).status_code == 200


def test_a_ticket_is_written_down_nowhere(front: Front, served: Served, over: str) -> None:
    person = front.person()
    with served.client(person) as client:
        ticket = client.post("/stream-tickets").json()["ticket"]
    kept = front.play.all("select * from ops.stream_tickets")
    assert ticket not in str(kept)
    assert [row["tenant_id"] for row in kept] == [front.play.tenant]
    with served.client() as client:
        for status in (200, 401):
            answer = client.get(over, params={"ticket": ticket}, headers={"X-Request-Id": f"with-a-ticket-{status}"})
            assert answer.status_code == status
    until(lambda: "with-a-ticket-401" in served.log.read_text())
    assert ticket not in served.log.read_text()


def test_a_client_that_heeds_the_rules_misses_nothing_although_each_ticket_is_good_once(
    front: Front, served: Served
) -> None:
    person, play = front.person(), front.play
    job = submit_job(front, person)["id"]
    play.beat(took_from=["llm"])
    work = play.begin()
    seen: list[dict[str, Any]] = []
    for number in range(3):
        # EventSource would say an error here; its page gets another ticket and goes on after the last id.
        address = f"/stream?ticket={get_ticket(person)}&after={seen[-1]['position'] if seen else 0}"
        with following(served, None, address) as messages:
            seen += events(messages, 1)
            play.report(work, number, 9)
            seen += events(messages, 1)
        with served.client() as client:
            assert client.get(address).status_code == 401
    assert [event["seq"] for event in seen] == list(range(1, play.job(UUID(job))["last_seq"] + 1))
