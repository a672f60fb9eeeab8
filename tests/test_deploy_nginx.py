"""A real nginx with the site of deploy/, in front of a real API."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from uuid import UUID

import httpx
import pytest
from api_play import PREFIX, Front, Served, error_code, finish_job, free_port, serve, submit_job
from tree import read
from waiting import until

pytestmark = pytest.mark.skipif(not shutil.which("nginx"), reason="needs nginx")

# What a distribution's nginx.conf would hold around the site.
AROUND = """
{user}
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    client_body_temp_path {folder}/bodies;
    proxy_temp_path {folder}/proxied;
    fastcgi_temp_path {folder}/unused;
    uwsgi_temp_path {folder}/unused;
    scgi_temp_path {folder}/unused;
    include {folder}/site.conf;
}}
"""


def write_site(folder: Path, port: int, *upstream: str) -> Path:
    """The site of deploy/ on other ports, in front of these; the file nginx is started with."""
    site = read("deploy/nginx.conf")
    for there, here in {
        "listen 80;": f"listen 127.0.0.1:{port};",
        "server 127.0.0.1:8000;": " ".join(f"server {one};" for one in upstream),
        "/var/log/nginx/ledgerline.log": f"{folder}/access.log",
    }.items():
        assert site.count(there) == 1
        site = site.replace(there, here)
    (folder / "site.conf").write_text(site)
    main = folder / "nginx.conf"
    main.write_text(AROUND.format(folder=folder, user="user root;" if os.geteuid() == 0 else ""))
    return main


@contextmanager
def proxied(folder: Path, *upstream: str) -> Iterator[str]:
    """The address of an nginx in front of these (host:port)."""
    port = free_port()
    main = write_site(folder, port, *upstream)
    nginx = subprocess.Popen(["nginx", "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(main)])
    try:
        until(lambda: nginx.poll() is not None or listens(port))
        assert nginx.poll() is None, (folder / "error.log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        nginx.terminate()
        nginx.wait(30)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address (host:port) of a server that stands in for the API."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def site(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """nginx in front of the module's API."""
    with proxied(tmp_path_factory.mktemp("nginx"), served.url.removeprefix("http://")) as url:
        yield url


def test_nginx_finds_nothing_wrong_with_the_site(tmp_path: Path) -> None:
    main = write_site(tmp_path, 8080, "127.0.0.1:8000")
    said = subprocess.run(
        ["nginx", "-t", "-p", str(tmp_path), "-e", str(tmp_path / "error.log"), "-c", str(main)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert "[warn]" not in said.stderr


def test_answers_and_refusals_of_the_api_pass_as_they_are(site: str, front: Front) -> None:
    with httpx.Client(base_url=site, headers=front.person().bearer()) as client:
        assert client.get("/healthz").json() == {"status": "alive"}
        missing = client.get(f"{PREFIX}/jobs/{UUID(int=0)}")
        assert (missing.status_code, error_code(missing)) == (404, "job_not_found")
        assert client.get(f"{PREFIX}/jobs", headers={"Authorization": "Bearer x"}).status_code == 401


def test_each_event_comes_through_while_the_stream_is_open(site: str, front: Front) -> None:
    person = front.person()
    job = submit_job(front, person)["id"]
    with (
        httpx.Client(base_url=site, headers=person.bearer(), timeout=30) as client,
        client.stream("GET", f"{PREFIX}/jobs/{job}/stream") as response,
    ):
        assert response.headers["Content-Type"].startswith("text/event-stream")
        lines = response.iter_lines()
        assert kind_of_next(lines) == "submitted"
        assert front.play.job(UUID(job))["status"] == "queued", "it was told before anything else happened"
        finish_job(front.play, job)
        last = ""
        while last != "completed":
            last = kind_of_next(lines)


def kind_of_next(lines: Iterator[str]) -> str:
    data = next(line.removeprefix("data: ") for line in lines if line.startswith("data: "))
    return str(json.loads(data).get("kind", ""))


@pytest.mark.parametrize("of", ["document", "tenant"])
def test_streams_over_many_jobs_come_through_with_a_ticket_as_well(site: str, front: Front, of: str) -> None:
    person = front.person()
    document = front.play.add_document("One.")
    job = front.play.submit("reading", document_id=document, params={})
    with httpx.Client(base_url=f"{site}{PREFIX}", timeout=30) as client:
        ticket = client.post("/stream-tickets", headers=person.bearer()).json()["ticket"]
        path = f"/documents/{document}/stream" if of == "document" else "/stream"
        with client.stream("GET", path, params={"ticket": ticket, "after": "0"}) as response:
            lines = response.iter_lines()
            assert kind_of_next(lines) == "submitted"
            front.play.cancel(job)
            assert kind_of_next(lines) == "cancelled"


STREAM_PATHS = [f"jobs/{UUID(int=1)}/stream", f"documents/{UUID(int=1)}/stream", "stream"]


@pytest.mark.parametrize("path", STREAM_PATHS)
def test_a_stream_is_not_held_back_even_when_its_server_does_not_ask_for_that(tmp_path: Path, path: str) -> None:
    heard = Event()

    class Talker(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(b"data: one\n\n")
            self.wfile.flush()
            self.wfile.write(b"data: two\n\n" if heard.wait(20) else b"data: nobody heard\n\n")

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with (
        listening(Talker) as talker,
        proxied(tmp_path, talker) as url,
        httpx.stream("GET", f"{url}{PREFIX}/{path}", timeout=30) as response,
    ):
        lines = (line for line in response.iter_lines() if line)
        assert next(lines) == "data: one"
        heard.set()
        assert next(lines) == "data: two"


def test_an_upload_goes_through_and_one_that_the_api_refuses_is_refused_by_the_api(site: str, front: Front) -> None:
    with httpx.Client(base_url=site, headers=front.person().bearer(), timeout=30) as client:
        kept = client.post(f"{PREFIX}/documents", files={"file": ("story.txt", b"Once. " * 200_000)})
        assert (kept.status_code, kept.json()["bytes"]) == (201, 1_200_000)
        refused = client.post(f"{PREFIX}/documents", files={"file": ("story.txt", b"Once. " * 800_000)})
    assert (refused.status_code, error_code(refused)) == (413, "file_too_large")
    assert refused.headers["X-Request-Id"], "the API's own"


@pytest.mark.parametrize(("method", "path"), [("POST", "documents"), ("PUT", "uploads/a-token")])
def test_a_body_reaches_the_api_while_it_is_still_being_sent(tmp_path: Path, method: str, path: str) -> None:
    begun = Event()

    class Reader(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.rfile.read(5) == b"first"
            begun.set()
            assert self.rfile.read(4) == b"last"
            self.send_response(201)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_PUT = do_POST

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with listening(Reader) as reader, proxied(tmp_path, reader) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as line:
            line.sendall(f"{method} {PREFIX}/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nfirst".encode())
            assert begun.wait(20), "held back until it is whole"
            line.sendall(b"last")
            assert line.recv(65536).startswith(b"HTTP/1.1 201")


@pytest.mark.parametrize(
    ("path", "code", "limit"), [("documents", "file_too_large", 202), ("jobs", "body_too_large", 2)]
)
def test_what_is_far_too_large_is_refused_before_it_is_sent_in_the_envelope(
    site: str, front: Front, path: str, code: str, limit: int
) -> None:
    status, headers, body = announce(site, f"{PREFIX}/{path}", limit * 1024 * 1024 + 1)
    assert status == 413
    assert "application/json" in headers["content-type"]
    assert json.loads(body)["error"].keys() == {"code", "message", "details"}
    assert json.loads(body)["error"]["code"] == code


def announce(site: str, path: str, size: int) -> tuple[int, dict[str, str], bytes]:
    """Say that so many bytes will come, and read the answer instead of sending them."""
    host, port = site.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as line:
        line.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode())
        head, _, body = read_until_closed(line).partition(b"\r\n\r\n")
    first, *fields = head.decode().split("\r\n")
    return int(first.split()[1]), {name.lower(): text for name, text in (f.split(": ", 1) for f in fields)}, body


def read_until_closed(line: socket.socket) -> bytes:
    line.shutdown(socket.SHUT_WR)
    return b"".join(iter(lambda: line.recv(65536), b""))


def test_an_api_that_is_away_is_said_in_the_envelope(tmp_path: Path) -> None:
    with proxied(tmp_path, f"127.0.0.1:{free_port()}") as url:
        for method, path in [("GET", "jobs"), ("POST", "jobs"), ("GET", "documents"), ("GET", "stream")]:
            answer = httpx.request(method, f"{url}{PREFIX}/{path}", headers={"Idempotency-Key": "k"}, timeout=20)
            assert (answer.status_code, error_code(answer)) == (503, "api_unavailable")
            assert answer.headers["Retry-After"] == "5"


def test_the_log_holds_no_link_and_no_question(tmp_path: Path) -> None:
    with proxied(tmp_path, f"127.0.0.1:{free_port()}") as url:
        for path in ("files/a-signed-link", "jobs?ticket=a-ticket"):
            httpx.get(f"{url}{PREFIX}/{path}", timeout=20)
        log = tmp_path / "access.log"
        until(lambda: len(log.read_text().splitlines()) == 2)
    assert re.findall(r"GET (\S+) 503", log.read_text()) == [f"{PREFIX}/files/-", f"{PREFIX}/jobs"]


# When one of several goes down ---------------------------------------------------------------------


@contextmanager
def upstream(answers: bool) -> Iterator[tuple[str, list[str]]]:
    """A server that answers everything, or one that dies over each request; and the methods it was sent."""
    asked: list[str] = []

    class Server(BaseHTTPRequestHandler):
        def handle_one(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            asked.append(self.command)
            self.close_connection = True
            if answers:
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

        do_GET = do_POST = do_DELETE = handle_one

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with listening(Server) as address:
        yield address, asked


@pytest.mark.parametrize(
    ("method", "path", "key", "repeated"),
    [
        ("GET", "jobs", None, True),
        ("DELETE", f"documents/{UUID(int=1)}", None, True),
        ("POST", "jobs", "our-key", True),
        ("POST", "jobs", None, False),
        ("POST", f"jobs/{UUID(int=1)}/retry", "our-key", False),
        ("POST", "documents", "our-key", False),
    ],
)
def test_what_a_server_died_over_goes_to_another_only_if_doing_it_twice_does_it_once(
    tmp_path: Path, method: str, path: str, key: str | None, repeated: bool
) -> None:
    with upstream(answers=False) as (dying, first), upstream(answers=True) as (living, second):
        with proxied(tmp_path, dying, living) as url:
            headers = {"Idempotency-Key": key} if key else {}
            content = b'{"pipeline": "line"}' if method == "POST" else None
            answer = httpx.request(method, f"{url}{PREFIX}/{path}", headers=headers, content=content, timeout=20)
        assert first == [method]
        assert second == ([method] if repeated else [])
    assert (answer.status_code, error_code(answer)) == ((200, "") if repeated else (503, "api_unavailable"))


def test_when_one_of_two_is_killed_under_load_every_job_is_there_once_and_nobody_who_looks_notices(
    front: Front, served: Served, tmp_path: Path
) -> None:
    person = front.person()
    made: dict[str, set[str]] = {}
    looked: list[int] = []
    under_way = Event()

    def work(hand: int) -> None:
        with httpx.Client(base_url=url, headers=person.bearer(), timeout=30) as client:
            for number in range(30):
                key = f"{hand}-{number}"
                answer = send(client, key)
                made.setdefault(key, set()).add(answer.json()["id"])
                looked.append(client.get(f"{PREFIX}/jobs/{answer.json()['id']}").status_code)
                if number == 5:
                    under_way.set()

    hands = [Thread(target=work, args=[hand]) for hand in range(4)]
    with (
        serve(front.settings, tmp_path / "doomed.log") as doomed,
        proxied(tmp_path, doomed.url.removeprefix("http://"), served.url.removeprefix("http://")) as url,
    ):
        for hand in hands:
            hand.start()
        assert under_way.wait(30)
        worker = doomed.worker_pid
        doomed.process.kill()
        os.kill(worker, signal.SIGKILL)
        for hand in hands:
            hand.join(60)
    assert set(looked) == {200}
    assert len(looked) == len(made) == 120
    assert {len(ids) for ids in made.values()} == {1}
    kept = front.play.all("select idempotency_key as key, id::text from jobs where tenant_id = %s", front.play.tenant)
    assert {row["key"]: {row["id"]} for row in kept} == made
    assert len(kept) == 120


def send(client: httpx.Client, key: str) -> httpx.Response:
    """Ask for a job as our documents say: with a key, and again with the same key until there is an answer."""

    def ask() -> httpx.Response | None:
        with suppress(httpx.TransportError):
            job = {"pipeline": "line", "params": {"width": 2}}
            answer = client.post(f"{PREFIX}/jobs", json=job, headers={"Idempotency-Key": key})
            if answer.status_code != 503:
                assert answer.status_code == 202, answer.text
                return answer
        return None

    return until(ask)
