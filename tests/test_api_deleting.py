"""Deleting a document leaves nothing of it: no row, no result, no history; and nothing of others is touched."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import psycopg
import pytest
from api_play import Front, Person, error_code
from ledger_play import Play, digest, refused
from psycopg import sql
from psycopg.rows import dict_row
from waiting import until

from tasks import ledger
from tasks.errors import Refused

STORY = b"Once upon a time there was a lamplighter.\n" * 50
FILE = {"name": "a.txt", "media_type": "text/plain", "bytes": 1, "sha256": digest("a")}
AUDIT = {"tenants", "members", "pipelines", "pipeline_graphs", "pipeline_steps"}


def rows_in(play: Play) -> dict[str, int]:
    """How many rows each table has, of those that users can see and of the queue; tenants and pipelines left out."""
    query = "select schemaname, tablename from pg_tables where schemaname in ('public', 'procrastinate')"
    tables = [(row["schemaname"], row["tablename"]) for row in play.connection.execute(query).fetchall()]
    count = sql.SQL("select count(*) as n from {}.{}")
    found = {}
    for schema, table in tables:
        row = play.connection.execute(count.format(sql.Identifier(schema), sql.Identifier(table))).fetchone()
        assert row is not None
        found[table] = row["n"]
    return {
        table: n for table, n in found.items() if n and table not in AUDIT and not table.endswith("periodic_defers")
    }


def work_through(play: Play, document: Any) -> UUID:
    """A finished job on a document, with a result, artifacts and a description."""
    job = play.submit("reading", document_id=UUID(str(document)), params={})
    for work in play.begin_all():
        play.complete(work, artifacts=[FILE], description={"summary": "Told."}, text="a whale", blobs=[FILE["sha256"]])
    play.finish_all()
    assert play.job(job)["status"] == "completed"
    return job


def review_on(play: Play, document: UUID) -> None:
    """A job on a document that has a gate."""
    play.all("update jobs set document_id = %s where id = %s returning id", document, play.submit("reviewed"))


def test_a_document_goes_with_all_that_was_made_of_it(front: Front) -> None:
    person = front.person("editor")
    before = rows_in(front.play)
    id = person.upload(STORY).get_json()["id"]
    job = work_through(front.play, id)
    answer = person.call("DELETE", f"/documents/{id}")
    assert (answer.status_code, answer.get_json()) == (200, {"jobs": 1})
    assert rows_in(front.play) == before
    assert person.get(f"/documents/{id}").status_code == person.get(f"/jobs/{job}").status_code == 404
    again = person.call("DELETE", f"/documents/{id}")
    assert (again.status_code, error_code(again)) == (404, "document_not_found")
    (kept,) = front.play.all("select * from ops.deletions")
    assert (str(kept["document_id"]), kept["deleted_by"], kept["jobs"]) == (id, person.user, 1)


@pytest.mark.parametrize("role", ["viewer", "reviewer"])
def test_who_may_not_write_may_not_delete(front: Front, role: str) -> None:
    id = front.person().upload(STORY).get_json()["id"]
    answer = front.person(role).call("DELETE", f"/documents/{id}")
    assert (answer.status_code, error_code(answer)) == (403, "role_not_allowed")


def test_another_tenants_document_is_not_found(front: Front) -> None:
    id = front.person().upload(STORY).get_json()["id"]
    answer = front.stranger().call("DELETE", f"/documents/{id}?force=true")
    assert (answer.status_code, error_code(answer)) == (404, "document_not_found")
    assert front.play.one("select count(*) from documents") == 1


def test_a_document_in_use_is_kept_unless_forced(front: Front) -> None:
    person = front.person()
    document = person.upload(STORY, query="?pipeline=reading").get_json()
    front.play.begin()
    before = rows_in(front.play)
    answer = person.call("DELETE", f"/documents/{document['id']}")
    assert (answer.status_code, error_code(answer)) == (409, "document_in_use")
    assert answer.get_json()["error"]["details"] == {"job_id": document["job"]["id"], "jobs": 1}
    assert rows_in(front.play) == before
    assert person.call("DELETE", f"/documents/{document['id']}?force=true").get_json() == {"jobs": 1}
    assert rows_in(front.play) == {}
    assert front.play.drift() == []


def test_a_worker_that_holds_a_deleted_job_is_told_and_writes_nothing(play: Play) -> None:
    id = play.add_document()
    play.submit("reading", document_id=id, params={})
    work = play.begin()
    ledger.delete_document(play.connection, id, play.tenant, play.user, force=True)
    assert play.beat(work) == [UUID(work["step_run"])]
    assert not play.report(work, 1, 2)
    assert not play.complete(work, artifacts=[FILE], description={"summary": "Late."}, text="late")
    assert not play.fail(work)
    assert rows_in(play) == {}
    assert play.drift() == []


def test_a_job_that_waits_for_a_person_is_in_use_too(play: Play) -> None:
    id = play.add_document()
    review_on(play, id)
    while works := play.begin_all():
        for work in works:
            play.complete(work)
    with refused(play.connection, "document_in_use", 409):
        ledger.delete_document(play.connection, id, play.tenant, play.user)
    assert ledger.delete_document(play.connection, id, play.tenant, play.user, force=True) == 1
    assert rows_in(play) == {}


def test_results_that_another_document_shares_stay_with_that(play: Play) -> None:
    one, two, other = play.add_document("same"), play.add_document("same"), play.add_document("other")
    for id in (one, other):
        work_through(play, id)
    job = play.submit("reading", document_id=two, params={})
    (work,) = play.begin_all()
    play.complete(work, reuse=work["reuse"]["result"])
    play.finish_all()
    ledger.delete_document(play.connection, one, play.tenant, play.user)
    shared = play.run(job, "measure")["result_id"]
    assert play.one("select count(*) from step_results where id = %s", shared) == 1
    assert play.one("select count(*) from jobs") == 2
    for id in (two, other):
        ledger.delete_document(play.connection, id, play.tenant, play.user)
    assert rows_in(play) == {}


def test_what_was_run_again_leaves_nothing_either(play: Play) -> None:
    """Results that a reviewer sent back are referred to by no step run any more."""
    id = play.add_document()
    review_on(play, id)
    while works := play.begin_all():
        for work in works:
            play.complete(work, "of before")
    review = play.one("select id from reviews where status = 'open'")
    first = play.one("select step from job_steps where status = 'completed' order by created_at limit 1")
    ledger.decide(play.connection, review, play.tenant, play.user, "reprocessed", from_step=first)
    assert play.one("select count(*) from step_results") == 0
    ledger.delete_document(play.connection, id, play.tenant, play.user, force=True)
    assert rows_in(play) == {}


def test_a_job_submitted_while_its_document_is_deleted_finds_none(real_play: Play, database_url: str) -> None:
    id = real_play.add_document()
    with psycopg.connect(database_url, row_factory=dict_row) as deleter:
        ledger.delete_document(deleter, id, real_play.tenant, real_play.user)
        with pytest.raises(Refused) as caught:
            submit_beside(real_play, database_url, id, deleter)
    assert (caught.value.code, caught.value.status) == ("document_not_found", 404)
    assert rows_in(real_play) == {}


def submit_beside(play: Play, url: str, document: UUID, deleter: psycopg.Connection[Any]) -> None:
    """Submit on a connection of its own, which waits for the deletion; let that commit when it does."""

    def submit() -> None:
        with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:
            play.on(connection).submit("reading", document_id=document, params={})

    with ThreadPoolExecutor(1) as hand:
        submitting = hand.submit(submit)
        until(lambda: play.one("select count(*) from pg_stat_activity where wait_event_type = 'Lock'") == 1)
        deleter.commit()
        submitting.result(30)


def test_the_upload_that_became_it_does_not_tell_its_name(play: Play) -> None:
    id = play.add_document()
    told = {"id": id, "tenant_id": play.tenant, "user_id": play.user, "filename": "a secret.txt", "title": "A secret"}
    ledger.open_upload(play.connection, told | {"bytes": 5, "sha256": None, "ttl_s": 60})
    ledger.delete_document(play.connection, id, play.tenant, play.user)
    (upload,) = play.all("select filename, title from uploads")
    assert upload == {"filename": "deleted", "title": "deleted"}


def test_the_batch_it_came_in_with_says_how_it_ended_and_not_what_it_was(play: Play) -> None:
    id, batch = play.add_document(), ledger.new_id()
    job = play.submit("reading", document_id=id, params={})
    play.connection.execute(
        "insert into batches (id, tenant_id, pipeline, created_at) values (%s, %s, 'reading', now())",
        [batch, play.tenant],
    )
    play.connection.execute("update jobs set batch_id = %s where id = %s", [batch, job])
    for nr, its_job in ((1, job), (2, ledger.new_id())):
        play.connection.execute(
            "insert into batch_items (batch_id, nr, tenant_id, path, title, outcome, job_id)"
            " values (%s, %s, %s, 'a/secret.txt', 'A secret', 'created', %s)",
            [batch, nr, play.tenant, its_job],
        )
    ledger.delete_document(play.connection, id, play.tenant, play.user, force=True)
    rows = play.all("select outcome, title, path from batch_items order by nr")
    assert [(row["outcome"], row["title"], row["path"]) for row in rows] == [
        ("created", None, None), ("created", "A secret", "a/secret.txt"),
    ]  # fmt: skip


def test_uploading_the_same_bytes_again_says_so(front: Front) -> None:
    person = front.person()
    first = person.upload(STORY).get_json()
    second = person.upload(STORY, "copy.txt").get_json()
    third = person.upload(STORY, "copy2.txt").get_json()
    assert (first["duplicate_of"], second["duplicate_of"], third["duplicate_of"]) == (None, first["id"], first["id"])
    assert front.stranger().upload(STORY).get_json()["duplicate_of"] is None
    assert person.upload(STORY + b"!").get_json()["duplicate_of"] is None


def test_deleting_is_not_for_strangers_of_the_house(front: Front) -> None:
    nobody = Person(front.app, front.play.user, token="none")
    assert nobody.call("DELETE", f"/documents/{ledger.new_id()}").status_code == 401
