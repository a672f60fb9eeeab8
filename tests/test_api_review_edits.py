"""What a reviewer corrects along with an approval, and who is expected to decide."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from api_play import Front, Person, error_code
from ledger_play import Row

FIELDS = {
    "title": "A story",
    "summary": "Somebody keeps the lamps.",
    "keywords": ["lamp", "sea"],
    "categories": {"form": "fiction"},
    "language": "en",
}


def describe(front: Front, document: UUID, **fields: Any) -> None:
    """What a pipeline has found out about a document."""
    told = FIELDS | fields
    front.play.all(
        "update documents set title = %s, summary = %s, keywords = %s, categories = %s::text::jsonb, language = %s"
        " where id = %s returning id",
        told["title"], told["summary"], told["keywords"], '{"form": "fiction"}', told["language"], document,
    )  # fmt: skip


def wait_for_person(front: Front) -> tuple[UUID, UUID, UUID]:
    """A document, its job, which waits for a person, and the review."""
    document = front.play.add_document()
    describe(front, document)
    front.play.all("update pipeline_graphs set accepts = '{txt}' where name = 'reviewed' returning name")
    job = front.play.submit("reviewed", document_id=document, params={})
    front.play.finish_all()
    return document, job, find_review(front, job)


def find_review(front: Front, job: UUID) -> UUID:
    found: UUID = front.play.one("select id from reviews where job_id = %s and status = 'open'", job)
    return found


def approve(person: Person, review: UUID, **body: Any) -> Any:
    return person.post(f"/review/{review}/approve", json=body)


def last_event(front: Front, job: UUID, kind: str) -> Row:
    return [event for event in front.play.events(job) if event["kind"] == kind][-1]


# Edits ---------------------------------------------------------------------------------------------


def test_a_review_shows_the_fields_of_its_document_as_they_stand(front: Front) -> None:
    person = front.person("viewer")
    document, _, review = wait_for_person(front)
    found = person.get(f"/review/{review}").get_json()
    assert (found["fields"], found["edits"]) == (FIELDS, {})
    describe(front, document, summary="Another one.")
    assert person.get(f"/review/{review}").get_json()["fields"]["summary"] == "Another one."


def test_corrections_are_kept_as_a_diff_and_told_to_the_steps_after_the_gate(front: Front) -> None:
    person = front.person("reviewer")
    document, job, review = wait_for_person(front)
    edits = {"title": " The Lamps ", "keywords": ["sea", "lamp"], "categories": {"form": "poem"}, "language": "en"}
    answer = approve(person, review, comment="Better so.", edits=edits)
    diff = {
        "title": {"from": "A story", "to": "The Lamps"},
        "keywords": {"from": ["lamp", "sea"], "to": ["sea", "lamp"]},
        "categories": {"from": {"form": "fiction"}, "to": {"form": "poem"}},
    }
    assert (answer.status_code, answer.get_json()["edits"]) == (200, diff)
    assert person.get(f"/review/{review}").get_json()["edits"] == diff
    event = last_event(front, job, "gate_decided")
    assert (event["actor"], event["data"]["edits"]) == (person.user, diff)
    assert front.play.begin()["inputs"]["approval"]["value"] == {
        "decision": "approved", "comment": "Better so.", "by": str(person.user), "edits": diff,
    }  # fmt: skip
    assert front.play.one("select title from documents where id = %s", document) == "A story"


def test_corrections_that_change_nothing_leave_no_trace(front: Front) -> None:
    person = front.person()
    _, job, review = wait_for_person(front)
    assert approve(person, review, edits=FIELDS).get_json()["edits"] == {}
    assert last_event(front, job, "gate_decided")["data"]["edits"] == {}


def test_null_in_a_correction_is_the_same_as_leaving_the_field_out(front: Front) -> None:
    _, _, review = wait_for_person(front)
    edits = dict.fromkeys(FIELDS) | {"title": "The Lamps"}
    assert approve(front.person(), review, edits=edits).get_json()["edits"] == {
        "title": {"from": "A story", "to": "The Lamps"}
    }


def test_what_stands_in_the_document_at_the_decision_is_what_was_corrected(front: Front) -> None:
    document, _, review = wait_for_person(front)
    describe(front, document, title="Renamed meanwhile", language=None)
    edits = approve(front.person(), review, edits={"title": "Mine", "language": "de-AT"}).get_json()["edits"]
    assert edits == {"title": {"from": "Renamed meanwhile", "to": "Mine"}, "language": {"from": None, "to": "de-AT"}}


def test_a_reviewer_who_says_what_was_seen_does_not_decide_about_something_else(front: Front) -> None:
    person = front.person()
    document, job, review = wait_for_person(front)
    seen = person.get(f"/review/{review}").get_json()["fields"]
    describe(front, document, title="Renamed meanwhile ", language=None)
    answer = approve(person, review, edits={"title": "Mine"}, seen=seen)
    assert (answer.status_code, error_code(answer)) == (409, "document_changed")
    moved = {"title": "Renamed meanwhile ", "language": None}
    assert answer.get_json()["error"]["details"] == {"fields": moved}
    assert front.play.job(job)["status"] == "awaiting_review"
    assert approve(person, review, edits={"title": "Mine"}, seen=moved).status_code == 200


def test_what_was_seen_can_be_said_without_correcting_anything(front: Front) -> None:
    _, _, review = wait_for_person(front)
    person = front.person()
    assert error_code(approve(person, review, seen={"summary": "Something else."})) == "document_changed"
    assert approve(person, review, seen={"summary": FIELDS["summary"]}).status_code == 200


def test_long_corrections_are_cut_in_the_history_and_whole_in_the_review(front: Front) -> None:
    _, job, review = wait_for_person(front)
    long = "Lamps. " * 250
    found = approve(front.person(), review, edits={"summary": long, "title": "T"}).get_json()["edits"]
    assert found["summary"]["to"] == long.strip()
    told = last_event(front, job, "gate_decided")["data"]["edits"]
    assert told["summary"] == {"from": FIELDS["summary"], "to": long[:300] + "…"}
    assert told["title"] == {"from": "A story", "to": "T"}


def test_more_than_fits_into_a_decision_is_refused_and_nothing_is_decided(front: Front) -> None:
    person = front.person()
    _, job, review = wait_for_person(front)
    keywords = [f"{number:02d}" + "灯" * 40 for number in range(100)]
    answer = approve(person, review, edits={"summary": "灯" * 2000, "keywords": keywords})
    assert (answer.status_code, error_code(answer)) == (422, "edits_too_large")
    assert answer.get_json()["error"]["details"]["limit"] == 16384
    assert front.play.job(job)["status"] == "awaiting_review"
    assert approve(person, review, edits={"keywords": keywords}).status_code == 200


@pytest.mark.parametrize(
    "edits",
    [
        {"title": " "}, {"title": "x" * 501}, {"title": 7}, {"summary": "x" * 2001}, {"keywords": ["x"] * 101},
        {"keywords": ["x" * 101]}, {"keywords": [""]}, {"keywords": "lamp"}, {"categories": {"form": 1}},
        {"categories": {"x" * 101: "y"}}, {"categories": {"form": "x" * 101}}, {"categories": {"": "x"}},
        {"categories": {str(number): "x" for number in range(51)}}, {"language": "English please"}, {"language": ""},
        {"language": "x" * 36}, {"filename": "x.txt"}, "title",
    ],
)  # fmt: skip
def test_corrections_out_of_bounds_are_refused(front: Front, edits: Any) -> None:
    assert error_code(approve(front.person(), uuid4(), edits=edits)) == "request_invalid"


def test_without_a_document_there_is_nothing_to_correct(front: Front) -> None:
    person = front.person()
    job = front.play.submit("reviewed")
    front.play.finish_all()
    review = find_review(front, job)
    assert person.get(f"/review/{review}").get_json()["fields"] is None
    answer = approve(person, review, edits={"title": "Mine"})
    assert (answer.status_code, error_code(answer)) == (422, "nothing_to_edit")
    assert approve(person, review, edits={}).status_code == 200


@pytest.mark.parametrize("verb", ["reject", "reprocess"])
def test_only_an_approval_corrects(front: Front, verb: str) -> None:
    body = {"edits": {"title": "Mine"}} | ({"from_step": "draft"} if verb == "reprocess" else {})
    assert error_code(front.person().post(f"/review/{uuid4()}/{verb}", json=body)) == "request_invalid"


# Assignment ----------------------------------------------------------------------------------------


def assign(person: Person, review: UUID, to: UUID | None) -> Any:
    return person.post(f"/review/{review}/assign", json={"user_id": str(to) if to else None})


def inbox(person: Person, query: str) -> list[str]:
    return [row["id"] for row in person.get(f"/review?{query}").get_json()["reviews"]]


def test_assigning_says_who_is_expected_to_decide_and_is_a_line_of_the_history(front: Front) -> None:
    person, other = front.person("editor"), front.person("reviewer")
    _, job, review = wait_for_person(front)
    answer = assign(person, review, other.user)
    assert (answer.status_code, answer.get_json()["assigned_to"]) == (200, str(other.user))
    event = last_event(front, job, "gate_assigned")
    assert (event["actor"], event["step"]) == (person.user, "approval")
    assert (event["data"]["assigned_to"], event["data"]["before"]) == (str(other.user), None)
    assert assign(person, review, other.user).status_code == 200
    assert front.play.kinds(job).count("gate_assigned") == 1, "it was so already"
    assert assign(other, review, None).get_json()["assigned_to"] is None
    assert last_event(front, job, "gate_assigned")["data"]["before"] == str(other.user)
    assert front.play.job(job)["status"] == "awaiting_review"
    assert front.play.drift() == []


def test_the_inbox_shows_mine_those_of_somebody_and_those_of_nobody(front: Front) -> None:
    person, other = front.person("reviewer"), front.person()
    mine, theirs, free = (str(wait_for_person(front)[2]) for _ in range(3))
    assign(other, UUID(mine), person.user)
    assign(other, UUID(theirs), other.user)
    assert inbox(person, "assigned_to=me") == [mine]
    assert inbox(person, f"assigned_to={other.user}") == [theirs]
    assert inbox(person, "assigned_to=none") == [free]
    assert inbox(person, "") == [mine, theirs, free]
    assert error_code(person.get("/review?assigned_to=somebody")) == "request_invalid"
    assert approve(person, UUID(mine)).status_code == 200
    assert inbox(person, "assigned_to=me&status=approved") == [mine]


@pytest.mark.parametrize("role", ["owner", "editor", "reviewer"])
def test_whoever_may_decide_decides_what_is_assigned_to_somebody_else(front: Front, role: str) -> None:
    person, other = front.person(role), front.person()
    _, _, review = wait_for_person(front)
    assign(other, review, other.user)
    found = approve(person, review).get_json()
    assert (found["decided_by"], found["assigned_to"]) == (str(person.user), str(other.user))


def test_a_review_is_assigned_to_members_who_may_decide_and_to_nobody_else(front: Front) -> None:
    person = front.person()
    _, job, review = wait_for_person(front)
    for user in (uuid4(), front.stranger().user, front.person("viewer").user):
        answer = assign(person, review, user)
        assert (answer.status_code, error_code(answer)) == (422, "assignee_cannot_decide")
    for body in ({}, {"user_id": "me"}, {"user_id": str(person.user), "why": "x"}):
        assert error_code(person.post(f"/review/{review}/assign", json=body)) == "request_invalid"
    assert "gate_assigned" not in front.play.kinds(job)


def test_assigning_is_for_those_who_may_decide_in_its_tenant_and_while_it_is_open(front: Front) -> None:
    person = front.person("reviewer")
    _, _, review = wait_for_person(front)
    assert error_code(assign(front.person("viewer"), review, person.user)) == "role_not_allowed"
    assert error_code(assign(front.stranger(), review, None)) == "review_not_found"
    approve(person, review)
    answer = assign(person, review, person.user)
    assert (answer.status_code, error_code(answer)) == (409, "already_decided")
    assert answer.get_json()["error"]["details"]["decided_by"] == str(person.user)


def test_a_gate_that_opens_again_stays_assigned(front: Front) -> None:
    person = front.person("reviewer")
    _, job, review = wait_for_person(front)
    assign(person, review, person.user)
    person.post(f"/review/{review}/reprocess", json={"from_step": "draft"})
    front.play.finish_all()
    again = find_review(front, job)
    assert again != review
    assert inbox(person, "assigned_to=me") == [str(again)]
