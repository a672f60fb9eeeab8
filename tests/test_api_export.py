"""Exports: every finalised document of a tenant, whole or visibly not, in constant memory and in nobody's way."""

from __future__ import annotations

import csv
import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import psutil
import psycopg
import pytest
from api_play import PREFIX, Front, Person, Served, error_code, make_claims, make_settings, serve
from waiting import until

from api import walk
from api.house import house_of
from api.tokens import Caller
from api.walk import Walk
from tasks.cells import FORMULA
from tasks.db import statement
from tasks.settings import Settings

MIB = 1024 * 1024
LONG = 8000  # documents that do not fit into the buffers between a server and a reader who stopped
COLUMNS = [
    "id", "title", "filename", "kind", "media_type", "bytes", "sha256", "language", "summary", "keywords", "categories",
    "metadata", "created_at", "finalised_at", "job_id", "pipeline", "decision", "comment", "decided_by", "decided_at",
]  # fmt: skip


def finalise(front: Front, at: str = "2026-11-01T12:00:00Z", job: UUID | None = None, **fields: Any) -> str:
    """A finalised document."""
    told = {"title": "A story", "summary": "", "keywords": [], "categories": {}, "language": "en"} | fields
    document = front.play.add_document()
    front.play.all(
        "update documents set status = 'finalised', finalised_at = %s, finalised_by = %s, title = %s, summary = %s,"
        " keywords = %s, categories = %s::text::jsonb, language = %s where id = %s returning id",
        at, job, told["title"], told["summary"], told["keywords"], json.dumps(told["categories"]), told["language"],
        document,
    )  # fmt: skip
    return str(document)


def export(person: Person, query: str = "") -> list[dict[str, Any]]:
    answer = person.get(f"/export{query}")
    assert answer.status_code == 200, answer.text
    whole = answer.get_json()
    assert whole["count"] == len(whole["documents"])
    documents: list[dict[str, Any]] = whole["documents"]
    return documents


def ids(person: Person, query: str = "") -> list[str]:
    return [document["id"] for document in export(person, query)]


def read_table(text: str) -> list[dict[str, str]]:
    assert text.startswith("\ufeff")
    return list(csv.DictReader(io.StringIO(text[1:], newline=""), strict=True))


# What is in it -------------------------------------------------------------------------------------


def test_an_export_says_what_is_known_about_each_document_and_who_decided_it(front: Front) -> None:
    person = front.person("viewer")
    reviewer = front.person("reviewer")
    job = front.play.submit("reviewed")
    front.play.finish_all()
    (review,) = person.get("/review").get_json()["reviews"]
    decided = reviewer.post(f"/review/{review['id']}/approve", json={"comment": "Good."}).get_json()
    document = finalise(front, job=job, keywords=["lamp", "sea"], categories={"form": "fiction"}, summary="Lamps.")
    (found,) = export(person)
    told = ("id", "title", "filename", "kind", "bytes", "language", "summary", "keywords", "categories")
    assert [found[name] for name in told] == [
        document, "A story", "story.txt", "txt", 5, "en", "Lamps.", ["lamp", "sea"], {"form": "fiction"},
    ]  # fmt: skip
    assert [found[name] for name in ("finalised_at", "job_id", "pipeline")] == [
        "2026-11-01T12:00:00Z", str(job), "reviewed",
    ]  # fmt: skip
    assert [found[name] for name in ("decision", "comment", "decided_by", "decided_at")] == [
        "approved", "Good.", str(reviewer.user), decided["decided_at"],
    ]  # fmt: skip
    assert list(found) == COLUMNS


def test_only_finalised_documents_of_the_own_tenant_are_exported_and_those_finalised_first_come_first(
    front: Front,
) -> None:
    person, stranger = front.person(), front.stranger()
    later, earlier = finalise(front, "2026-11-03T00:00:00Z"), finalise(front, "2026-11-02T00:00:00Z")
    front.play.add_document()
    assert ids(person) == [earlier, later]
    assert ids(stranger) == []
    answer = stranger.get("/export?format=csv")
    assert answer.text == "\ufeff" + ",".join(COLUMNS) + "\r\n"


def test_days_that_follow_each_other_neither_skip_nor_repeat_a_document(front: Front) -> None:
    person = front.person()
    days = [f"2026-11-0{day}T00:00:00Z" for day in (1, 2, 3)]
    made = [finalise(front, at) for at in (days[0], "2026-11-01T23:59:59.999999Z", days[1])]
    assert ids(person, f"?finalised_after={days[0]}&finalised_before={days[1]}") == made[:2]
    assert ids(person, f"?finalised_after={days[1]}&finalised_before={days[2]}") == made[2:]
    assert ids(person, f"?finalised_after={days[2]}") == ids(person, f"?finalised_before={days[0]}") == []
    assert ids(person, "?finalised_after=2026-11-02T01:00:00%2B01:00") == made[2:]


def test_an_export_is_narrowed_to_a_pipeline(front: Front) -> None:
    person = front.person()
    by_line, _ = (finalise(front, job=front.play.submit(name)) for name in ("line", "one"))
    finalise(front)
    assert ids(person, "?pipeline=line") == [by_line]
    assert ids(person, "?pipeline=nothing") == []


@pytest.mark.parametrize(
    "query",
    [
        "format=xml", "format=", "finalised_after=yesterday", "finalised_after=2026-11-01",
        "finalised_before=2026-11-01T00:00:00", f"pipeline={'x' * 64}", "limit=5", "format=csv&format=json",
    ],
)  # fmt: skip
def test_a_wrong_question_is_refused(front: Front, query: str) -> None:
    assert error_code(front.person().get(f"/export?{query}")) == "request_invalid"


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00%2B23:59"])
def test_the_ends_of_time_can_be_asked_for(front: Front, at: str) -> None:
    assert ids(front.person(), f"?finalised_after={at}&finalised_before={at}") == []


def test_the_file_has_a_name_and_a_type(front: Front) -> None:
    for sort, media in (("json", "application/json"), ("csv", "text/csv; charset=utf-8")):
        headers = front.person().get(f"/export?format={sort}").headers
        assert headers["Content-Disposition"] == f"attachment; filename=finalised-documents.{sort}"
        assert headers["Content-Type"] == media


# CSV -----------------------------------------------------------------------------------------------


def test_the_table_keeps_every_word_whatever_it_is_made_of(front: Front) -> None:
    odd = 'Comma, "quotes"\r\nand a line; Ωmega 灯 \u2028end'
    finalise(front, summary=odd, keywords=["a, b", "c"], categories={"form": "poem", "length": "short"}, language=None)
    (row,) = read_table(front.person().get("/export?format=csv").text)
    assert list(row) == COLUMNS
    assert (row["summary"], row["keywords"], row["categories"]) == (odd, "a, b; c", "form: poem; length: short")
    assert (row["language"], row["decision"], row["finalised_at"]) == ("", "", "2026-11-01T12:00:00+00:00")


@pytest.mark.parametrize("sign", FORMULA)
def test_no_cell_of_the_table_is_a_formula(front: Front, sign: str) -> None:
    evil = f"{sign}cmd|' /C calc'!A0"
    finalise(front, title=evil, summary=evil, keywords=[evil], categories={evil: "x"})
    answer = front.person().get("/export?format=csv")
    (row,) = read_table(answer.text)
    assert [row[name][0] for name in ("title", "summary", "keywords", "categories")] == ["'"] * 4
    assert export(front.person())[0]["title"] == evil


# Whoever may ---------------------------------------------------------------------------------------


def test_an_export_is_for_members(front: Front) -> None:
    assert error_code(front.person().get("/export", headers={"Authorization": None})) == "token_missing"
    assert error_code(Person(front.app, uuid4()).get("/export")) == "no_tenant"


# At length, from a real server ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def narrow(api_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """An API that sends one export at a time, and has one connection for all others."""
    url = api_settings.database_url.get_secret_value()
    settings = make_settings(url, api_settings.storage_path, export_connections=1, database_pool_size=1)
    with serve(settings, tmp_path_factory.mktemp("narrow") / "api.log") as running:
        yield running


Fill = Callable[..., None]


@pytest.fixture
def fill(front: Front) -> Iterator[Fill]:
    """Make so many finalised documents, each with a job and a decision. They are gone afterwards."""
    yield partial(make_documents, front)
    front.play.connection.execute("truncate documents, jobs cascade")


def make_documents(front: Front, rows: int, summary: int = 600) -> None:
    front.play.connection.execute(
        "create temp table made as select n, ledger.uuid7() as document, ledger.uuid7() as job"
        " from generate_series(1, %s) n",
        [rows],
    )
    front.play.connection.execute(
        "insert into documents (id, tenant_id, title, filename, kind, media_type, bytes, sha256, status, summary,"
        " finalised_at, finalised_by) select document, %s, 'Document ' || n, 'a.txt', 'txt', 'text/plain', 1,"
        " repeat('a', 64), 'finalised', repeat('x', %s), '2026-11-01'::timestamptz + n * interval '1 s', job from made",
        [front.play.tenant, summary],
    )
    front.play.connection.execute(
        "insert into jobs (id, tenant_id, pipeline, graph, status, finished_at, total_weight, payload_digest,"
        " created_at, updated_at) select job, %s, 'line', p.graph, 'completed', now(), 1, '', now(), now()"
        " from made, pipelines p where p.name = 'line'",
        [front.play.tenant],
    )
    front.play.connection.execute(
        "insert into reviews (job_id, tenant_id, pipeline, step, step_run, status, opened_at, decided_at)"
        " select job, %s, 'line', 'approval', job, 'approved', now(), now() from made",
        [front.play.tenant],
    )
    front.play.connection.execute("drop table made")
    front.play.connection.execute("analyze documents, jobs, reviews")


def test_thirty_thousand_documents_hardly_move_the_memory_and_hold_up_nobody(
    front: Front, fill: Fill, narrow: Served
) -> None:
    person = front.person()
    fill(30_000)
    process = psutil.Process(narrow.worker_pid)
    received: dict[str, int] = {}
    peak: list[int] = []

    def download(sort: str) -> None:
        with narrow.client(person) as client, client.stream("GET", f"/export?format={sort}") as answer:
            lines = 0
            for piece in answer.iter_bytes():
                lines += piece.count(b"\n")
                received["bytes"] = received.get("bytes", 0) + len(piece)
                peak.append(process.memory_info().rss)
            received[sort] = lines

    with narrow.client(person) as client:
        assert client.get("/export?pipeline=nothing").status_code == 200
        before = process.memory_info().rss
        for sort in ("json", "csv"):
            reader = threading.Thread(target=download, args=(sort,))
            reader.start()
            answered = 0
            while reader.is_alive():
                answered += client.get("/me").status_code == 200
            assert answered > 3, "others waited for the export"
    assert (received["json"], received["csv"]) == (30_001, 30_001)
    assert received["bytes"] > 50 * MIB
    assert max(peak) - before < 16 * MIB


def test_the_json_of_many_strides_is_one_document(front: Front, fill: Fill, served: Served) -> None:
    fill(450, summary=10)
    with served.client(front.person()) as client:
        whole = client.get("/export").json()
    assert [document["title"] for document in whole["documents"]] == [f"Document {n}" for n in range(1, 451)]
    assert (whole["count"], whole["documents"][-1]["decision"]) == (450, "approved")


def open_export(served: Served, person: Person, sort: str = "json") -> socket.socket:
    """An export of which nothing was read yet, by a reader who has room for little."""
    host, port = served.url.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    connection.settimeout(20)
    connection.connect((host, int(port)))
    lines = [f"GET {PREFIX}/export?format={sort} HTTP/1.1", "Host: x"]
    lines += [f"{name}: {value}" for name, value in person.bearer().items()]
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    return connection


def walks(front: Front) -> list[int]:
    """The processes of the database that walk for an export."""
    rows = front.play.all(
        "select pid from pg_stat_activity where datname = current_database() and query ilike 'fetch%walk%'"
        " and state = 'idle in transaction'"
    )
    return [row["pid"] for row in rows]


@pytest.mark.parametrize("sort", ["json", "csv"])
def test_an_export_that_breaks_off_is_seen_to_be_broken(front: Front, fill: Fill, served: Served, sort: str) -> None:
    fill(LONG, summary=2000)
    with served.client(front.person()) as client, client.stream("GET", f"/export?format={sort}") as answer:
        assert answer.status_code == 200
        pieces = answer.iter_raw()
        received = [next(pieces)]
        (walk,) = until(lambda: walks(front))
        front.play.all("select pg_terminate_backend(%s)", walk)
        with pytest.raises(httpx.RemoteProtocolError):
            received.extend(pieces)
    text = b"".join(received).decode()
    assert text.count("\n") < LONG
    if sort == "json":
        with pytest.raises(ValueError):
            json.loads(text)


def test_a_slow_reader_holds_a_turn_and_no_connection_that_others_need(
    front: Front, fill: Fill, narrow: Served
) -> None:
    person = front.person()
    fill(LONG, summary=2000)
    with narrow.client(person) as client:
        with open_export(narrow, person):
            until(lambda: walks(front))
            answer = client.get("/export")
            assert (answer.status_code, error_code(answer)) == (503, "exports_busy")
            assert int(answer.headers["Retry-After"]) > 0
            assert client.get("/jobs").status_code == 200
        until(lambda: client.get("/export?pipeline=nothing").status_code == 200)
    until(lambda: walks(front) == [])


def test_a_reader_who_stops_is_given_up_and_its_turn_is_anothers(front: Front, fill: Fill, log: Path) -> None:
    person = front.person()
    fill(LONG, summary=2000)
    url = front.settings.database_url.get_secret_value()
    settings = make_settings(url, front.settings.storage_path, export_connections=1, export_timeout_s=1)
    with serve(settings, log) as hasty, open_export(hasty, person) as stopped, hasty.client(person) as client:
        until(lambda: walks(front))
        until(lambda: client.get("/export?pipeline=nothing").status_code == 200)
        until(lambda: walks(front) == [])
        received = b"".join(iter(lambda: stopped.recv(65536), b""))
    assert not received.endswith(b"0\r\n\r\n")


def test_the_database_ends_a_walk_that_nobody_goes_on_with(
    front: Front, fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(450, summary=10)
    monkeypatch.setattr(walk, "_IDLE_S", 0.1)
    desk = house_of(front.app)
    caller = Caller(front.play.user, None, float("inf"), make_claims(front.play.user))
    asked = dict.fromkeys(("finalised_after", "finalised_before", "pipeline"))
    forgotten = Walk(desk, caller, "export_documents", tenant_id=front.play.tenant, **asked)
    strides = forgotten.strides()
    assert len(next(strides)) == 200
    until(lambda: walks(front) == [])
    with pytest.raises(psycopg.Error):
        next(strides)
    forgotten.close()


def test_a_database_that_is_away_before_the_first_row_is_an_error_like_any_other(front: Front) -> None:
    person = front.person()
    connection = front.play.connection
    with connection.transaction():
        connection.execute("lock table documents in access exclusive mode")
        seen: list[Any] = []
        asking = threading.Thread(target=lambda: seen.append(person.get("/export")))
        asking.start()
        with psycopg.connect(front.settings.database_url.get_secret_value(), autocommit=True) as other:
            until(lambda: other.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where wait_event_type = 'Lock'"
                " and datname = current_database()").fetchall())  # fmt: skip
        asking.join(20)
    assert (seen[0].status_code, error_code(seen[0])) == (503, "database_unavailable")
    assert ids(person) == [], "its turn was given back"


# Indexes -------------------------------------------------------------------------------------------


def test_a_cursor_begins_at_once_from_an_index(front: Front, fill: Fill) -> None:
    fill(20_000, summary=1)
    asked = {"tenant_id": front.play.tenant, "finalised_after": None, "finalised_before": None, "pipeline": None}
    hour = {"finalised_after": "2026-11-01T00:00:00Z", "finalised_before": "2026-11-01T01:00:00Z"}
    for narrowed in ({}, hour, {"pipeline": "line"}):
        plan = explain(front, asked | narrowed)
        assert "using documents_finalised " in plan, plan
        assert "using jobs_pkey " in plan, plan
        assert "using reviews_by_job " in plan, plan
        assert "Sort" not in plan, plan
        assert "Seq Scan on" not in plan.replace("Seq Scan on members", ""), plan


def explain(front: Front, asked: dict[str, Any]) -> str:
    with front.play.connection.transaction():
        claims = json.dumps({"sub": str(front.play.user), "role": "authenticated"})
        front.play.connection.execute(statement("act_as_user"), {"claims": claims})
        question = "explain declare walk no scroll cursor for " + statement("export_documents")
        rows = front.play.connection.execute(question, asked).fetchall()
    return "\n".join(row["QUERY PLAN"] for row in rows)
