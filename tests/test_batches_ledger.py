"""Batches at the ledger: each item becomes a job exactly once, a chunk and a transaction at a time."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from ledger_play import Play, Row, refused
from psycopg.types.json import Jsonb

from tasks import batches, ledger


def marked(count: int, first: int = 0) -> list[Row]:
    """Items that differ."""
    return [{"params": {"mark": str(number)}} for number in range(first, first + count)]


def take_in(play: Play, most: int = 200, paths: int = 16, worker: UUID | None = None) -> Row:
    (row,) = play.all("select * from ledger.take_in(%s, 30, %s, %s)", worker or play.worker, most, paths)
    return row


def items_of(play: Play, batch: UUID) -> list[Row]:
    return play.all("select * from batch_items where batch_id = %s order by nr", batch)


def outcomes(play: Play, batch: UUID) -> list[str]:
    return [item["outcome"] for item in items_of(play, batch)]


def batch_of(play: Play, batch: UUID) -> Row:
    (row,) = play.all("select * from batches where id = %s", batch)
    return row


def admit(play: Play, batch: UUID, nr: int, content: str = "a") -> str | None:
    document = {"id": str(ledger.new_id()), "title": "A", "filename": "a.txt", "kind": "txt"}
    document |= {"media_type": "text/plain", "bytes": 1, "sha256": content * 64}
    outcome: str | None = play.one("select ledger.admit_path(%s, %s, %s)", batch, nr, Jsonb(document))
    return outcome


def test_items_become_jobs_of_the_batch_chunk_by_chunk(play: Play) -> None:
    batch = play.add_batch(*marked(5))
    assert take_in(play, most=2)["next_in"] <= 0
    assert outcomes(play, batch) == ["created", "created", "waiting", "waiting", "waiting"]
    take_in(play, most=2)
    assert take_in(play, most=2)["next_in"] is None
    assert batch_of(play, batch)["due_at"] is None
    jobs = play.all("select id, batch_id, created_by from jobs order by id")
    assert {(job["batch_id"], job["created_by"]) for job in jobs} == {(batch, play.user)}
    assert [item["job_id"] for item in items_of(play, batch)] == [job["id"] for job in jobs]
    assert play.drift() == []


def test_a_job_that_is_submitted_otherwise_belongs_to_no_batch(play: Play) -> None:
    play.add_batch(*marked(1))
    take_in(play)
    assert play.job(play.submit("line"))["batch_id"] is None


def test_equal_items_are_duplicates_of_one_job(play: Play) -> None:
    before = play.submit("line", params={"mark": "0"})
    batch = play.add_batch(*marked(2), *marked(2))
    take_in(play)
    assert outcomes(play, batch) == ["duplicate", "created", "duplicate", "duplicate"]
    jobs = [item["job_id"] for item in items_of(play, batch)]
    assert jobs == [before, jobs[1], before, jobs[1]]


def test_a_key_finds_its_job_and_refuses_another_request(play: Play) -> None:
    first = play.add_batch({"key": "k", "params": {"mark": "1"}})
    second = play.add_batch({"key": "k", "params": {"mark": "1"}}, {"key": "k", "params": {"mark": "2"}})
    take_in(play)
    take_in(play)
    assert (outcomes(play, first), outcomes(play, second)) == (["created"], ["duplicate", "refused"])
    assert items_of(play, second)[1]["code"] == "idempotency_key_reused"


def test_what_cannot_be_a_job_is_refused_and_the_others_are_not(play: Play) -> None:
    document = play.add_document()
    batch = play.add_batch({"document_id": uuid4()}, {"document_id": document}, {}, pipeline="reading")
    take_in(play)
    items = items_of(play, batch)
    assert [item["outcome"] for item in items] == ["refused", "created", "refused"]
    assert [item["code"] for item in items] == ["document_not_found", None, "document_required"]
    assert all(item["message"].endswith(".") for item in items if item["message"])


def test_a_document_of_another_tenant_is_not_there(play: Play) -> None:
    theirs = play.add_document(tenant=play.add_tenant())
    batch = play.add_batch({"document_id": theirs}, pipeline="reading")
    take_in(play)
    assert items_of(play, batch)[0]["code"] == "document_not_found"


def test_a_limit_makes_items_wait_and_refuses_none(play: Play) -> None:
    play.connection.execute(
        "create function pg_temp.at_the_brim() returns trigger language plpgsql as $$ begin"
        " if (select count(*) from jobs) >= 2 then perform ledger.refuse(429, 'too_many_jobs', 'Full.'); end if;"
        " return new; end $$"
    )
    play.connection.execute(
        "create trigger brim before insert on jobs for each row execute function pg_temp.at_the_brim()"
    )
    batch = play.add_batch(*marked(4))
    assert 4 < take_in(play)["next_in"] <= 5
    assert outcomes(play, batch) == ["created", "created", "waiting", "waiting"]
    assert take_in(play)["batch"] is None, "it is left alone for a while"
    play.connection.execute("drop trigger brim on jobs")
    play.pass_time(6)
    take_in(play)
    assert outcomes(play, batch) == ["created"] * 4


def test_an_item_that_cannot_be_stored_does_not_hold_up_the_others(play: Play) -> None:
    play.connection.execute("alter table jobs add check (params ->> 'mark' is distinct from '1')")
    batch = play.add_batch(*marked(3))
    take_in(play)
    assert outcomes(play, batch) == ["created", "refused", "created"]
    assert items_of(play, batch)[1]["code"] == "internal_error"


def test_batches_take_turns(play: Play) -> None:
    large, small = play.add_batch(*marked(50)), play.add_batch(*marked(2, first=50))
    for _ in range(3):
        take_in(play, most=5)
    assert outcomes(play, small) == ["created"] * 2
    assert outcomes(play, large).count("created") == 10


def test_a_chunk_of_one_batch_is_taken_by_one_worker_at_a_time(real_play: Play, database_url: str) -> None:
    real_play.add_batch(*marked(4))
    with psycopg.connect(database_url, row_factory=psycopg.rows.dict_row) as other:
        assert take_in(real_play.on(other), most=2)["batch"] is not None
        assert take_in(real_play)["batch"] is None
        other.rollback()
    assert take_in(real_play)["batch"] is not None
    assert real_play.one("select count(*) from jobs") == 4


def test_one_job_of_another_tenant_is_not_behind_the_batch(play: Play) -> None:
    play.add_batch(*marked(300))
    while take_in(play)["batch"]:
        pass
    theirs = play.submit("line", tenant_id=play.add_tenant())
    first = [work["job"] for work in play.begin_all(3)]
    assert str(theirs) in map(str, first)


# Paths ---------------------------------------------------------------------------------------------


def test_paths_are_given_to_one_live_worker_and_again_when_it_dies(play: Play) -> None:
    play.add_batch(*({"path": f"{n}.txt"} for n in range(3)), pipeline="reading")
    other = uuid4()
    play.beat()
    play.beat(worker=other)
    assert [item["path"] for item in take_in(play, paths=2)["claimed"]] == ["0.txt", "1.txt"]
    assert [item["path"] for item in take_in(play, worker=other)["claimed"]] == ["2.txt"]
    assert take_in(play, worker=uuid4())["claimed"] == []
    play.pass_time(31)
    play.beat(worker=other)
    assert [item["nr"] for item in take_in(play, worker=other)["claimed"]] == [1, 2, 3]


def test_what_lay_at_a_path_becomes_a_document_and_a_job(play: Play) -> None:
    batch = play.add_batch({"path": "a.txt"}, pipeline="reading")
    take_in(play)
    assert admit(play, batch, 1) == "created"
    (item,) = items_of(play, batch)
    assert play.job(item["job_id"])["document_id"] == item["document_id"]
    assert play.job(item["job_id"])["batch_id"] == batch
    assert play.one("select uploaded_by from documents") == play.user
    assert admit(play, batch, 1) is None, "it was written down before"
    take_in(play)
    assert batch_of(play, batch)["due_at"] is None or take_in(play)["batch"] is None


def test_the_same_content_is_the_same_document_and_a_duplicate(play: Play) -> None:
    batch = play.add_batch({"path": "a.txt"}, {"path": "b.txt"}, pipeline="reading")
    take_in(play)
    assert [admit(play, batch, nr) for nr in (1, 2)] == ["created", "duplicate"]
    assert play.one("select count(*) from documents") == 1


def test_a_refused_path_leaves_no_document(play: Play) -> None:
    batch = play.add_batch({"path": "a.txt", "key": "k"}, pipeline="reading")
    play.submit("line", idempotency_key="k")
    take_in(play)
    assert admit(play, batch, 1) == "refused"
    assert play.one("select count(*) from documents") == 0
    assert items_of(play, batch)[0]["document_id"] is None


def test_a_tenant_that_is_full_makes_paths_wait(play: Play) -> None:
    batch = play.add_batch({"path": "a.txt"}, pipeline="reading")
    take_in(play)
    play.connection.execute("insert into tenant_limits (tenant_id, stored_bytes) values (%s, 0)", [play.tenant])
    assert admit(play, batch, 1) == "full"
    assert outcomes(play, batch) == ["waiting"]
    play.connection.execute("delete from tenant_limits")
    assert admit(play, batch, 1) == "created"


# What is asked of all ------------------------------------------------------------------------------


def test_cancelling_refuses_what_waits_and_stops_what_is_live(play: Play) -> None:
    batch = play.add_batch(*marked(6))
    take_in(play, most=4)
    play.finish_all()
    done = play.one("select count(*) from jobs where status = 'completed'")
    take_in(play, most=1)
    batches.cancel_batch(play.connection, batch, play.tenant, play.user, "Wrong folder.")
    while take_in(play, most=2)["batch"]:
        pass
    assert outcomes(play, batch) == ["created"] * 5 + ["refused"]
    assert items_of(play, batch)[5]["code"] == "batch_cancelled"
    statuses = [row["status"] for row in play.all("select status from jobs order by id")]
    assert statuses == ["completed"] * done + ["cancelled"]
    assert play.events(items_of(play, batch)[4]["job_id"])[-1]["actor"] == play.user
    with refused(play.connection, "batch_is_over", 409):
        batches.cancel_batch(play.connection, batch, play.tenant, play.user)
    assert play.drift() == []


def test_retrying_reopens_the_failed_jobs_and_no_others(play: Play) -> None:
    batch = play.add_batch(*marked(5))
    take_in(play)
    works = play.begin_all(3)
    for work in works:
        play.fail(work)
    batches.retry_batch(play.connection, batch, play.tenant, play.user)
    while take_in(play, most=2)["batch"]:
        pass
    assert play.one("select count(*) from jobs where status = 'failed'") == 0
    assert play.one("select count(*) from job_events where kind = 'reopened'") == 3
    with refused(play.connection, "nothing_failed", 409):
        batches.retry_batch(play.connection, batch, play.tenant, play.user)


@pytest.mark.parametrize("ask", [batches.cancel_batch, batches.retry_batch])
def test_what_is_another_tenants_is_not_there(play: Play, ask: Any) -> None:
    batch = play.add_batch(*marked(1))
    with refused(play.connection, "batch_not_found", 404):
        ask(play.connection, batch, play.add_tenant(), play.user)


def test_a_batch_that_is_over_cannot_be_cancelled(play: Play) -> None:
    batch = play.add_batch(*marked(1))
    take_in(play)
    play.finish_all()
    with refused(play.connection, "batch_is_over", 409):
        batches.cancel_batch(play.connection, batch, play.tenant, play.user)


def test_a_key_finds_its_batch_and_refuses_another_body(play: Play) -> None:
    batch = play.add_batch(*marked(1), key="b")
    assert batches.find_batch(play.connection, play.tenant, "b", "digest") == batch
    assert batches.find_batch(play.connection, play.tenant, "c", "digest") is None
    with refused(play.connection, "idempotency_key_reused", 422):
        batches.find_batch(play.connection, play.tenant, "b", "other")
    with refused(play.connection, "try_again", 409):
        play.add_batch(*marked(1), key="b")
