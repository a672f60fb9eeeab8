"""Finding documents over HTTP: by words, by filters, page by page; and never another tenant's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from api_play import Front, Person, error_code
from psycopg.types.json import Jsonb

from tasks import ledger


def add(front: Front, title: str, tenant: Any = None, **known: Any) -> str:
    """A document of which something is known. `known`: columns, and `text`."""
    id = ledger.new_id()
    text = known.pop("text", None)
    row = {"id": id, "tenant_id": tenant or front.play.tenant, "user_id": known.pop("uploaded_by", None)}
    row |= {"title": title, "filename": known.pop("filename", "a.txt"), "kind": known.pop("kind", "txt")}
    ledger.add_document(
        front.play.connection, row | {"media_type": "text/plain", "bytes": 1, "sha256": uuid4().hex * 2}
    )
    told = {"summary": "", "keywords": [], "categories": Jsonb(known.pop("categories", {}))} | known
    front.play.connection.execute(
        "update documents set summary = %(summary)s, keywords = %(keywords)s, categories = %(categories)s"
        " where id = %(id)s",
        told | {"id": id},
    )
    if text is not None:
        front.play.all("select ledger.index_document(d, %s)::text from documents d where id = %s", text, id)
    return str(id)


def found(person: Person, **query: Any) -> list[str]:
    answer = person.get("/documents", query_string=query)
    assert answer.status_code == 200, answer.get_json()
    return [one["title"] for one in answer.get_json()["documents"]]


@pytest.fixture
def library(front: Front) -> Person:
    """Somebody with a few documents; a stranger has the same words."""
    add(
        front,
        "The Lamplighter's Ledger",
        filename="lamp_story-v2.docx",
        kind="docx",
        keywords=["Lamp", "Ferry"],
        categories={"form": "Fiction", "length": "novelette"},
        text="Maren rowed over the grey harbour at dawn.",
    )
    add(front, "Tide tables", summary="A list of tides for the grey harbour.", categories={"form": "non-fiction"})
    add(front, "Ärger im Übermaß", text="Der Leuchtturm steht noch. It's O'Brien's \\ and 'quoted' words.")
    add(front, "Maren's notes", keywords=["c:form=fiction", "it's"])
    add(front, "The Lamplighter of another", tenant=front.play.add_tenant(), text="Maren harbour", keywords=["Lamp"])
    return front.person()


@pytest.mark.parametrize(
    ("words", "titles"),
    [
        ("lamplighter", ["The Lamplighter's Ledger"]),
        ("v2", ["The Lamplighter's Ledger"]),
        ("HARBOUR", ["Tide tables", "The Lamplighter's Ledger"]),
        ("maren", ["Maren's notes", "The Lamplighter's Ledger"]),
        ("lamplighter harbour", ["The Lamplighter's Ledger"]),
        ("ferry dawn", ["The Lamplighter's Ledger"]),
        ('"grey harbour at"', ["The Lamplighter's Ledger"]),
        ('"harbour grey"', []),
        ("harbour -maren", ["Tide tables"]),
        ("tables or dawn", ["Tide tables", "The Lamplighter's Ledger"]),
        ("übermaß", ["Ärger im Übermaß"]),
        ("leuchtturm", ["Ärger im Übermaß"]),
        ("o'brien", ["Ärger im Übermaß"]),
        ("novelette", ["The Lamplighter's Ledger"]),
        ("nowhere", []),
        ("!!! ...", []),
        ("t:00000000-0000-0000-0000-000000000000", []),
        ("' \\ ) & | ! <->", []),
    ],
)
def test_documents_are_found_by_their_words(library: Person, words: str, titles: list[str]) -> None:
    assert found(library, q=words) == titles


@pytest.mark.parametrize(
    ("query", "titles"),
    [
        ({"keyword": "lamp"}, ["The Lamplighter's Ledger"]),
        ({"keyword": "lam"}, []),
        ({"keyword": "IT'S"}, ["Maren's notes"]),
        ({"category": "form=fiction"}, ["The Lamplighter's Ledger"]),
        ({"category": "Form=Non-Fiction"}, ["Tide tables"]),
        ({"category": "form=fiction", "keyword": "ferry"}, ["The Lamplighter's Ledger"]),
        ({"category": "form=fiction", "keyword": "it's"}, []),
        ({"category": "form=fiction", "q": "harbour"}, ["The Lamplighter's Ledger"]),
        ({"kind": "docx"}, ["The Lamplighter's Ledger"]),
        ({"kind": "docx", "q": "maren"}, ["The Lamplighter's Ledger"]),
        ({"status": "finalised"}, []),
        ({"uploaded_by": str(UUID(int=9))}, []),
        ({"q": "maren", "order": "newest"}, ["Maren's notes", "The Lamplighter's Ledger"]),
        ({"order": "relevance", "kind": "docx"}, ["The Lamplighter's Ledger"]),
    ],
    ids=str,
)
def test_documents_are_narrowed_down(library: Person, query: dict[str, str], titles: list[str]) -> None:
    assert found(library, **query) == titles


def test_documents_are_narrowed_down_by_who_and_when(front: Front) -> None:
    person, other = front.person(), front.person()
    add(front, "Mine", uploaded_by=person.user)
    add(front, "Theirs", uploaded_by=other.user)
    assert found(person, uploaded_by=str(person.user)) == ["Mine"]
    front.play.connection.execute(
        "update documents set created_at = created_at - interval '5 minutes' where title = 'Mine'"
    )
    between = (datetime.now(UTC) - timedelta(minutes=2)).isoformat()
    assert found(person, created_after=between) == ["Theirs"]
    assert found(person, created_before=between) == ["Mine"]
    assert found(person, created_before=between, q="mine") == ["Mine"]
    assert found(person, created_after=between, q="mine") == []


@pytest.mark.parametrize(
    "query",
    [
        {"q": ""}, {"q": " "}, {"q": "x" * 201}, {"q": "a\0b"}, {"keyword": "\0"}, {"category": "form"},
        {"category": "=x"}, {"kind": "P D F"}, {"status": "asleep"}, {"created_after": "yesterday"},
        {"created_after": "2026-01-01T00:00:00"}, {"order": "size"}, {"uploaded_by": "7"}, {"title": "x"},
    ],
    ids=str,
)  # fmt: skip
def test_a_question_that_makes_no_sense_is_refused(front: Front, query: dict[str, str]) -> None:
    answer = front.person().get("/documents", query_string=query)
    assert (answer.status_code, error_code(answer)) == (422, "request_invalid")


@pytest.mark.parametrize("order", ["relevance", "newest"])
def test_pages_of_what_is_found_neither_skip_nor_repeat(front: Front, order: str) -> None:
    person = front.person()
    for number in range(11):
        add(front, f"Harbour {number}", summary="harbour " * (number % 3), text="harbour")
    whole = found(person, q="harbour", order=order)
    assert (len(whole), len(set(whole))) == (11, 11)
    paged: list[str] = []
    query: dict[str, Any] = {"q": "harbour", "order": order, "limit": 2}
    while True:
        page = person.get("/documents", query_string=query).get_json()
        paged += [one["title"] for one in page["documents"]]
        add(front, "Later, about no port")
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert paged == whole
    other = "newest" if order == "relevance" else "relevance"
    answer = person.get("/documents", query_string=query | {"order": other})
    assert error_code(answer) == "cursor_invalid"


def test_what_is_known_is_shown_and_the_answer_is_tagged(front: Front) -> None:
    person = front.person()
    id = add(front, "Told", summary="Short.", keywords=["k"], categories={"form": "fiction"})
    (listed,) = person.get("/documents").get_json()["documents"]
    assert (listed["summary"], listed["keywords"], listed["categories"]) == ("Short.", ["k"], {"form": "fiction"})
    answer = person.get(f"/documents/{id}")
    assert (answer.get_json()["metadata"], answer.get_json()["last_job"]) == ({}, None)
    same = person.get(f"/documents/{id}", headers={"If-None-Match": answer.headers["ETag"]})
    assert (same.status_code, same.data) == (304, b"")
    for _ in range(2):
        last = person.post("/jobs", json={"pipeline": "reading", "document_id": id, "params": {}, "fresh": True})
        person.post(f"/jobs/{last.get_json()['id']}/cancel")
    changed = person.get(f"/documents/{id}", headers={"If-None-Match": answer.headers["ETag"]})
    assert changed.status_code == 200
    job = changed.get_json()["last_job"]
    assert (job["id"], job["pipeline"], job["status"], job["terminal"]) == (
        last.get_json()["id"], "reading", "cancelled", True,
    )  # fmt: skip
    assert person.get(job["links"]["self"]).status_code == 200
