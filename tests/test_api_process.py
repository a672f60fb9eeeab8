"""The API as a process: what it loads, what it holds in memory, and how it behaves when clients and disks fail it."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import httpx
import psutil
import pytest
from api_play import PREFIX, ROOT, Front, Person, Served, error_code, make_settings, serve, submit_job
from processes import ended
from waiting import until

from api.incoming import SILENCE_S
from tasks.settings import Settings

MIB = 1024 * 1024
HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="story.txt"\r\n\r\n'
TAIL = b"\r\n--b--\r\n"
FORM = {"Content-Type": "multipart/form-data; boundary=b"}


def story(size: int, pieces: list[int] | None = None) -> Iterator[bytes]:
    """A form with a file of so many bytes, in pieces of 64 KiB; says in `pieces` what it has given away."""
    yield HEAD
    for _ in range(size // 65536):
        yield b"A line of text that is sixty-four bytes long, with its newline.\n" * 1024
        if pieces is not None:
            pieces.append(65536)
    yield TAIL


def ask_by_hand(served: Served, person: Person, *headers: str) -> socket.socket:
    """A connection on which the head of an upload has been sent."""
    host, port = served.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    lines = [f"POST {PREFIX}/documents HTTP/1.1", "Host: x", "Content-Type: multipart/form-data; boundary=b", *headers]
    lines += [f"{name}: {value}" for name, value in person.bearer().items()]
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    return connection


def hear(connection: socket.socket) -> str:
    """The answer, to the end of its body."""
    heard = b""
    while not heard.endswith(b"}"):
        piece = connection.recv(65536)
        assert piece, heard
        heard += piece
    return heard.decode()


def access_lines(log: Path, **fields: object) -> list[dict[str, object]]:
    """Lines of the access log that have these fields."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith('{"at"')]
    return [one for one in lines if one["logger"] == "ledgerline.access" and fields.items() <= one.items()]


# What it loads -------------------------------------------------------------------------------------


def test_the_process_has_not_imported_what_only_workers_need(api_settings: Settings) -> None:
    heavy = ("pypdfium2", "lxml", "docx", "openai", "pypdf", "pikepdf", "vaderSentiment", "pebble", "httpx")
    ours = (
        "tasks.pipelines",
        "tasks.engine",
        "tasks.worker",
        "tasks.sandbox",
        "tasks.analysis",
        "procrastinate.worker",
    )
    code = f"import sys, api; api.create_app(); print([m for m in {heavy + ours!r} if m in sys.modules])"
    environment = {
        "PATH": "/usr/bin:/bin",
        "DATABASE_URL": api_settings.database_url.get_secret_value(),
        "JWT_SECRET": "x" * 40,
        "JWT_ISSUER": "i",
        "LINK_SECRET": "x",
        "STORAGE_PATH": str(api_settings.storage_path),
    }
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert ran.stdout.strip() == "[]", ran.stderr


def test_waiting_for_the_database_and_for_events_keeps_nobody_waiting(front: Front, served: Served) -> None:
    person = front.person()
    job = submit_job(front, person)["id"]
    url = f"{served.url}{PREFIX}/jobs/{job}?wait=20"
    polls = [threading.Thread(target=lambda: httpx.get(url, headers=person.bearer(), timeout=30)) for _ in range(20)]
    for poll in polls:
        poll.start()
    with served.client(person) as client:
        started = time.monotonic()
        for _ in range(20):
            assert client.get("/me").status_code == 200
        assert time.monotonic() - started < 10, "twenty calls waited for the polls"
    front.play.cancel(UUID(job))
    for poll in polls:
        poll.join(10)
        assert not poll.is_alive()


# Uploads -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def roomy(api_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """An API that takes large files."""
    url = api_settings.database_url.get_secret_value()
    settings = make_settings(url, api_settings.storage_path, max_upload_bytes=300 * MIB)
    with serve(settings, tmp_path_factory.mktemp("roomy") / "api.log") as running:
        yield running


def test_a_large_upload_hardly_moves_the_memory(front: Front, roomy: Served) -> None:
    person = front.person()
    process = psutil.Process(roomy.worker_pid)
    with roomy.client(person) as client:
        client.post("/documents", content=story(MIB), headers=FORM)
        before = process.memory_info().rss
        answer = client.post("/documents", content=story(128 * MIB), headers=FORM)
    assert (answer.status_code, answer.json()["bytes"]) == (201, 128 * MIB)
    assert _peak(process) - before < 32 * MIB


def _peak(process: psutil.Process) -> int:
    """The most memory the process has ever had, in bytes: the kernel saw it all, while the file was put away too."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def test_an_upload_over_the_limit_is_refused_without_reading_it(front: Front, served: Served) -> None:
    person = front.person()
    connection = ask_by_hand(served, person, f"Content-Length: {300 * MIB}")
    answer = hear(connection)
    assert answer.startswith("HTTP/1.1 413")
    assert '"file_too_large"' in answer
    connection.close()
    assert front.stored == []


def test_an_upload_without_a_length_is_stopped_at_the_limit(front: Front, served: Served) -> None:
    sent: list[int] = []
    person = front.person()
    connection = ask_by_hand(served, person, "Transfer-Encoding: chunked")
    connection.settimeout(20)
    with suppress(ConnectionError):
        for piece in story(300 * MIB, sent):
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            if connection in _readable(connection):
                break
    answer = hear(connection)
    assert answer.startswith("HTTP/1.1 413")
    assert '"file_too_large"' in answer
    assert sum(sent) < 40 * MIB
    connection.close()
    assert front.stored == []
    assert front.play.one("select count(*) from documents") == 0


def _readable(connection: socket.socket) -> list[socket.socket]:
    return select.select([connection], [], [], 0)[0]


@pytest.mark.parametrize("framing", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_a_client_that_goes_away_in_the_middle_leaves_nothing(front: Front, served: Served, framing: str) -> None:
    person = front.person()
    connection = ask_by_hand(served, person, framing)
    piece = b"".join(story(8 * 65536))[: -len(TAIL)]
    connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if "chunked" in framing else piece)
    until(lambda: any(path.name.startswith("upload-") for path in front.stored))
    connection.close()
    until(lambda: access_lines(served.log, user=str(person.user), status=400))
    assert front.stored == []
    assert front.play.one("select count(*) from documents") == 0


def test_a_killed_server_leaves_no_row_and_its_successor_clears_up(front: Front, tmp_path: Path) -> None:
    settings = make_settings(front.settings.database_url.get_secret_value(), tmp_path / "storage")
    left = settings.storage_path / "staging"
    with serve(settings, tmp_path / "first.log") as first:
        person = front.person()
        connection = ask_by_hand(first, person, "Content-Length: 1000000")
        connection.sendall(b"".join(story(8 * 65536))[: -len(TAIL)])
        (upload,) = until(lambda: list(left.glob("upload-*")))
        worker = first.worker_pid
        first.process.send_signal(signal.SIGKILL)
        psutil.Process(worker).kill()
        until(lambda: ended(worker))
        connection.close()
    assert front.play.one("select count(*) from documents") == 0
    os.utime(upload, (1, 1))
    with serve(settings, tmp_path / "second.log"):
        assert list(left.iterdir()) == []


def test_a_full_disk_is_said_and_leaves_nothing(front: Front, tmp_path: Path) -> None:
    """The disk is a real one: a file system of 1 MiB, which only this server sees."""
    room = tmp_path / "small"
    room.mkdir()
    wrap = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
            f'mount -t tmpfs -o size=1m tmpfs {room} && exec "$@"', "sh")  # fmt: skip
    if subprocess.run([*wrap, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a small disk of their own")
    settings = make_settings(front.settings.database_url.get_secret_value(), room / "storage")
    with serve(settings, tmp_path / "api.log", wrap) as served, served.client(front.person()) as client:
        small = client.post("/documents", content=story(4 * 65536), headers=FORM)
        # Fits once, as it comes in, and not a second time, as it is stored.
        twice = client.post("/documents", content=_other(story(8 * 65536)), headers=FORM)
        large = client.post("/documents", content=story(4 * MIB), headers=FORM)
        again = client.post("/documents", content=_other(story(2 * 65536)), headers=FORM)
        seen = Path(f"/proc/{served.process.pid}/root{room}/storage")
        kept = sorted(path.name for path in seen.rglob("*") if path.is_file())
    assert (small.status_code, again.status_code) == (201, 201)
    for answer in (twice, large):
        assert (answer.status_code, error_code(answer)) == (507, "storage_full")
    assert kept == sorted([small.json()["sha256"], again.json()["sha256"]])
    assert front.play.one("select count(*) from documents") == 2


def _other(pieces: Iterator[bytes]) -> Iterator[bytes]:
    return (piece.replace(b"A line", b"B line") for piece in pieces)


# Logs and ends -------------------------------------------------------------------------------------


def test_each_request_is_a_line_of_json_that_holds_no_secret(front: Front, served: Served) -> None:
    person = front.person()
    job = submit_job(front, person)["id"]
    secret = "Once upon a midnight dreary"
    with served.client(person, follow_redirects=True) as client:
        client.get(f"/jobs/{job}?wait=0", headers={"X-Request-Id": "our-request-1"})
        client.post("/jobs", json={"pipeline": "line", "params": {"mark": secret}})
        client.post("/documents", files={"file": (f"{secret}.txt", secret.encode() * 10)})
        client.get("/nowhere", headers={"X-Request-Id": "bad id <script>"})
    (line,) = until(lambda: access_lines(served.log, request_id="our-request-1"))
    assert (line["method"], line["path"], line["status"]) == ("GET", "/api/v1/jobs/<uuid:job_id>", 200)
    assert (line["user"], line["tenant"], line["job"]) == (str(person.user), str(front.play.tenant), job)
    assert isinstance(line["ms"], float)
    (lost,) = until(lambda: access_lines(served.log, status=404, path=None))
    assert re.fullmatch(r"[0-9a-f]{32}", str(lost["request_id"]))
    text = served.log.read_text()
    assert secret not in text
    assert person.bearer()["Authorization"].split(".")[1] not in text


def test_refused_requests_and_streams_are_a_line_each_with_code_and_bytes(front: Front, served: Served) -> None:
    person = front.person()
    job = submit_job(front, person)["id"]
    with served.client(person) as client:
        refused = client.post("/jobs", json={"pipeline": "no such"}, headers={"X-Request-Id": "refused-1"})
        client.get("/jobs", headers={"X-Request-Id": "nobody-1", "Authorization": ""})
        client.get(f"/jobs/{job}", headers={"X-Request-Id": "same-304", "If-None-Match": "*"})
        with client.stream("GET", f"/jobs/{job}/stream", headers={"X-Request-Id": "stream-1"}) as stream:
            pieces = stream.iter_raw()
            first = next(pieces)
            assert access_lines(served.log, request_id="stream-1") == [], "a stream is told of at its end"
            front.play.cancel(UUID(job))
            sent = len(first + b"".join(pieces))
    (line,) = until(lambda: access_lines(served.log, request_id="stream-1"))
    assert (line["status"], line["code"], line["bytes"], line["job"]) == (200, None, sent, job)
    (line,) = access_lines(served.log, request_id="refused-1")
    assert (line["status"], line["code"], line["bytes"]) == (422, "unknown_pipeline", len(refused.content))
    assert line["user"] == str(person.user)
    (line,) = access_lines(served.log, request_id="nobody-1")
    assert (line["status"], line["code"], line["user"], line["tenant"]) == (401, "token_missing", None, None)
    (line,) = access_lines(served.log, request_id="same-304")
    assert (line["status"], line["bytes"]) == (304, 0)


def test_a_line_says_with_which_key_a_machine_came(front: Front, served: Served) -> None:
    made = front.person().post("/keys", json={"name": "Import", "role": "viewer"}).get_json()
    headers = {"Authorization": f"Bearer {made['secret']}", "X-Request-Id": "machine-1"}
    httpx.get(f"{served.url}{PREFIX}/jobs", headers=headers)
    (line,) = until(lambda: access_lines(served.log, request_id="machine-1"))
    assert (line["key"], line["user"]) == (made["id"], made["id"])
    with served.client(person := front.person()) as client:
        client.get("/jobs", headers={"X-Request-Id": "person-1"})
    (line,) = until(lambda: access_lines(served.log, request_id="person-1"))
    assert (line["key"], line["user"]) == (None, str(person.user))


def test_a_stopping_server_ends_streams_and_polls_and_exits_cleanly(front: Front, log: Path) -> None:
    person = front.person()
    job = submit_job(front, person)["id"]
    with serve(front.settings, log) as served:
        with served.client(person) as client, client.stream("GET", f"/jobs/{job}/stream") as response:
            lines = response.iter_lines()
            assert next(lines) == "retry: 2000"
            served.process.terminate()
            assert "event: end" not in list(lines)
        assert served.process.wait(15) == 0


def test_a_sender_that_falls_silent_does_not_keep_its_place(front: Front) -> None:
    class Socket:
        timeout: float | None = -1

        def settimeout(self, seconds: float | None) -> None:
            self.timeout = seconds

    sockets = {method: Socket() for method in ("GET", "POST")}
    for method, connection in sockets.items():
        front.app.test_client().open("/nowhere", method=method, environ_base={"gunicorn.socket": connection},
                                     data=b"x" if method == "POST" else None)  # fmt: skip
    assert (sockets["GET"].timeout, sockets["POST"].timeout) == (None, SILENCE_S)


def test_broken_http_gets_no_traceback(served: Served) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"NONSENSE\r\n\r\n")
        assert b"Traceback" not in connection.recv(65536)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("DELETE", f"{PREFIX}/jobs", 405, "method_not_allowed"),
        ("POST", f"{PREFIX}/me", 405, "method_not_allowed"),
        ("GET", f"{PREFIX}/jobs/", 404, "not_found"),
        ("GET", f"{PREFIX}/jobs/%00", 404, "not_found"),
    ],
)
def test_what_the_framework_refuses_comes_in_the_same_envelope(
    front: Front, method: str, path: str, status: int, code: str
) -> None:
    answer = front.app.test_client().open(path, method=method)
    assert (answer.status_code, error_code(answer)) == (status, code)
    assert answer.headers["X-Request-Id"]
    assert ("Allow" in answer.headers) == (status == 405)
