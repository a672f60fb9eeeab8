"""Direct uploads over HTTP: announced, sent by a signed link, confirmed. Until then there is no document."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import psutil
import psycopg
import pytest
from api_play import PREFIX, Front, Person, Served, error_code, make_settings, make_token, serve
from fake_storage import FakeStorage
from fixtures_storage import supabase_settings
from ledger_play import Play
from waiting import until
from werkzeug.test import TestResponse

STORY = b"Once upon a time there was a lamplighter.\n" * 50
DIGEST = hashlib.sha256(STORY).hexdigest()
MIB = 1024 * 1024


def announce(person: Person, data: bytes = STORY, **body: Any) -> dict[str, Any]:
    answer = person.post("/documents/uploads", json={"filename": "story.txt", "bytes": len(data)} | body)
    assert answer.status_code == 201, answer.get_json()
    return dict(answer.get_json())


def send(person: Person, upload: dict[str, Any], data: bytes = STORY, **headers: Any) -> TestResponse:
    """The bytes, by the link alone."""
    path = urlsplit(upload["url"]).path
    return person.call(upload["method"], path, data=data, headers=upload["headers"] | {"Authorization": None} | headers)


def confirm(person: Person, upload: dict[str, Any], **body: Any) -> TestResponse:
    return person.post(f"/documents/{upload['id']}/uploaded", json=body)


def nothing_is_left(front: Front) -> None:
    assert front.play.one("select count(*) from documents") == 0
    assert front.play.one("select count(*) from jobs") == 0
    assert front.stored == []


# How it goes well ----------------------------------------------------------------------------------


def test_what_was_announced_sent_and_confirmed_is_a_document(front: Front) -> None:
    person = front.person("editor")
    upload = announce(person, sha256=DIGEST, title="Mine")
    assert send(person, upload).get_json() == {"bytes": len(STORY)}
    assert front.play.one("select count(*) from documents") == 0
    answer = confirm(person, upload)
    document = answer.get_json()
    assert (answer.status_code, document["id"], document["job"]) == (201, upload["id"], None)
    assert answer.headers["Location"] == document["links"]["self"]
    assert (document["title"], document["filename"], document["kind"]) == ("Mine", "story.txt", "txt")
    assert (document["bytes"], document["sha256"]) == (len(STORY), DIGEST)
    (path,) = front.stored
    assert path.read_bytes() == STORY


def test_the_pipeline_is_started_in_the_same_transaction(front: Front) -> None:
    person = front.person()
    upload = announce(person)
    send(person, upload)
    document = confirm(person, upload, pipeline="reading").get_json()
    assert (document["title"], document["job"]["document_id"]) == ("story", upload["id"])
    assert len(front.play.all("select d.xmin::text as d, j.xmin::text as j from documents d, jobs j")) == 1
    assert front.play.one("select (select xmin::text from documents) = (select xmin::text from uploads)")


def test_confirming_twice_gives_the_same_document(front: Front) -> None:
    person = front.person()
    upload = announce(person)
    send(person, upload)
    first, second = (confirm(person, upload, pipeline="reading") for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.get_json()["job"]["id"] == second.get_json()["job"]["id"]
    assert front.play.one("select count(*) from documents") == 1


def test_a_digest_may_be_told_with_the_confirmation(front: Front) -> None:
    person = front.person()
    upload = announce(person)
    send(person, upload)
    assert confirm(person, upload, sha256=DIGEST).status_code == 201


# What is wrong with the bytes ----------------------------------------------------------------------


def test_bytes_that_never_came_are_no_document(front: Front) -> None:
    person = front.person()
    answer = confirm(person, announce(person))
    assert (answer.status_code, error_code(answer)) == (409, "upload_incomplete")
    nothing_is_left(front)


@pytest.mark.parametrize("where", ["announced", "confirmed"])
def test_bytes_of_another_digest_are_removed_and_may_be_sent_again(front: Front, where: str) -> None:
    person = front.person()
    told = {"sha256": DIGEST}
    upload = announce(person, **(told if where == "announced" else {}))
    send(person, upload, STORY[::-1])
    answer = confirm(person, upload, **(told if where == "confirmed" else {}))
    assert (answer.status_code, error_code(answer)) == (422, "hash_mismatch")
    nothing_is_left(front)
    assert send(person, upload).status_code == 200
    assert confirm(person, upload, **told).status_code == 201


@pytest.mark.parametrize(
    ("data", "name", "status", "code"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "story.txt", 415, "unsupported_type"),
        (b"%PDF-1.7\n", "story.txt", 422, "type_mismatch"),
        (bytes(40), "story.txt", 422, "empty_file"),
    ],
)
def test_a_file_of_no_use_is_refused_when_it_is_confirmed(
    front: Front, data: bytes, name: str, status: int, code: str
) -> None:
    person = front.person()
    upload = announce(person, data, filename=name)
    send(person, upload, data)
    answer = confirm(person, upload)
    assert (answer.status_code, error_code(answer)) == (status, code)
    nothing_is_left(front)


def test_what_comes_in_too_short_or_too_long_is_not_kept(front: Front) -> None:
    person = front.person()
    upload = announce(person)
    short, long = send(person, upload, STORY[:-1]), send(person, upload, STORY + b"x")
    assert (short.status_code, error_code(short)) == (409, "upload_incomplete")
    assert (long.status_code, error_code(long)) == (413, "file_too_large")
    nothing_is_left(front)


def test_a_refused_job_keeps_no_document(front: Front) -> None:
    person = front.person()
    upload = announce(person, b"%PDF-1.7\n%x\n", filename="story.pdf")
    send(person, upload, b"%PDF-1.7\n%x\n")
    refused = confirm(person, upload, pipeline="reading")
    assert (refused.status_code, error_code(refused)) == (422, "document_not_accepted")
    assert front.play.one("select count(*) from documents") == 0
    assert confirm(person, upload).status_code == 201, "its bytes are still there"


# Who may, and until when ---------------------------------------------------------------------------


def test_an_upload_larger_than_the_limit_is_not_announced(front: Front) -> None:
    answer = front.person().post(
        "/documents/uploads", json={"filename": "a.txt", "bytes": front.settings.max_direct_upload_bytes + 1}
    )
    assert (answer.status_code, error_code(answer)) == (413, "file_too_large")


def test_an_upload_is_its_tenants_own(front: Front) -> None:
    person = front.person()
    upload = announce(person)
    send(person, upload)
    answer = confirm(front.stranger(), upload)
    assert (answer.status_code, error_code(answer)) == (404, "upload_not_found")
    assert confirm(front.person("viewer"), upload).status_code == 403
    assert confirm(person, {"id": uuid4()}).status_code == 404


def test_a_link_that_was_made_up_or_is_for_reading_takes_nothing(front: Front) -> None:
    person = front.person()
    storage_link = f"{PREFIX}/uploads/made-up"
    answer = person.call("PUT", storage_link, data=STORY, headers={"Content-Type": "application/octet-stream"})
    assert (answer.status_code, error_code(answer)) == (404, "link_invalid")
    nothing_is_left(front)


def test_an_upload_that_has_expired_is_gone(front: Front) -> None:
    person = front.person()
    upload = announce(person)
    send(person, upload)
    front.play.connection.execute("update uploads set expires_at = now() - interval '1 second'")
    answer = confirm(person, upload)
    assert (answer.status_code, error_code(answer)) == (410, "upload_expired")


# A real server -------------------------------------------------------------------------------------


def test_a_large_upload_moves_the_memory_of_the_api_by_little(front: Front, served: Served, api_settings: Any) -> None:
    person = front.person()
    size = 128 * MIB
    line = b"A line of text that is sixty-four bytes long, with its newline.\n" * 1024

    def story() -> Iterator[bytes]:
        for _ in range(size // len(line)):
            yield line

    with served.client(person) as client:
        client.get("/me")
        before = psutil.Process(served.worker_pid).memory_info().rss
        announced = client.post("/documents/uploads", json={"filename": "story.txt", "bytes": size}).json()
        url = f"{served.url}{urlsplit(announced['url']).path}"
        sent = httpx.put(
            url, content=story(), headers=announced["headers"] | {"Content-Length": str(size)}, timeout=120
        )
        assert sent.status_code == 200, sent.text
        confirmed = client.post(f"/documents/{announced['id']}/uploaded", json={}, timeout=120)
        assert (confirmed.status_code, confirmed.json()["bytes"]) == (201, size)
        assert psutil.Process(served.worker_pid).memory_info().rss - before < 50 * MIB


def test_an_upload_that_breaks_off_leaves_nothing(front: Front, served: Served) -> None:
    person = front.person()
    with served.client(person) as client:
        announced = client.post("/documents/uploads", json={"filename": "story.txt", "bytes": MIB}).json()
        host, port = served.url.removeprefix("http://").split(":")
        path = urlsplit(announced["url"]).path
        with socket.create_connection((host, int(port))) as line:
            head = ["PUT " + path + " HTTP/1.1", "Host: x", "Content-Type: application/octet-stream"]
            line.sendall("\r\n".join([*head, f"Content-Length: {MIB}", "", ""]).encode() + bytes(70_000))
            until(lambda: front.stored != [])
        until(lambda: front.stored == [])
        answer = client.post(f"/documents/{announced['id']}/uploaded", json={})
        assert (answer.status_code, error_code(answer)) == (409, "upload_incomplete")


def test_bytes_go_straight_to_the_hosted_store(
    hosted: FakeStorage, database_url: str, real_play: Play, tmp_path: Path
) -> None:
    settings = make_settings(database_url, tmp_path / "staging", **supabase_settings(hosted))
    bearer = {"Authorization": f"Bearer {make_token(real_play.user)}"}
    with serve(settings, tmp_path / "log") as api, httpx.Client(headers=bearer, base_url=api.url + PREFIX) as client:
        body = {"filename": "story.txt", "bytes": len(STORY), "sha256": DIGEST}
        upload = client.post("/documents/uploads", json=body).json()
        assert upload["url"].startswith(hosted.url)
        assert confirm_there(client, upload).status_code == 409
        assert httpx.put(upload["url"], content=STORY, headers=upload["headers"]).status_code == 200
        confirmed = confirm_there(client, upload)
        assert (confirmed.status_code, confirmed.json()["sha256"]) == (201, DIGEST)
        assert confirm_there(client, upload).status_code == 200
    assert [key.split("/")[2] for key in hosted.objects] == [DIGEST[:2]], "the upload itself is gone"
    assert [path for path in (tmp_path / "staging").rglob("*") if path.is_file()] == []


def confirm_there(client: httpx.Client, upload: dict[str, Any]) -> httpx.Response:
    return client.post(f"/documents/{upload['id']}/uploaded", json={}, timeout=30)


def test_the_row_of_an_upload_is_seen_by_its_tenant_only(front: Front) -> None:
    announce(front.person())
    stranger = front.stranger()
    with psycopg.connect(front.settings.database_url.get_secret_value()) as connection:
        connection.execute("select set_config('role', 'authenticated', true)")
        connection.execute("select set_config('request.jwt.claims', %s, true)", [f'{{"sub": "{stranger.user}"}}'])
        assert connection.execute("select * from uploads").fetchall() == []
