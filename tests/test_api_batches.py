"""Batches over HTTP: lines go in as they come, every item has an outcome, and what is not whole leaves nothing."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import psutil
import pytest
from api_play import PREFIX, Front, Person, Served, error_code
from waiting import until
from werkzeug.test import TestResponse

from api.batch_lines import MOST_LINE_BYTES
from tasks.db import statement

NDJSON = {"Content-Type": "application/x-ndjson"}
MIB = 1024 * 1024


def send(person: Person, *lines: object, pipeline: str = "line", **headers: str) -> TestResponse:
    """A batch of lines; what is not text is sent as JSON."""
    body = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    return person.post(f"/batches?pipeline={pipeline}", data=body, headers=NDJSON | headers)


def marked(count: int) -> list[dict[str, Any]]:
    return [{"params": {"mark": str(number)}} for number in range(count)]


def take_in(front: Front) -> None:
    """Play the workers until there is nothing to take in."""
    while front.play.all("select * from ledger.take_in(%s, 30, 200, 16)", front.play.worker)[0]["batch"]:
        pass


def items(person: Person, batch: dict[str, Any], query: str = "") -> list[dict[str, Any]]:
    return list(person.get(f"/batches/{batch['id']}/items{query}").get_json()["items"])


def nothing_is_left(front: Front) -> None:
    assert front.play.one("select count(*) from batches") == 0
    assert front.play.one("select count(*) from batch_items") == 0
    assert front.stored == []


# What comes in -------------------------------------------------------------------------------------


def test_a_batch_is_answered_before_its_jobs_are_there_and_counted_when_they_are(front: Front) -> None:
    person = front.person("editor")
    answer = send(person, *marked(3))
    batch = answer.get_json()
    assert (answer.status_code, answer.headers["Location"]) == (202, batch["links"]["self"])
    assert (batch["items"], batch["outcomes"]["waiting"], batch["terminal"]) == (3, 3, False)
    assert batch["progress"]["message"] == "3 items wait to be taken in."
    take_in(front)
    seen = person.get(f"/batches/{batch['id']}").get_json()
    assert (seen["outcomes"]["created"], seen["jobs"]["queued"], seen["terminal"]) == (3, 3, False)
    front.play.beat(took_from=["llm"])
    front.play.finish_all()
    seen = person.get(f"/batches/{batch['id']}").get_json()
    assert (seen["jobs"]["completed"], seen["terminal"], seen["poll_after_ms"]) == (3, True, None)
    assert seen["progress"] == {"current": 3, "total": 3, "percent": 100, "message": ""}
    jobs = {job["id"] for job in person.get("/jobs").get_json()["jobs"]}
    assert {item["job_id"] for item in items(person, batch)} == jobs


def test_a_job_says_which_batch_it_came_in_with_and_is_found_by_it(front: Front) -> None:
    person = front.person("editor")
    batch = send(person, *marked(2)).get_json()
    take_in(front)
    alone = person.post("/jobs", json={"pipeline": "line", "params": {"mark": "alone"}}).get_json()
    assert (alone["batch_id"], alone["links"]["batch"]) == (None, None)
    found = person.get(f"/jobs?batch_id={batch['id']}").get_json()["jobs"]
    assert [job["batch_id"] for job in found] == [batch["id"]] * 2
    assert person.get(f"/jobs/{found[0]['id']}").get_json()["links"]["batch"] == batch["links"]["self"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("{", "json_broken"),
        ('{"params": {"mark": "\\u0000"}}', "json_broken"),
        ("\udcff".encode("utf-8", "surrogateescape").decode("latin-1"), "json_broken"),
        ("[]", "request_invalid"),
        ('{"documnet_id": 1}', "request_invalid"),
        ({"document_id": str(uuid4()), "path": "a.txt"}, "request_invalid"),
        ({"path": "../a.txt"}, "path_invalid"),
        ({"key": "two words"}, "request_invalid"),
        ({"params": {"width": "wide"}}, "params_invalid"),
        ({"params": {"mark": "x" * MOST_LINE_BYTES}}, "request_invalid"),
    ],
)
def test_a_line_that_is_wrong_refuses_its_item_and_no_other(front: Front, line: object, code: str) -> None:
    person = front.person()
    batch = send(person, {"params": {"mark": "a"}}, line, "", {"params": {"mark": "b"}}).get_json()
    found = items(person, batch)
    assert [item["nr"] for item in found] == [1, 2, 4]
    assert [item["outcome"] for item in found] == ["waiting", "refused", "waiting"]
    assert (found[1]["code"], batch["outcomes"]["refused"]) == (code, 1)
    assert found[1]["message"].endswith(".")


def test_parameters_are_filled_in_as_for_one_job(front: Front) -> None:
    person = front.person()
    send(person, {})
    take_in(front)
    alone = person.post("/jobs", json={"pipeline": "line"})
    assert alone.headers["Idempotent-Replayed"] == "true"


def test_the_last_line_needs_no_end(front: Front) -> None:
    body = b'{"params": {"mark": "a"}}\r\n{"params": {"mark": "b"}}'
    answer = front.person().post("/batches?pipeline=line", data=body, headers=NDJSON)
    assert answer.get_json()["outcomes"]["waiting"] == 2


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"", NDJSON, 422, "batch_empty"),
        (b"\n\n", NDJSON, 422, "batch_empty"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "media_type_unsupported"),
        (b"{", {"Content-Type": "application/json"}, 400, "json_broken"),
        (b'{"prefix": "../x"}', {"Content-Type": "application/json"}, 422, "path_invalid"),
        (b'{"prefix": "none"}', {"Content-Type": "application/json"}, 422, "batch_empty"),
        (b'{"prefix": 7}', {"Content-Type": "application/json"}, 422, "request_invalid"),
        (b"{}\n" * 6, NDJSON, 413, "too_many_items"),
        (b" " * 5000, NDJSON, 413, "body_too_large"),
        (b"{}", NDJSON | {"Idempotency-Key": "ä"}, 400, "idempotency_key_invalid"),
    ],
)
def test_a_body_of_no_use_leaves_nothing(
    front: Front, monkeypatch: pytest.MonkeyPatch, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    limited = front.settings.model_copy(update={"max_batch_items": 5, "max_batch_bytes": 4096})
    monkeypatch.setattr(front.app.extensions["ledgerline"], "settings", limited)
    answer = front.person().post("/batches?pipeline=line", data=body, headers=headers)
    assert (answer.status_code, error_code(answer)) == (status, code)
    nothing_is_left(front)


def test_the_pipeline_must_be_there(front: Front) -> None:
    answer = send(front.person(), {}, pipeline="nothing")
    assert (answer.status_code, error_code(answer)) == (422, "unknown_pipeline")
    assert error_code(front.person().post("/batches", data="{}", headers=NDJSON)) == "request_invalid"
    nothing_is_left(front)


def test_a_folder_of_the_incoming_area_is_a_batch(front: Front) -> None:
    person = front.person()
    area = front.settings.storage_path.resolve() / str(front.play.tenant) / "incoming" / "autumn"
    area.mkdir(parents=True)
    for number in range(3):
        (area / f"{number}.txt").write_text(f"Story {number}.")
    batch = person.post("/batches?pipeline=reading", json={"prefix": "autumn"}).get_json()
    assert {item["path"] for item in items(person, batch)} == {f"autumn/{number}.txt" for number in range(3)}


# Asking twice --------------------------------------------------------------------------------------


def test_the_same_key_and_body_is_the_same_batch(front: Front) -> None:
    person, key = front.person(), {"Idempotency-Key": "autumn"}
    first, again, other = send(person, {}, **key), send(person, {}, **key), send(person, {}, {}, **key)
    assert first.get_json()["id"] == again.get_json()["id"]
    assert (first.headers.get("Idempotent-Replayed"), again.headers["Idempotent-Replayed"]) == (None, "true")
    assert (other.status_code, error_code(other)) == (422, "idempotency_key_reused")
    assert other.get_json()["error"]["details"]["batch_id"] == first.get_json()["id"]
    assert front.play.one("select count(*) from batches") == 1


def test_nothing_new_is_told_as_304(front: Front) -> None:
    person = front.person()
    path = send(person, *marked(1)).headers["Location"]
    etag = person.get(path).headers["ETag"]
    assert person.get(path, headers={"If-None-Match": etag}).status_code == 304
    take_in(front)
    assert person.get(path, headers={"If-None-Match": etag}).status_code == 200


# Lists ---------------------------------------------------------------------------------------------


def test_items_are_paged_and_filtered(front: Front) -> None:
    person = front.person()
    batch = send(person, *marked(3), "{", *marked(1)).get_json()
    first = person.get(f"/batches/{batch['id']}/items?limit=3").get_json()
    second = person.get(f"/batches/{batch['id']}/items?limit=3&cursor={first['next_cursor']}").get_json()
    assert [item["nr"] for page in (first, second) for item in page["items"]] == [1, 2, 3, 4, 5]
    assert second["next_cursor"] is None
    assert [item["nr"] for item in items(person, batch, "?outcome=refused")] == [4]
    assert items(person, batch, "?outcome=created") == []


def test_batches_are_listed_newest_first(front: Front) -> None:
    person = front.person()
    made = [send(person, {"params": {"mark": str(n)}}).get_json()["id"] for n in range(3)]
    first = person.get("/batches?limit=2").get_json()
    second = person.get(f"/batches?limit=2&cursor={first['next_cursor']}").get_json()
    assert [batch["id"] for page in (first, second) for batch in page["batches"]] == made[::-1]


def test_a_batch_is_its_tenants_own(front: Front) -> None:
    batch = send(front.person(), {}).get_json()
    stranger = front.stranger()
    for path in (f"/batches/{batch['id']}", f"/batches/{batch['id']}/items"):
        assert error_code(stranger.get(path)) == "batch_not_found"
    for verb in ("cancel", "retry"):
        assert error_code(stranger.post(f"/batches/{batch['id']}/{verb}", json={})) == "batch_not_found"
    assert stranger.get("/batches").get_json()["batches"] == []


# What is asked of all ------------------------------------------------------------------------------


def test_a_batch_is_cancelled_as_a_whole(front: Front) -> None:
    person = front.person()
    batch = send(person, *marked(3)).get_json()
    front.play.all("select * from ledger.take_in(%s, 30, 2, 16)", front.play.worker)
    answer = person.post(f"/batches/{batch['id']}/cancel", json={"reason": "Wrong folder."})
    assert (answer.status_code, answer.get_json()["terminal"]) == (202, False)
    take_in(front)
    seen = person.get(f"/batches/{batch['id']}").get_json()
    assert (seen["terminal"], seen["jobs"]["cancelled"], seen["outcomes"]["refused"]) == (True, 2, 1)
    assert seen["cancelled_at"] is not None
    assert error_code(person.post(f"/batches/{batch['id']}/cancel", json={})) == "batch_is_over"


def test_the_failed_jobs_of_a_batch_are_retried(front: Front) -> None:
    person = front.person()
    batch = send(person, *marked(2)).get_json()
    assert error_code(person.post(f"/batches/{batch['id']}/retry")) == "nothing_failed"
    take_in(front)
    front.play.fail(front.play.begin())
    assert person.post(f"/batches/{batch['id']}/retry").status_code == 202
    take_in(front)
    assert person.get(f"/batches/{batch['id']}").get_json()["jobs"] | {"running": 0} == {
        "queued": 2, "running": 0, "awaiting_review": 0, "completed": 0, "failed": 0, "cancelled": 0,
    }  # fmt: skip


# A real server -------------------------------------------------------------------------------------


def test_a_large_batch_moves_the_memory_of_the_api_by_little(front: Front, served: Served) -> None:
    person, count = front.person(), 20_000

    def lines() -> Iterator[bytes]:
        for number in range(count):
            yield json.dumps({"params": {"mark": f"{number:0900}"}}).encode() + b"\n"

    with served.client(person) as client:
        client.get("/me")
        before = psutil.Process(served.worker_pid).memory_info().rss
        answer = client.post("/batches?pipeline=line", content=lines(), headers=NDJSON, timeout=60)
        assert (answer.status_code, answer.json()["items"]) == (202, count)
        assert psutil.Process(served.worker_pid).memory_info().rss - before < 50 * MIB


@pytest.mark.parametrize(
    ("told", "start"), [("Content-Length: 1000000", b""), ("Transfer-Encoding: chunked", b"20f58\r\n")]
)
def test_a_client_that_is_killed_midway_leaves_nothing(front: Front, served: Served, told: str, start: bytes) -> None:
    person = front.person()
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as line:
        head = [f"POST {PREFIX}/batches?pipeline=line HTTP/1.1", "Host: x", "Content-Type: application/x-ndjson"]
        head += [f"{name}: {value}" for name, value in person.bearer().items()]
        line.sendall("\r\n".join([*head, "Content-Length: 1000000", "", ""]).encode() + b'{"params": {}}\n' * 9000)
        until(lambda: front.stored != [])
    until(lambda: front.stored == [])
    nothing_is_left(front)


def test_the_lists_walk_an_index(front: Front) -> None:

    person = front.person()
    batch = UUID(send(person, {}).get_json()["id"])
    front.play.connection.execute(
        "insert into batch_items (batch_id, nr, tenant_id) select %s, n, %s from generate_series(2, 30000) n",
        [batch, front.play.tenant],
    )
    front.play.connection.execute("analyze batch_items")
    for outcome in (None, "refused"):
        asked = {"batch_id": batch, "tenant_id": front.play.tenant, "outcome": outcome, "after": 15_000, "most": 51}
        plan = front.play.connection.execute("explain " + statement("api_batch_items"), asked).fetchall()
        lines = "\n".join(row["QUERY PLAN"] for row in plan)
        assert "Seq Scan on batch_items" not in lines, lines
