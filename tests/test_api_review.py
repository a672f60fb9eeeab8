"""Review over HTTP: the inbox, the three decisions, who may take them, and what happens when two do."""

from __future__ import annotations

import json
import threading
from typing import Any
from uuid import UUID, uuid4

import pytest
from api_play import Front, Person, error_code, new_job_id, submit_job
from ledger_play import Row

from tasks.db import statement


def wait_for_person(front: Front, **request: Any) -> tuple[UUID, UUID]:
    """A job that waits for a person, and its review."""
    job = front.play.submit("reviewed", **request)
    front.play.finish_all()
    return job, front.play.one("select id from reviews where job_id = %s and status = 'open'", job)


def inbox(person: Person, query: str = "") -> list[str]:
    return [row["id"] for row in person.get(f"/review{query}").get_json()["reviews"]]


# The inbox -----------------------------------------------------------------------------------------


def test_a_review_says_what_waits_since_when_and_where_to_look(front: Front) -> None:
    document = front.play.add_document()
    job = front.play.submit("reviewed")
    front.play.all("update jobs set document_id = %s where id = %s returning id", document, job)
    work = front.play.begin()
    files = [{"name": "draft.txt", "media_type": "text/plain", "sha256": "a" * 64, "bytes": 5}]
    front.play.complete(work, 1, artifacts=files)
    (found,) = front.person("viewer").get("/review").get_json()["reviews"]
    told = ("job_id", "pipeline", "step", "status", "document_id", "document_title", "decided_by")
    assert [found[name] for name in told] == [
        str(job), "reviewed", "approval", "open", str(document), "A story", None,
    ]  # fmt: skip
    assert found["opened_at"] < found["expires_at"]
    assert [artifact["name"] for artifact in found["artifacts"]] == ["draft.txt"]
    assert found["links"] == {
        "self": f"/api/v1/review/{found['id']}",
        "job": f"/api/v1/jobs/{job}",
        "artifacts": f"/api/v1/jobs/{job}/artifacts",
        "document": f"/api/v1/documents/{document}",
        "assign": f"/api/v1/review/{found['id']}/assign",
        "approve": f"/api/v1/review/{found['id']}/approve",
        "reject": f"/api/v1/review/{found['id']}/reject",
        "reprocess": f"/api/v1/review/{found['id']}/reprocess",
    }


def test_what_waits_longest_comes_first_page_by_page_while_more_is_added(front: Front) -> None:
    person = front.person()
    made = [str(wait_for_person(front)[1]) for _ in range(4)]
    first = person.get("/review?limit=3").get_json()
    made.append(str(wait_for_person(front)[1]))
    second = person.get(f"/review?limit=3&cursor={first['next_cursor']}").get_json()
    assert [row["id"] for page in (first, second) for row in page["reviews"]] == made
    assert second["next_cursor"] is None


def test_what_was_decided_comes_newest_first_page_by_page(front: Front) -> None:
    person = front.person()
    made = [str(wait_for_person(front)[1]) for _ in range(3)]
    for review in made:
        assert person.post(f"/review/{review}/approve", json={}).status_code == 200
    first = person.get("/review?status=approved&limit=2").get_json()
    second = person.get(f"/review?status=approved&limit=2&cursor={first['next_cursor']}").get_json()
    assert [row["id"] for page in (first, second) for row in page["reviews"]] == made[::-1]
    assert inbox(person) == inbox(person, "?status=rejected") == []


def test_the_inbox_is_filtered_by_pipeline_and_by_document(front: Front) -> None:
    person = front.person()
    document = front.play.add_document()
    front.play.all("update pipeline_graphs set accepts = '{txt}' where name = 'reviewed' returning name")
    _, about = wait_for_person(front, document_id=document, params={})
    _, other = wait_for_person(front)
    assert inbox(person) == [str(about), str(other)]
    assert inbox(person, f"?document_id={document}&pipeline=reviewed") == [str(about)]
    assert inbox(person, f"?document_id={uuid4()}") == inbox(person, "?pipeline=line") == []


@pytest.mark.parametrize(
    ("query", "code"),
    [("status=decided", "request_invalid"), ("document_id=x", "request_invalid"), ("cursor=!", "cursor_invalid")],
)
def test_a_filter_that_cannot_match_is_refused(front: Front, query: str, code: str) -> None:
    assert error_code(front.person().get(f"/review?{query}")) == code


# Deciding ------------------------------------------------------------------------------------------


def test_an_approval_lets_the_job_go_on_and_is_recorded(front: Front) -> None:
    person = front.person("reviewer")
    job, review = wait_for_person(front)
    answer = person.post(f"/review/{review}/approve", json={"comment": "  Very good. "})
    assert answer.status_code == 200
    found = answer.get_json()
    assert (found["status"], found["comment"], found["decided_by"]) == ("approved", "Very good.", str(person.user))
    assert found["decided_at"]
    assert (found["links"]["approve"], found["reprocess_from"]) == (None, [])
    work = front.play.begin()
    assert work["inputs"]["approval"]["value"] == {
        "decision": "approved", "comment": "Very good.", "by": str(person.user), "edits": {},
    }  # fmt: skip
    front.play.complete(work, 1)
    (event,) = [one for one in person.get(f"/jobs/{job}/events").get_json()["events"] if one["kind"] == "gate_decided"]
    assert (event["actor"], event["message"], event["data"]["decision"]) == (
        str(person.user), "Very good.", "approved",
    )  # fmt: skip
    assert front.play.job(job)["status"] == "completed"


def test_a_rejection_fails_the_job_with_the_comment_and_a_retry_asks_again(front: Front) -> None:
    person = front.person()
    job, review = wait_for_person(front)
    assert person.post(f"/review/{review}/reject", json={"comment": "Another book."}).get_json()["status"] == "rejected"
    found = person.get(f"/jobs/{job}").get_json()
    assert (found["status"], found["error"]["code"]) == ("failed", "rejected")
    assert found["error"]["message"] == "A reviewer rejected it: Another book."
    assert found["links"]["review"] is None
    assert person.post(f"/jobs/{job}/retry").status_code == 202
    assert len(inbox(person)) == 1
    assert inbox(person) != [str(review)]


def test_reprocessing_offers_the_steps_that_were_reached_and_opens_the_gate_anew(front: Front) -> None:
    person = front.person("editor")
    job, review = wait_for_person(front)
    assert person.get(f"/review/{review}").get_json()["reprocess_from"] == ["draft"]
    for step, status, code in (
        ("final", 409, "step_not_reached"),
        ("approval", 422, "unknown_step"),
        ("nonsense", 422, "unknown_step"),
    ):
        answer = person.post(f"/review/{review}/reprocess", json={"from_step": step})
        assert (answer.status_code, error_code(answer)) == (status, code)
    assert error_code(person.post(f"/review/{review}/reprocess", json={})) == "request_invalid"
    answer = person.post(f"/review/{review}/reprocess", json={"from_step": "draft", "comment": "Longer."})
    assert answer.get_json()["status"] == "reprocessed"
    assert front.play.statuses(job) == ["queued"]
    front.play.finish_all()
    (again,) = inbox(person)
    assert again != str(review)


def test_every_body_may_be_left_out_but_not_be_wrong(front: Front) -> None:
    person = front.person()
    _, review = wait_for_person(front)
    for body in ({"comment": "x" * 2001}, {"comment": 7}, {"why": "x"}):
        assert error_code(person.post(f"/review/{review}/approve", json=body)) == "request_invalid"
    assert person.post(f"/review/{review}/approve").status_code == 200


@pytest.mark.parametrize("verb", ["approve", "reject", "reprocess"])
def test_who_is_slower_is_told_who_was_faster_what_was_decided_and_when(front: Front, verb: str) -> None:
    fast, slow = front.person(), front.person("reviewer")
    _, review = wait_for_person(front)
    decided = fast.post(f"/review/{review}/approve", json={}).get_json()
    body = {"from_step": "draft"} if verb == "reprocess" else {}
    answer = slow.post(f"/review/{review}/{verb}", json=body)
    assert (answer.status_code, error_code(answer)) == (409, "already_decided")
    details = answer.get_json()["error"]["details"]
    assert (details["status"], details["decided_by"]) == ("approved", str(fast.user))
    assert details["decided_at"][:19] == decided["decided_at"][:19]


def test_of_many_who_decide_at_once_one_wins(front: Front) -> None:
    people = [front.person() for _ in range(6)]
    job, review = wait_for_person(front)
    answers: list[int] = []
    at_once = threading.Barrier(len(people))

    def decide(person: Person, verb: str) -> None:
        at_once.wait(10)
        answers.append(person.post(f"/review/{review}/{verb}", json={}).status_code)

    verbs = ("approve", "reject") * 3
    threads = [threading.Thread(target=decide, args=pair) for pair in zip(people, verbs, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(answers) == [200, 409, 409, 409, 409, 409]
    assert front.play.kinds(job).count("gate_decided") == 1
    assert front.play.drift() == []


def test_an_expired_review_is_decided_already_and_by_nobody(front: Front) -> None:
    person = front.person()
    _, review = wait_for_person(front)
    front.play.all("update reviews set expires_at = now() - interval '1 s' where id = %s returning id", review)
    front.play.reconcile()
    answer = person.post(f"/review/{review}/approve", json={})
    assert (answer.status_code, error_code(answer)) == (409, "already_decided")
    assert answer.get_json()["error"]["details"]["decided_by"] is None
    assert inbox(person, "?status=expired") == [str(review)]


# Who may -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("role", "status"), [("owner", 200), ("editor", 200), ("reviewer", 200), ("viewer", 403)])
@pytest.mark.parametrize("verb", ["approve", "reject", "reprocess"])
def test_viewers_look_and_all_others_decide(front: Front, role: str, status: int, verb: str) -> None:
    person = front.person(role)
    job, review = wait_for_person(front)
    body = {"from_step": "draft"} if verb == "reprocess" else {}
    answer = person.post(f"/review/{review}/{verb}", json=body)
    assert answer.status_code == status
    if status == 403:
        assert error_code(answer) == "role_not_allowed"
        assert answer.get_json()["error"]["details"] == {"role": role, "allowed": ["owner", "editor", "reviewer"]}
        assert front.play.job(job)["status"] == "awaiting_review"
    assert person.get(f"/review/{review}").status_code == 200


def test_a_reviewer_may_decide_and_still_not_start_or_stop_work(front: Front) -> None:
    person = front.person("reviewer")
    job, _ = wait_for_person(front)
    for path, body in ((f"/jobs/{job}/cancel", {}), ("/jobs", {"pipeline": "line"})):
        assert error_code(person.post(path, json=body)) == "role_not_allowed"


def test_what_belongs_to_others_is_not_found(front: Front) -> None:
    stranger = front.stranger()
    job, review = wait_for_person(front)
    assert inbox(stranger) == []
    assert error_code(stranger.get(f"/review/{review}")) == "review_not_found"
    for verb, body in (("approve", {}), ("reject", {}), ("reprocess", {"from_step": "draft"})):
        answer = stranger.post(f"/review/{review}/{verb}", json=body)
        assert (answer.status_code, error_code(answer)) == (404, "review_not_found")
    assert front.play.job(job)["status"] == "awaiting_review"
    assert error_code(front.person().get(f"/review/{uuid4()}")) == "review_not_found"


# Jobs ----------------------------------------------------------------------------------------------


def test_a_job_that_waits_for_a_person_leads_to_its_review(front: Front) -> None:
    person = front.person()
    job = submit_job(front, person, pipeline="reviewed")
    assert job["links"]["review"] is None
    front.play.finish_all()
    found = person.get(f"/jobs/{job['id']}").get_json()
    assert (found["status"], found["waiting_for"]["reason"]) == ("awaiting_review", "review")
    assert person.get(found["links"]["review"]).get_json()["job_id"] == job["id"]
    (listed,) = person.get("/jobs").get_json()["jobs"]
    assert listed["links"]["review"] == found["links"]["review"]
    person.post(f"{found['links']['review']}/approve", json={})
    assert person.get(f"/jobs/{job['id']}").get_json()["links"]["review"] is None


def test_a_job_with_a_deadline_says_it_and_fails_when_it_has_passed(front: Front) -> None:
    person = front.person()
    job = submit_job(front, person, pipeline="reviewed", deadline_s=60.5)
    assert job["created_at"] < job["deadline_at"]
    assert submit_job(front, person)["deadline_at"] is None
    front.play.finish_all()
    (review,) = inbox(person)
    front.play.pass_time(61)
    front.play.reconcile()
    front.play.pass_time(0)
    found = person.get(f"/jobs/{job['id']}").get_json()
    assert (found["status"], found["error"]["code"]) == ("failed", "deadline_exceeded")
    assert person.get(f"/review/{review}").get_json()["status"] == "withdrawn"


def test_an_equal_request_with_another_deadline_finds_the_job_with_its_own(front: Front) -> None:
    person = front.person()
    first = submit_job(front, person, deadline_s=60)
    second = submit_job(front, person, deadline_s=3600)
    assert (second["id"], second["deadline_at"]) == (first["id"], first["deadline_at"])


@pytest.mark.parametrize("deadline", [0, 0.5, -1, 30 * 86_400 + 1, "60", True, 1e400])
def test_a_deadline_out_of_bounds_is_refused(front: Front, deadline: Any) -> None:
    answer = front.person().post("/jobs", json={"pipeline": "line", "deadline_s": deadline})
    assert error_code(answer) in ("request_invalid", "json_broken")


# All of a document's jobs ----------------------------------------------------------------------------


def test_cancelling_a_document_stops_its_live_jobs_and_no_others(front: Front) -> None:
    person = front.person("editor")
    document = front.play.add_document()
    live = [front.play.submit("reading", document_id=document, params={}, fresh=fresh) for fresh in (True, False)]
    other = front.play.submit("line")
    answer = person.post(f"/documents/{document}/cancel", json={"reason": "Wrong file."})
    assert (answer.status_code, answer.get_json()) == (200, {"stopped": 2})
    assert [front.play.job(job)["status"] for job in (*live, other)] == ["cancelled", "cancelled", "queued"]
    (last,) = front.play.events(live[0])[-1:]
    assert (last["kind"], last["message"], last["actor"]) == ("cancelled", "Wrong file.", person.user)
    assert person.post(f"/documents/{document}/cancel").get_json() == {"stopped": 0}


def test_cancelling_a_document_is_for_those_who_may_stop_work_in_its_tenant(front: Front) -> None:
    document = front.play.add_document()
    job = front.play.submit("reading", document_id=document, params={})
    assert error_code(front.person("reviewer").post(f"/documents/{document}/cancel")) == "role_not_allowed"
    assert error_code(front.stranger().post(f"/documents/{document}/cancel")) == "document_not_found"
    assert error_code(front.person().post(f"/documents/{new_job_id()}/cancel")) == "document_not_found"
    assert front.play.job(job)["status"] == "queued"


# Indexes -------------------------------------------------------------------------------------------


def fill(front: Front) -> Row:
    """Many jobs of fifty tenants with a review each, most of them decided. Returns what to look for."""
    connection = front.play.connection
    connection.execute("insert into tenants (id, name) select ledger.uuid7(), 'T' from generate_series(1, 50)")
    connection.execute(
        "insert into jobs (id, tenant_id, pipeline, graph, status, finished_at, total_weight, payload_digest,"
        " created_at, updated_at) select ledger.uuid7(), t.id, case when mod(n, 240) = 0 then 'rare' else 'line' end,"
        " p.graph, 'completed', now(), 1, '', now(), now() from tenants t, pipelines p, generate_series(1, 480) n"
        " where p.name = 'line'"
    )
    connection.execute(
        "insert into reviews (job_id, tenant_id, pipeline, document_id, step, step_run, status, opened_at, decided_at,"
        " assigned_to)"
        " select j.id, j.tenant_id, j.pipeline, gen_random_uuid(), 'approval', gen_random_uuid(), s.status, now(),"
        " case when s.status <> 'open' then now() end, case when mod(j.nr, 3) > 0 then gen_random_uuid() end"
        " from (select *, row_number() over () as nr from jobs) j,"
        " lateral (select case when mod(j.nr, 20) = 0 then 'open' else 'approved' end as status) s"
    )
    connection.execute("analyze reviews")
    connection.execute("analyze jobs")
    return front.play.all("select tenant_id, document_id from reviews limit 1")[0]


def test_reviews_are_read_from_an_index(front: Front) -> None:
    known = fill(front)
    every = {"tenant_id": known["tenant_id"], "most": 51, "most_artifacts": 20, "last": None}
    every |= {"pipeline": None, "document_id": None, "assigned_to": None, "unassigned": False}
    for status in ("open", "approved"):
        for index, narrowed in (
            ("reviews_by_tenant", {}),
            ("reviews_by_pipeline", {"pipeline": "rare"}),
            ("reviews_by_document", {"document_id": known["document_id"]}),
            ("reviews_by_assignee", {"assigned_to": uuid4()}),
        ):
            plan = explain(front, "api_reviews", every | {"status": status} | narrowed)
            assert f"using {index} " in plan or f"on {index} " in plan, plan
            assert [table for table in ("reviews", "documents", "artifacts") if f"Seq Scan on {table}" in plan] == []
    one = explain(front, "api_review", every | {"review_id": uuid4()})
    assert "using reviews_pkey " in one, one


def explain(front: Front, name: str, asked: dict[str, Any]) -> str:
    with front.play.connection.transaction():
        claims = json.dumps({"sub": str(front.play.user), "role": "authenticated"})
        front.play.connection.execute(statement("act_as_user"), {"claims": claims})
        # Tables that are empty here are large in life.
        front.play.connection.execute("set local enable_seqscan = off")
        rows = front.play.connection.execute("explain " + statement(name), asked).fetchall()
    return "\n".join(row["QUERY PLAN"] for row in rows)
