"""Lists over HTTP: pages neither skip nor repeat, and each is read from an index."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest
from api_play import Front, error_code, submit_job

from tasks.db import statement


def test_lists_are_paged_without_gap_or_repeat_while_jobs_are_added(front: Front) -> None:
    person = front.person()
    made = [submit_job(front, person, params={"width": n})["id"] for n in range(5)]
    first = person.get("/jobs?limit=2").get_json()
    submit_job(front, person, params={"width": 9})
    second = person.get(f"/jobs?limit=2&cursor={first['next_cursor']}").get_json()
    third = person.get(f"/jobs?limit=2&cursor={second['next_cursor']}").get_json()
    assert [job["id"] for page in (first, second, third) for job in page["jobs"]] == made[::-1]
    assert third["next_cursor"] is None


def test_lists_are_filtered(front: Front) -> None:
    person = front.person()
    document = str(front.play.add_document())
    line = submit_job(front, person)["id"]
    reading = submit_job(front, person, pipeline="reading", document_id=document, params={})["id"]
    person.post(f"/jobs/{line}/cancel")

    def listed(query: str) -> list[str]:
        return [job["id"] for job in person.get(f"/jobs?{query}").get_json()["jobs"]]

    assert listed("status=cancelled") == [line]
    assert listed("status=queued") == [reading]
    assert listed("pipeline=line") == [line]
    assert listed(f"document_id={document}") == [reading]
    assert listed(f"document_id={document}&status=failed") == []


@pytest.mark.parametrize("query", ["cursor=nonsense", "cursor=!!!", "cursor=AAAA"])
def test_a_cursor_from_elsewhere_is_refused(front: Front, query: str) -> None:
    answer = front.person().get(f"/jobs?{query}")
    assert (answer.status_code, error_code(answer)) == (400, "cursor_invalid")


@pytest.mark.parametrize("query", ["status=asleep", "limit=0", "limit=201", "document_id=7"])
def test_a_filter_that_cannot_match_is_refused(front: Front, query: str) -> None:
    answer = front.person().get(f"/jobs?{query}")
    assert (answer.status_code, error_code(answer)) == (422, "request_invalid")


@pytest.mark.parametrize(
    ("given", "index"),
    [
        ({}, "jobs_by_tenant"),
        ({"before": str(uuid4())}, "jobs_by_tenant"),
        ({"status": "failed"}, "jobs_ended"),
        ({"status": "running"}, "jobs_live"),
        ({"document_id": str(uuid4())}, "jobs_by_document"),
        ({"batch_id": str(uuid4())}, "jobs_by_batch"),
    ],
    ids=["all", "a later page", "of the ended", "of the live", "by document", "by batch"],
)
def test_lists_walk_an_index_and_never_the_table(front: Front, given: dict[str, str], index: str) -> None:
    asked = dict.fromkeys(["before", "status", "pipeline", "document_id", "batch_id"]) | {"most": 51} | given
    asked |= {"tenant_id": front.play.tenant}
    front.play.connection.execute(
        "insert into tenants (id, name) select ledger.uuid7(), 'T' from generate_series(1, 50)"
    )
    front.play.connection.execute(
        "insert into jobs (id, tenant_id, pipeline, graph, status, error_code, error_message, finished_at,"
        " total_weight, payload_digest, created_at, updated_at) select ledger.uuid7(), t.id, 'line', p.graph,"
        " case when mod(n, 50) = 0 then 'failed' else 'completed' end, case when mod(n, 50) = 0 then 'x' end,"
        " case when mod(n, 50) = 0 then 'x' end, now(), 1, '', now(), now()"
        " from tenants t, pipelines p, generate_series(1, 400) n where p.name = 'line'"
    )
    front.play.connection.execute("analyze jobs")
    with front.play.connection.transaction():
        claims = json.dumps({"sub": str(front.play.user), "role": "authenticated"})
        front.play.connection.execute(statement("act_as_user"), {"claims": claims})
        plan = front.play.connection.execute("explain " + statement("api_jobs"), asked).fetchall()
    lines = "\n".join(row["QUERY PLAN"] for row in plan)
    assert f"using {index} " in lines or f"on {index} " in lines, lines
    assert "Seq Scan on jobs" not in lines
