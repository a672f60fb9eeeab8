"""A real nginx with the site of deploy/, in front of a real API."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from uuid import UUID

import httpx
import pytest
from api_play import PREFIX, Front, Served, error_code, finish_job, free_port, submit_job
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


def write_site(folder: Path, port: int, upstream: str) -> Path:
    """The site of deploy/ on other ports; the file nginx is started with."""
    site = read("deploy/nginx.conf")
    for there, here in {
        "listen 80;": f"listen 127.0.0.1:{port};",
        "server 127.0.0.1:8000;": f"server {upstream};",
        "/var/log/nginx/ledgerline.log": f"{folder}/access.log",
    }.items():
        assert site.count(there) == 1
        site = site.replace(there, here)
    (folder / "site.conf").write_text(site)
    main = folder / "nginx.conf"
    main.write_text(AROUND.format(folder=folder, user="user root;" if os.geteuid() == 0 else ""))
    return main


@contextmanager
def proxied(folder: Path, upstream: str) -> Iterator[str]:
    """The address of an nginx in front of `upstream` (host:port)."""
    port = free_port()
    main = write_site(folder, port, upstream)
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


def test_a_stream_is_not_held_back_even_when_its_server_does_not_ask_for_that(tmp_path: Path) -> None:
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

    server = ThreadingHTTPServer(("127.0.0.1", 0), Talker)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        with (
            proxied(tmp_path, f"127.0.0.1:{server.server_address[1]}") as url,
            httpx.stream("GET", f"{url}{PREFIX}/documents/{UUID(int=1)}/stream", timeout=30) as response,
        ):
            lines = (line for line in response.iter_lines() if line)
            assert next(lines) == "data: one"
            heard.set()
            assert next(lines) == "data: two"
    finally:
        server.shutdown()
        server.server_close()


def test_an_upload_goes_through_and_one_that_the_api_refuses_is_refused_by_the_api(site: str, front: Front) -> None:
    with httpx.Client(base_url=site, headers=front.person().bearer(), timeout=30) as client:
        kept = client.post(f"{PREFIX}/documents", files={"file": ("story.txt", b"Once. " * 200_000)})
        assert (kept.status_code, kept.json()["bytes"]) == (201, 1_200_000)
        refused = client.post(f"{PREFIX}/documents", files={"file": ("story.txt", b"Once. " * 800_000)})
    assert (refused.status_code, error_code(refused)) == (413, "file_too_large")
    assert refused.headers["X-Request-Id"], "the API's own"


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
        for path in ("jobs", "documents", f"jobs/{UUID(int=1)}/stream"):
            answer = httpx.get(f"{url}{PREFIX}/{path}", timeout=20)
            assert (answer.status_code, error_code(answer)) == (503, "api_unavailable")
            assert answer.headers["Retry-After"] == "5"


def test_the_log_holds_no_link_and_no_question(tmp_path: Path) -> None:
    with proxied(tmp_path, f"127.0.0.1:{free_port()}") as url:
        for path in ("files/a-signed-link", "jobs?ticket=a-ticket"):
            httpx.get(f"{url}{PREFIX}/{path}", timeout=20)
        log = tmp_path / "access.log"
        until(lambda: len(log.read_text().splitlines()) == 2)
    assert re.findall(r"GET (\S+) 503", log.read_text()) == [f"{PREFIX}/files/-", f"{PREFIX}/jobs"]
