"""Traces: one from a request to the steps of its job, over a real socket; and nothing of it for who wants none."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from api_play import PREFIX, Person, Served, error_code, make_settings, make_token, serve
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from test_api_process import access_lines
from tree import ROOT
from waiting import until
from wire_counter import counting
from worker_process import House

from api import create_app
from api.house import house_of

# The SDK sends every five seconds unless told otherwise.
HURRY = {"OTEL_BSP_SCHEDULE_DELAY": "100"}
SECRET = "what nobody may read in a trace"


class Receiver:
    """A collector: takes traces by OTLP over HTTP, and tells which spans it got."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.path == "/v1/traces"
                receiver.take(body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, body: bytes) -> None:
        self.bodies.append(body)
        for sent in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = {one.key: one.value.string_value for one in sent.resource.attributes}["service.name"]
            for scope in sent.scope_spans:
                self.spans += [describe(span) | {"service": service} for span in scope.spans]

    def named(self, name: str) -> list[dict[str, Any]]:
        return [span for span in self.spans if span["name"] == name]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def describe(span: Any) -> dict[str, Any]:
    values = {one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in span.attributes}
    return {
        "name": span.name,
        "trace": span.trace_id.hex(),
        "id": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "failed": span.status.code == 2,
        "seconds": (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        "said": values,
    }


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@contextmanager
def traced_api(house: House, receiver: Receiver, folder: Path) -> Iterator[tuple[Served, dict[str, str]]]:
    """An API that sends its traces, and the headers of an owner."""
    settings = make_settings(house.url, folder, otel_exporter_otlp_endpoint=receiver.url)
    with serve(settings, folder / "api.log", **HURRY) as served:
        yield served, {"Authorization": f"Bearer {make_token(house.play.user)}"}


def test_one_trace_leads_from_the_request_to_each_attempt_of_its_job(
    house: House, receiver: Receiver, tmp_path: Path
) -> None:
    trace, parent = uuid4().hex, "00f067aa0ba902b7"
    with traced_api(house, receiver, tmp_path) as (served, headers):
        sent = headers | {"traceparent": f"00-{trace}-{parent}-01", "X-Request-Id": "request-1"}
        body = {"pipeline": "stumbling", "params": {"width": 0, "mark": SECRET}}
        job = httpx.post(f"{served.url}{PREFIX}/jobs?secret={SECRET}", json=body, headers=sent).json()
        house.start(otel_exporter_otlp_endpoint=receiver.url, **HURRY)
        assert house.finish(UUID(job["id"])) == ["completed"]
        (line,) = until(lambda: access_lines(served.log, job=job["id"]))
    (request,) = until(lambda: receiver.named(f"POST {PREFIX}/jobs"))
    (step,) = until(lambda: receiver.named("stumbling.stumble"))
    assert (request["trace"], request["parent"], request["service"]) == (trace, parent, "ledgerline-web")
    assert request["said"] == {
        "http.request.method": "POST",
        "http.route": f"{PREFIX}/jobs",
        "http.response.status_code": 202,
        "ledgerline.request_id": "request-1",
        "ledgerline.tenant": str(house.play.tenant),
        "ledgerline.job": job["id"],
    }
    assert (step["trace"], step["parent"], step["service"]) == (trace, request["id"], "ledgerline-worker")
    said = step["said"]
    assert said.pop("ledgerline.queue_wait_s") > 0
    assert said == {
        "ledgerline.tenant": str(house.play.tenant),
        "ledgerline.job": job["id"],
        "ledgerline.pipeline": "stumbling",
        "ledgerline.step": "stumble",
        "ledgerline.attempt": 1,
        "ledgerline.outcome": "completed",
    }
    assert line["trace_id"] == trace
    assert house.play.job(UUID(job["id"]))["trace"] == f"00-{trace}-{request['id']}-01"
    sent_out = b"".join(receiver.bodies)
    assert SECRET.encode() not in sent_out
    assert headers["Authorization"].split(".")[1].encode() not in sent_out


def test_every_attempt_and_item_has_a_span_and_failures_say_their_code(
    house: House, receiver: Receiver, tmp_path: Path
) -> None:
    with traced_api(house, receiver, tmp_path) as (served, headers):
        bodies = [{"pipeline": "stumbling", "params": {"width": 1}}, {"pipeline": "fan", "params": {"width": 3}}]
        answers = [httpx.post(f"{served.url}{PREFIX}/jobs", json=body, headers=headers) for body in bodies]
    jobs = [answer.json()["id"] for answer in answers]
    worker = house.start(otel_exporter_otlp_endpoint=receiver.url, **HURRY)
    house.finish(*map(UUID, jobs))
    worker.terminate()
    assert worker.end() == 0
    tries = {span["said"]["ledgerline.attempt"]: span for span in receiver.named("stumbling.stumble")}
    assert [tries[number]["said"]["ledgerline.outcome"] for number in (1, 2)] == ["retrying", "completed"]
    assert (tries[1]["failed"], tries[1]["said"]["ledgerline.code"]) == (True, "not_yet")
    assert not tries[2]["failed"]
    of_fan = [span for span in receiver.spans if span["said"].get("ledgerline.job") == jobs[1]]
    assert {span["said"].get("ledgerline.item") for span in of_fan} == {None, 0, 1, 2}
    requests = {span["trace"] for span in receiver.named(f"POST {PREFIX}/jobs")}
    assert {span["trace"] for span in receiver.spans if span["service"] == "ledgerline-worker"} == requests
    assert len(requests) == 2


def test_a_collector_that_is_away_harms_neither_jobs_nor_requests(house: House, tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:1"
    settings = make_settings(house.url, tmp_path, otel_exporter_otlp_endpoint=nowhere)
    with serve(settings, tmp_path / "api.log", **HURRY) as served:
        headers = {"Authorization": f"Bearer {make_token(house.play.user)}"}
        answer = httpx.post(f"{served.url}{PREFIX}/jobs", json={"pipeline": "one"}, headers=headers)
        assert answer.status_code == 202
        worker = house.start(otel_exporter_otlp_endpoint=nowhere, **HURRY)
        assert house.finish(UUID(answer.json()["id"])) == ["completed"]
        began = time.monotonic()
        worker.terminate()
        assert worker.end() == 0
        assert time.monotonic() - began < 20


@pytest.mark.parametrize("sent", ["nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "é"])
def test_a_traceparent_that_is_none_is_ignored(receiver: Receiver, house: House, tmp_path: Path, sent: str) -> None:
    app = create_app(make_settings(house.url, tmp_path, otel_exporter_otlp_endpoint=receiver.url))
    answer = Person(app, house.play.user).post("/jobs", json={"pipeline": "one"}, headers={"traceparent": sent})
    house_of(app).close()
    (span,) = receiver.named(f"POST {PREFIX}/jobs")
    assert span["parent"] == ""
    assert span["trace"] in house.play.job(UUID(answer.get_json()["id"]))["trace"]


def test_health_is_not_traced_and_a_fault_of_ours_is_told(
    receiver: Receiver, house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(make_settings(house.url, tmp_path, otel_exporter_otlp_endpoint=receiver.url))
    person = Person(app, house.play.user)
    for path in ("/healthz", "/readyz", "/metrics"):
        person.get(path)
    monkeypatch.setattr("api.account.read", lambda *_: 1 / 0)
    assert person.get("/pipelines").status_code == 500
    house_of(app).close()
    (span,) = receiver.spans
    assert (span["name"], span["failed"]) == (f"GET {PREFIX}/pipelines", True)


def test_a_trace_costs_submitting_no_round_trip(house: House, receiver: Receiver, tmp_path: Path) -> None:
    with counting(house.url) as counter:
        app = create_app(
            make_settings(counter.url, tmp_path, database_pool_size=1, otel_exporter_otlp_endpoint=receiver.url)
        )
        house_of(app).pool.wait()
        before = counter.round_trips
        answer = Person(app, house.play.user).post("/jobs", json={"pipeline": "one"})
        assert (answer.status_code, counter.round_trips - before) == (202, 2)
        refused = Person(app, house.play.user).post("/jobs", json={"pipeline": "reading"})
        assert (refused.status_code, error_code(refused)) == (422, "document_required")
        with house_of(app).pool.connection() as connection:
            left = connection.execute("select current_setting('ledger.trace', true) as trace").fetchone()
        assert left is not None
        assert not left["trace"], "nothing of it stays on the connection"
        house_of(app).close()


@pytest.mark.parametrize("wanted", [False, True])
def test_nothing_is_loaded_for_who_wants_no_traces(house: House, tmp_path: Path, wanted: bool) -> None:
    code = "import sys, api; api.create_app(); print(any('opentelemetry' in name for name in sys.modules))"
    environment = {
        "PATH": "/usr/bin:/bin",
        "DATABASE_URL": house.url,
        "JWT_SECRET": "x" * 40,
        "JWT_ISSUER": "i",
        "LINK_SECRET": "x",
        "STORAGE_PATH": str(tmp_path),
    } | ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"} if wanted else {})
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.stdout.strip() == str(wanted), ran.stderr
