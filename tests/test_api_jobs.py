"""Jobs over HTTP: ten clicks are one job, polling cannot hang, and what is not ours is not there."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from api_play import NEW, Front, Served, error_code, finish_job, new_job_id, submit_job
from waiting import until

from api.house import house_of

# Starting ------------------------------------------------------------------------------------------


def test_a_job_is_accepted_at_once_with_all_that_belongs_to_it(front: Front) -> None:
    response = front.person("editor").post("/jobs", json=NEW)
    job = response.get_json()
    assert response.status_code == 202
    assert response.headers["Location"] == f"/api/v1/jobs/{job['id']}" == job["links"]["self"]
    assert "Idempotent-Replayed" not in response.headers
    assert (job["status"], job["active"], job["terminal"]) == ("queued", True, False)
    assert [(step["name"], step["status"]) for step in job["steps"]] == [
        ("first", "queued"), ("second", "pending"), ("third", "pending"),
    ]  # fmt: skip
    assert job["params"] == {"width": 4, "fail_at": None, "mark": ""}
    assert len(front.play.queue()) == 1
    assert front.play.kinds(UUID(job["id"])) == ["submitted"]
    assert front.play.drift() == []


def test_ten_parallel_equal_requests_make_one_job(front: Front, served: Served) -> None:
    with served.client(front.person()) as client, ThreadPoolExecutor(10) as crowd:
        answers = list(crowd.map(lambda _: client.post("/jobs", json=NEW), range(10)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sorted("Idempotent-Replayed" in answer.headers for answer in answers) == [False] + [True] * 9
    assert front.play.one("select count(*) from jobs") == 1
    assert len(front.play.queue()) == 1


def test_ten_parallel_requests_with_one_key_make_one_job(front: Front, served: Served) -> None:
    key = {"Idempotency-Key": "click-1"}
    body = NEW | {"fresh": True}
    with served.client(front.person()) as client, ThreadPoolExecutor(10) as crowd:
        answers = list(crowd.map(lambda _: client.post("/jobs", json=body, headers=key), range(10)))
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert front.play.one("select count(*) from jobs") == 1


def test_a_key_with_another_request_is_refused_and_names_the_first_job(front: Front) -> None:
    person, key = front.person(), {"Idempotency-Key": "k"}
    first = person.post("/jobs", json=NEW, headers=key).get_json()
    answer = person.post("/jobs", json=NEW | {"params": {"width": 5}}, headers=key)
    assert (answer.status_code, error_code(answer)) == (422, "idempotency_key_reused")
    assert answer.get_json()["error"]["details"] == {"job_id": first["id"]}
    again = person.post("/jobs", json=NEW, headers=key)
    assert (again.get_json()["id"], again.headers["Idempotent-Replayed"]) == (first["id"], "true")


def test_defaults_count_as_given(front: Front) -> None:
    person = front.person()
    first = submit_job(front, person, params={})
    assert submit_job(front, person, params={"width": 3})["id"] == first["id"]


@pytest.mark.parametrize("key", ["", "two words", "x" * 256, "ü"])
def test_a_key_that_is_no_key_is_refused(front: Front, key: str) -> None:
    answer = front.person().post("/jobs", json=NEW, headers={"Idempotency-Key": key})
    assert (answer.status_code, error_code(answer)) == (400, "idempotency_key_invalid")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"pipeline": "there_is_none"}, 422, "unknown_pipeline"),
        ({"pipeline": ""}, 422, "request_invalid"),
        ({}, 422, "request_invalid"),
        ({"pipeline": "line", "colour": "red"}, 422, "request_invalid"),
        ({"pipeline": "line", "document_id": "7"}, 422, "request_invalid"),
        ({"pipeline": "line", "params": []}, 422, "request_invalid"),
        ({"pipeline": "line", "fresh": "yes"}, 422, "request_invalid"),
        ({"pipeline": "line", "params": {"width": -1}}, 422, "params_invalid"),
        ({"pipeline": "line", "params": {"width": "wide"}}, 422, "params_invalid"),
        ({"pipeline": "line", "params": {"depth": 1}}, 422, "params_invalid"),
        ({"pipeline": "reading"}, 422, "document_required"),
        ({"pipeline": "reading", "document_id": str(uuid4())}, 404, "document_not_found"),
    ],
)
def test_a_request_that_cannot_be_a_job_is_refused(front: Front, body: Any, status: int, code: str) -> None:
    answer = front.person().post("/jobs", json=body)
    assert (answer.status_code, error_code(answer)) == (status, code)
    assert answer.get_json()["error"]["message"].endswith(".")
    assert front.play.one("select count(*) from jobs") == 0


def test_a_refusal_of_parameters_says_where_and_why(front: Front) -> None:
    answer = front.person().post("/jobs", json={"pipeline": "line", "params": {"width": 99_999}})
    (problem,) = answer.get_json()["error"]["details"]["problems"]
    assert problem["where"] == "params.width"
    assert "maximum" in problem["message"]


def test_unknown_parameters_are_refused_although_the_pipeline_forgot_to_say_so(front: Front) -> None:
    document = str(front.play.add_document())
    answer = front.person().post("/jobs", json={"pipeline": "reading", "document_id": document, "params": {"x": 1}})
    assert error_code(answer) == "params_invalid"


def test_a_document_of_the_wrong_kind_is_refused(front: Front) -> None:
    document = str(front.play.add_document(kind="pdf"))
    answer = front.person().post("/jobs", json={"pipeline": "reading", "document_id": document})
    assert (answer.status_code, error_code(answer)) == (422, "document_not_accepted")


def test_another_tenants_document_is_not_there(front: Front) -> None:
    theirs = front.play.add_document(tenant=front.play.add_tenant())
    answer = front.person().post("/jobs", json={"pipeline": "reading", "document_id": str(theirs)})
    assert (answer.status_code, error_code(answer)) == (404, "document_not_found")


@pytest.mark.parametrize(
    ("data", "mimetype", "status", "code"),
    [
        (b"{", "application/json", 400, "json_broken"),
        (b"\xff\xfe", "application/json", 400, "json_broken"),
        (b'{"pipeline": NaN}', "application/json", 400, "json_broken"),
        (b'{"pipeline": "line", "params": {"mark": "\\u0000"}}', "application/json", 400, "json_broken"),
        (b'{"pipeline": "line", "params": {"mark": "\\ud800"}}', "application/json", 400, "json_broken"),
        (b"[" * 200_000, "application/json", 400, "json_broken"),
        (b'{"pipeline": ' + b"9" * 5000 + b"}", "application/json", 400, "json_broken"),
        (b'["line"]', "application/json", 422, "request_invalid"),
        (b"", "application/json", 422, "request_invalid"),
        (b"pipeline=line", "application/x-www-form-urlencoded", 415, "media_type_unsupported"),
        (b'{"pipeline": "line"}', "text/plain", 415, "media_type_unsupported"),
        (b" " * (1024 * 1024 + 1), "application/json", 413, "body_too_large"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, str) else None,
)
def test_a_body_that_is_not_a_request_is_refused(
    front: Front, data: bytes, mimetype: str, status: int, code: str
) -> None:
    answer = front.person().post("/jobs", data=data, content_type=mimetype)
    assert (answer.status_code, error_code(answer)) == (status, code)


# Looking -------------------------------------------------------------------------------------------


def test_a_job_tells_how_far_it_is(front: Front) -> None:
    person = front.person()
    job = submit_job(front, person, pipeline="fan", params={"width": 3})["id"]
    front.play.beat(took_from=["llm"])
    (work,) = front.play.begin_all()
    front.play.complete(work, 1, [{"digest": "0" * 64, "value": {"value": n}} for n in range(3)])
    first, _, _ = front.play.begin_all()
    front.play.complete(first, 0)
    seen = person.get(f"/jobs/{job}").get_json()
    assert (seen["status"], seen["stage"], seen["poll_after_ms"], seen["waiting_for"]) == (
        "running", "analyzing", 1000, None,
    )  # fmt: skip
    assert (seen["progress"]["current"], seen["progress"]["total"]) == (1, 3)
    assert 0 < seen["progress"]["percent"] < 100
    counts = [[step[part] for part in ("name", "status", "total", "completed", "running")] for step in seen["steps"]]
    assert counts == [
        ["spread", "completed", 1, 1, 0],
        ["double", "running", 3, 1, 2],
        ["total", "pending", None, 0, 0],
    ]


def test_a_job_says_what_it_waits_for(front: Front) -> None:
    person = front.person()
    job = submit_job(front, person)["id"]
    seen = person.get(f"/jobs/{job}").get_json()
    assert (seen["waiting_for"]["reason"], seen["waiting_for"]["queue"]) == ("no_worker", "llm")
    assert seen["poll_after_ms"] == 5000
    front.play.beat()
    seen = person.get(f"/jobs/{job}").get_json()
    assert (seen["waiting_for"]["reason"], seen["waiting_for"]["ahead"]) == ("queue", 0)
    work = front.play.begin()
    front.play.fail(work, "busy", retry_in=60)
    seen = person.get(f"/jobs/{job}").get_json()
    assert (seen["waiting_for"]["reason"], seen["waiting_for"]["code"]) == ("retry", "busy")
    assert seen["steps"][0]["status"] == "retrying"


def test_a_completed_job_is_terminal_and_asks_for_no_more_polling(front: Front) -> None:
    person = front.person()
    job = submit_job(front, person)["id"]
    finish_job(front.play, job)
    seen = person.get(f"/jobs/{job}").get_json()
    assert (seen["status"], seen["terminal"], seen["active"], seen["poll_after_ms"]) == ("completed", True, False, None)
    assert seen["progress"]["percent"] == 100
    assert (seen["links"]["cancel"], seen["links"]["retry"]) == (None, None)


def test_a_failed_job_gives_code_and_sentence_but_not_the_operators_detail(front: Front) -> None:
    person = front.person()
    job = submit_job(front, person)["id"]
    front.play.fail(front.play.begin(), "too_hard", detail="a secret of the operator")
    answer = person.get(f"/jobs/{job}")
    assert answer.get_json()["error"] == {"code": "too_hard", "message": "It is too_hard."}
    assert answer.get_json()["links"]["retry"] == f"/api/v1/jobs/{job}/retry"
    assert "secret of the operator" not in answer.text + person.get(f"/jobs/{job}/events").text


@pytest.mark.parametrize("path", ["/jobs/{}", "/jobs/{}/events", "/jobs/{}/stream", "/jobs/{}/artifacts"])
def test_an_unknown_job_is_not_found(front: Front, path: str) -> None:
    answer = front.person().get(path.format(new_job_id()))
    assert (answer.status_code, error_code(answer)) == (404, "job_not_found")
    answer = front.person().get(path.format("not-an-id"))
    assert (answer.status_code, error_code(answer)) == (404, "not_found")


def test_a_job_that_looks_stale_is_repaired_before_it_is_returned(front: Front) -> None:
    person = front.person()
    job = UUID(submit_job(front, person)["id"])
    front.play.all("update job_steps set queued_at = now() - interval '1 hour' where job_id = %s returning 1", job)
    assert person.get(f"/jobs/{job}").get_json()["status"] == "queued", "it was written to a moment ago"
    front.play.all("update jobs set updated_at = now() - interval '1 hour' where id = %s returning 1", job)
    seen = person.get(f"/jobs/{job}").get_json()
    assert (seen["status"], seen["error"]["code"], seen["terminal"]) == ("failed", "queue_timeout", True)


# ETag and long poll --------------------------------------------------------------------------------


def test_an_unchanged_job_is_not_sent_again(front: Front) -> None:
    person = front.person()
    path = f"/jobs/{submit_job(front, person)['id']}"
    first = person.get(path)
    again = person.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    front.play.beat()
    changed = person.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != first.headers["ETag"]


def test_a_long_poll_answers_when_the_job_changes(front: Front) -> None:
    person = front.person()
    job = submit_job(front, person)["id"]
    front.play.beat()
    known = person.get(f"/jobs/{job}").headers["ETag"]
    answers: list[Any] = []
    for headers in ({"If-None-Match": known}, {}):
        waiter = threading.Thread(
            target=lambda h=headers: answers.append(person.get(f"/jobs/{job}?wait=20", headers=h))
        )
        waiter.start()
        _until_followed(front)
        assert waiter.is_alive()
        work = front.play.begin()
        waiter.join(10)
        front.play.release(work)
        known = person.get(f"/jobs/{job}").headers["ETag"]
    assert [answer.get_json()["status"] for answer in answers] == ["running", "running"]


def test_a_long_poll_that_knows_less_than_is_there_answers_at_once(front: Front) -> None:
    person = front.person()
    job = submit_job(front, person)["id"]
    answer = person.get(f"/jobs/{job}?wait=20", headers={"If-None-Match": '"old"'})
    assert answer.status_code == 200


def test_a_long_poll_for_a_job_that_is_over_answers_at_once(front: Front) -> None:
    person = front.person()
    job = submit_job(front, person)["id"]
    finish_job(front.play, job)
    first = person.get(f"/jobs/{job}?wait=20")
    assert first.get_json()["terminal"]
    assert person.get(f"/jobs/{job}?wait=20", headers={"If-None-Match": first.headers["ETag"]}).status_code == 304


def test_a_long_poll_ends_without_news(front: Front) -> None:
    person = front.person()
    job = submit_job(front, person)["id"]
    known = person.get(f"/jobs/{job}").headers["ETag"]
    assert person.get(f"/jobs/{job}?wait=1", headers={"If-None-Match": known}).status_code == 304
    assert person.get(f"/jobs/{job}?wait=1").status_code == 200


@pytest.mark.parametrize("query", ["?wait=-1", "?wait=121", "?wait=long", "?wait=1&wait=2", "?weight=1"])
def test_a_query_that_says_nothing_is_refused(front: Front, query: str) -> None:
    person = front.person()
    answer = person.get(f"/jobs/{submit_job(front, person)['id']}{query}")
    assert (answer.status_code, error_code(answer)) == (422, "request_invalid")


def _until_followed(front: Front) -> None:
    until(lambda: house_of(front.app).live.followers == 1)


# Cancel and retry ----------------------------------------------------------------------------------


def test_a_job_is_cancelled_once_and_says_who_and_why(front: Front) -> None:
    person = front.person("editor")
    job = submit_job(front, person)["id"]
    answer = person.post(f"/jobs/{job}/cancel", json={"reason": "Wrong file."})
    assert (answer.status_code, answer.get_json()["status"]) == (200, "cancelled")
    (last,) = person.get(f"/jobs/{job}/events?after=1").get_json()["events"]
    assert (last["kind"], last["actor"], last["message"]) == ("cancelled", str(person.user), "Wrong file.")
    again = person.post(f"/jobs/{job}/cancel")
    assert (again.status_code, error_code(again)) == (409, "job_is_over")
    assert again.get_json()["error"]["details"] == {"status": "cancelled"}


def test_a_failed_job_is_retried_and_no_other(front: Front) -> None:
    person = front.person()
    job = submit_job(front, person)["id"]
    early = person.post(f"/jobs/{job}/retry")
    assert (early.status_code, error_code(early)) == (409, "job_did_not_fail")
    front.play.fail(front.play.begin())
    answer = person.post(f"/jobs/{job}/retry")
    assert (answer.status_code, answer.get_json()["status"]) == (202, "queued")
    finish_job(front.play, job)


@pytest.mark.parametrize("what", ["cancel", "retry"])
def test_an_unknown_job_cannot_be_moved(front: Front, what: str) -> None:
    answer = front.person().post(f"/jobs/{new_job_id()}/{what}")
    assert (answer.status_code, error_code(answer)) == (404, "job_not_found")


def test_connections_that_a_restarting_database_cut_cost_no_request(front: Front) -> None:
    person = front.person()
    for _ in range(3):
        assert person.get("/jobs").status_code == 200
        front.play.all(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"
        )


def test_the_database_away_is_said_and_when_to_come_back(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise psycopg.OperationalError("server closed the connection: secret host name")

    monkeypatch.setattr(house_of(front.app).pool, "connection", away)
    answer = front.person().post("/jobs", json=NEW)
    assert (answer.status_code, error_code(answer)) == (503, "database_unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert "secret" not in answer.text
