"""What somebody tries who has a good token of a tenant of their own, and wants something of another's."""

from __future__ import annotations

import base64
import struct
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from api_play import Front, Person, error_code, submit_job
from matrix_play import Stage
from pydantic import SecretStr

from api.house import house_of
from tasks.storage import LocalStorage


@pytest.fixture
def stage(front: Front) -> Stage:
    """The other tenant's things."""
    return Stage(front)


@pytest.fixture
def attacker(front: Front) -> Person:
    """The owner of a tenant of their own, which has a job and a document."""
    attacker = front.stranger()
    attacker.upload(b"My own story.")
    submit_job(front, attacker)
    return attacker


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


# Equal requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{"Idempotency-Key": "the-same"}, {}])
def test_an_equal_request_of_another_tenant_is_another_job(
    front: Front, attacker: Person, headers: dict[str, str]
) -> None:
    body = {"pipeline": "line", "params": {"width": 9}}
    first = front.person().post("/jobs", json=body, headers=headers)
    second = attacker.post("/jobs", json=body, headers=headers)
    assert first.get_json()["id"] != second.get_json()["id"]
    assert "Idempotent-Replayed" not in second.headers
    other = attacker.post("/jobs", json={"pipeline": "one"}, headers={"Idempotency-Key": "the-same"})
    assert first.get_json()["id"] not in other.text


def test_the_same_file_in_another_tenant_is_another_document(front: Front, attacker: Person) -> None:
    first, second = (person.upload(b"The very same story.") for person in (front.person(), attacker))
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.get_json()["id"] != second.get_json()["id"]
    assert first.get_json()["id"] not in second.text


# What is there -------------------------------------------------------------------------------------


def test_a_tag_does_not_tell_whether_a_job_is_there(front: Front, stage: Stage, attacker: Person) -> None:
    job = stage.job()
    etag = front.person().get(f"/jobs/{job}").headers["ETag"]
    for known in (etag, "*", '"x"'):
        for of in (job, uuid4()):
            answer = attacker.get(f"/jobs/{of}", headers={"If-None-Match": known})
            assert (answer.status_code, error_code(answer)) == (404, "job_not_found")
            assert "ETag" not in answer.headers


@pytest.mark.parametrize("list_of", ["jobs", "review", "documents"])
def test_no_filter_and_no_cursor_leads_to_another_tenants_rows(stage: Stage, attacker: Person, list_of: str) -> None:
    theirs = [stage.document(), stage.finished_job(), stage.review(), UUID(int=2**128 - 1), UUID(int=0)]
    own = {row["id"] for row in rows_of(attacker, f"/{list_of}")}
    queries = [f"cursor={encode(one.bytes)}" for one in theirs]
    queries += [f"document_id={one}" for one in theirs if list_of != "documents"]
    queries += [f"uploaded_by={stage.play.user}"] if list_of == "documents" else []
    for query in queries:
        answer = attacker.get(f"/{list_of}?{query}")
        assert {row["id"] for row in answer.get_json().get(KEYS[list_of], [])} <= own, query


@pytest.mark.parametrize("relevance", [-(2**31), -1, 0, 2**31 - 1])
def test_a_cursor_made_by_hand_finds_no_document_of_others(stage: Stage, attacker: Person, relevance: int) -> None:
    cursor = encode(struct.pack(">i16s", relevance, stage.document().bytes))
    answer = attacker.get(f"/documents?q=story&order=relevance&cursor={cursor}")
    assert answer.status_code == 200
    own = {row["id"] for row in rows_of(attacker, "/documents")}
    assert {row["id"] for row in answer.get_json()["documents"]} <= own


KEYS = {"jobs": "jobs", "review": "reviews", "documents": "documents"}


def rows_of(person: Person, path: str) -> list[dict[str, Any]]:
    return list(person.get(path).get_json()[KEYS[path[1:]]])


@pytest.mark.parametrize("field", ["tenant_id", "created_by", "user_id", "id", "status", "idempotency_key"])
def test_no_body_says_whose_a_job_is(front: Front, attacker: Person, field: str) -> None:
    answer = attacker.post("/jobs", json={"pipeline": "line", field: str(front.play.tenant)})
    assert (answer.status_code, error_code(answer)) == (422, "request_invalid")


def test_a_user_of_another_tenant_is_as_unknown_as_nobody(front: Front, attacker: Person) -> None:
    theirs = Stage(front).front.person("reviewer").user
    mine = front.play.one("select tenant_id from members where user_id = %s", attacker.user)
    job = front.play.submit("reviewed", tenant_id=mine)
    for work in front.play.begin_all():
        if work["job"] == str(job):
            front.play.complete(work)
    (review,) = rows_of(attacker, "/review")
    answers = [attacker.post(f"/review/{review['id']}/assign", json={"user_id": str(one)}) for one in (theirs, uuid4())]
    assert [error_code(answer) for answer in answers] == ["assignee_cannot_decide"] * 2
    assert answers[0].get_json()["error"]["message"] == answers[1].get_json()["error"]["message"]


# Tenants and keys ----------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["{}", "{{{}}}", "urn:uuid:{}", " {} ", "{}, {}", "{}\x0b", "%7b{}%7d"])
def test_no_spelling_of_another_tenant_gets_in(front: Front, attacker: Person, spelling: str) -> None:
    wanted = spelling.format(front.play.tenant, front.play.tenant)
    answer = attacker.get("/jobs", headers={"X-Tenant-Id": wanted})
    assert (answer.status_code, error_code(answer)) == (404, "tenant_not_found")


def test_a_key_stays_in_its_tenant_though_its_id_became_a_member_elsewhere(front: Front) -> None:
    key = front.key()
    elsewhere = front.play.add_tenant()
    front.join(key.user, elsewhere, "owner")
    assert key.get("/jobs").status_code == 200
    assert error_code(key.get("/jobs", headers={"X-Tenant-Id": str(elsewhere)})) == "tenant_not_found"
    assert error_code(key.get("/keys")) == "role_not_allowed"


# Links ---------------------------------------------------------------------------------------------


def test_a_link_that_was_altered_anywhere_opens_nothing(front: Front, stage: Stage) -> None:
    link = stage.link()
    anybody = front.app.test_client()
    assert anybody.get(f"/api/v1/files/{link}").status_code == 200
    for place in range(0, len(link), 5):
        altered = link[:place] + ("B" if link[place] != "B" else "C") + link[place + 1 :]
        # The last letter of a part carries bits that are not read.
        if altered.rstrip("BC") != link.rstrip("BC"):
            assert anybody.get(f"/api/v1/files/{altered}").status_code == 404, place


def test_a_link_to_send_by_does_not_fetch_and_the_reverse(front: Front, stage: Stage) -> None:
    anybody = front.app.test_client()
    assert error_code(anybody.get(f"/api/v1/files/{stage.upload_link()}")) == "link_invalid"
    assert anybody.put(f"/api/v1/uploads/{stage.link()}", data=b"hello").status_code == 404


def test_what_is_signed_by_another_secret_opens_nothing(front: Front, stage: Stage, tmp_path: Path) -> None:
    guess = {"storage_path": tmp_path, "link_secret": SecretStr("a guess")}
    forger = LocalStorage(front.settings.model_copy(update=guess))
    file = tmp_path / "file"
    file.write_bytes(b"x")
    digest = "0" * 64
    forger.put(front.play.tenant, digest, file)
    link = forger.link(front.play.tenant, digest, "a.txt", "text/plain").rpartition("/")[2]
    assert error_code(front.app.test_client().get(f"/api/v1/files/{link}")) == "link_invalid"


@pytest.mark.parametrize(
    "name",
    ["a\r\nSet-Cookie: b=c.txt", 'a"; filename="b.exe.txt', "../../etc/passwd.txt", "ä\u202etxt.txt", "%0d%0aX: y.txt"],
)
def test_the_name_of_a_file_makes_no_header(front: Front, stage: Stage, name: str) -> None:
    storage = house_of(front.app).storage
    stage.link()
    (path,) = front.stored
    token = storage.link(front.play.tenant, path.name, name, "text/plain").rpartition("/")[2]
    answer = front.app.test_client().get(f"/api/v1/files/{token}")
    assert answer.status_code == 200
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert not {"Set-Cookie", "X"} & set(answer.headers.keys())
