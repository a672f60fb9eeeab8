"""Pages on other origins: those that are named may use every call, from a real browser too, and no others may."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import httpx
import pytest
from api_play import PREFIX, SECRET, Front, Person, Served, make_settings, make_token, serve, submit_job
from flask import Flask
from tree import read

from api import create_app
from api.house import house_of
from api.openapi import full_path, list_calls
from tasks.settings import Settings, SettingsInvalid, load

APP = "https://app.example.com"
DESK = "http://localhost:5173"
OTHER = "https://app.example.com.evil.example"
EXPOSED = {"location", "etag", "idempotent-replayed", "x-request-id", "retry-after"}


@pytest.fixture(scope="module")
def open_app(api_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """An API that two origins may use."""
    url = api_settings.database_url.get_secret_value()
    made = create_app(make_settings(url, tmp_path_factory.mktemp("cors"), allowed_origins=f" {APP} ,{DESK},"))
    yield made
    house_of(made).close()


@pytest.fixture
def person(front: Front, open_app: Flask) -> Person:
    """A member at that API."""
    return Person(open_app, front.person().user)


def ask(app: Flask, path: str, origin: str | None, method: str = "POST", headers: str = "authorization") -> Any:
    """The preflight a browser sends."""
    sent = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return app.test_client().options(path, headers=sent | ({"Origin": origin} if origin else {}))


def allowed(response: Any) -> str | None:
    origin = response.headers.get("Access-Control-Allow-Origin")
    return None if origin is None else str(origin)


# Preflight -----------------------------------------------------------------------------------------


def test_every_call_may_be_asked_for_by_a_named_origin_without_a_token(open_app: Flask) -> None:
    calls = list_calls(open_app)
    assert len(calls) > 20
    for call in calls:
        path = full_path(call).replace("{", "").replace("}", "")
        answer = ask(open_app, path, DESK, call.method, "authorization,content-type")
        assert (answer.status_code, allowed(answer), answer.get_data()) == (204, DESK, b""), path
        assert call.method in answer.headers["Access-Control-Allow-Methods"].split(", ")
        assert answer.headers["Access-Control-Allow-Headers"] == "authorization,content-type"


@pytest.mark.parametrize(
    "headers",
    ["idempotency-key, x-tenant-id", "last-event-id", "if-none-match,traceparent,x-client-info", ""],
)
def test_a_named_origin_may_send_whatever_headers_it_needs(open_app: Flask, headers: str) -> None:
    answer = ask(open_app, f"{PREFIX}/jobs", APP, headers=headers)
    assert answer.headers.get("Access-Control-Allow-Headers", "") == headers


@pytest.mark.parametrize("headers", ["x" * 65, "a:b", "<script>", ",".join(["a"] * 40)])
def test_what_is_no_list_of_headers_is_not_said_back(open_app: Flask, headers: str) -> None:
    assert "Access-Control-Allow-Headers" not in ask(open_app, f"{PREFIX}/jobs", APP, headers=headers).headers


@pytest.mark.parametrize("origin", [OTHER, "http://app.example.com", f"{APP}:8443", f"{APP}/", "null", "*", ""])
def test_no_other_origin_may_ask(open_app: Flask, origin: str) -> None:
    answer = ask(open_app, f"{PREFIX}/jobs", origin)
    assert not [name for name, _ in answer.headers if name.startswith("Access-Control")]


def test_nobody_may_ask_where_no_origin_is_named(app: Flask) -> None:
    for answer in (ask(app, f"{PREFIX}/jobs", APP), app.test_client().get("/healthz", headers={"Origin": APP})):
        assert allowed(answer) is None
        assert "Origin" not in answer.headers.get("Vary", "")


def test_a_question_that_is_not_a_preflight_still_needs_a_token(open_app: Flask) -> None:
    answer = open_app.test_client().options(f"{PREFIX}/jobs", headers={"Origin": APP})
    assert answer.status_code == 401


# Answers -------------------------------------------------------------------------------------------


def test_an_answer_may_be_read_with_the_headers_that_matter(person: Person) -> None:
    answer = person.get("/me", headers={"Origin": APP})
    assert allowed(answer) == APP
    assert {name.strip().lower() for name in answer.headers["Access-Control-Expose-Headers"].split(",")} >= EXPOSED
    assert "Origin" in answer.headers["Vary"]
    assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/jobs/7", 404), ("GET", "/nowhere", 404), ("PUT", "/jobs", 405), ("GET", "/jobs?limit=0", 422)],
)
def test_errors_may_be_read_too(person: Person, method: str, path: str, status: int) -> None:
    answer = person.call(method, path, headers={"Origin": APP})
    assert (answer.status_code, allowed(answer)) == (status, APP)


def test_that_the_token_is_missing_may_be_read_too(open_app: Flask) -> None:
    answer = open_app.test_client().get(f"{PREFIX}/jobs", headers={"Origin": APP})
    assert (answer.status_code, allowed(answer)) == (401, APP)


def test_another_origin_is_answered_and_may_not_read_it(person: Person) -> None:
    for origin in (OTHER, "null", None):
        answer = person.get("/me", headers={"Origin": origin})
        assert (answer.status_code, allowed(answer)) == (200, None)
        assert "Origin" in answer.headers["Vary"], "a cache must not give this to a page that may"


# Settings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origins",
    ["*", "https://*.example.com", "app.example.com", f"{APP}/", f"{APP}/app", "https://App.example.com", "null",
     f"{APP}:443", "http://localhost:80", f"{APP} {DESK}", "https://", "https://user@example.com", "//example.com"],
)  # fmt: skip
def test_what_no_browser_would_send_is_refused_at_start(origins: str) -> None:
    with pytest.raises(SettingsInvalid, match="ALLOWED_ORIGINS"):
        load(database_url="postgresql://x", link_secret="x", allowed_origins=f"{APP},{origins}")


def test_origins_are_named_exactly_by_comma() -> None:
    given = [
        APP,
        DESK,
        "http://127.0.0.1:8080",
        "http://[::1]:3000",
        "https://xn--bcher-kva.example",
        "capacitor://localhost",
    ]
    found = load(database_url="postgresql://x", link_secret="x", allowed_origins=", ".join(given) + ",")
    assert found.origins == set(given)
    assert load(database_url="postgresql://x", link_secret="x").origins == frozenset()


# The real server -----------------------------------------------------------------------------------


@dataclass
class Page:
    """A web server with one page. `origin`: where it is; `told`: what the page's script has reported."""

    origin: str = ""
    html: str = ""
    told: dict[str, Any] = field(default_factory=dict)
    done: threading.Event = field(default_factory=threading.Event)


class PageServer(BaseHTTPRequestHandler):
    """Gives the page, and takes its report."""

    def do_GET(self) -> None:
        self._say(cast(Any, self.server).page.html.encode())

    def do_POST(self) -> None:
        page: Page = cast(Any, self.server).page
        page.told |= json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._say(b"")
        page.done.set()

    def _say(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def open_page() -> Iterator[Page]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), PageServer)
    page = Page(origin=f"http://127.0.0.1:{server.server_address[1]}")
    cast(Any, server).page = page
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield page
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def pages() -> Iterator[tuple[Page, Page]]:
    """A page whose origin is named, and one whose origin is not."""
    with open_page() as ours, open_page() as theirs:
        yield ours, theirs


@pytest.fixture(scope="module")
def open_served(
    api_settings: Settings, pages: tuple[Page, Page], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """The API as a process of its own, which the first page may use."""
    folder = tmp_path_factory.mktemp("cors-served")
    settings = make_settings(
        api_settings.database_url.get_secret_value(), folder / "storage", allowed_origins=pages[0].origin,
        max_upload_bytes=1024 * 1024,
    )  # fmt: skip
    with serve(settings, folder / "api.log") as running:
        yield running


def test_uploads_streams_and_downloads_of_the_real_server_may_be_read(
    front: Front, open_served: Served, pages: tuple[Page, Page]
) -> None:
    origin = pages[0].origin
    with open_served.client(front.person(), event_hooks={}) as client:
        client.headers["Origin"] = origin
        asked = client.options("/documents", headers={"Access-Control-Request-Method": "POST"})
        assert (asked.status_code, allowed(asked)) == (204, origin)
        upload = client.post("/documents", files={"file": ("a.txt", b"Once upon a time.")})
        assert (upload.status_code, allowed(upload)) == (201, origin)
        large = client.post("/documents", files={"file": ("a.txt", b"x" * 3 * 1024 * 1024)})
        assert (large.status_code, allowed(large)) == (413, origin)
        job = submit_job(front)["id"]
        front.play.cancel(UUID(job))
        with client.stream("GET", f"/jobs/{job}/stream") as stream:
            assert allowed(stream) == origin
            assert "event: end" in stream.read().decode()
        link = client.get("/files/nonsense")
        assert (link.status_code, allowed(link)) == (404, origin)


SCRIPT = """
<!doctype html><meta charset="utf-8"><title>A page</title><script>
const api = %(api)s, token = %(token)s, job = %(job)s;
const bearer = {Authorization: `Bearer ${token}`};
const API = api, accessToken = async () => token;
%(example)s
async function attempt(work) { try { return await work(); } catch (error) { return `${error.name}`; } }
async function run() {
  const told = {};
  told.upload = await attempt(async () => {
    const form = new FormData();
    form.append("file", new Blob(["Once upon a time there was a browser."]), "story.txt");
    const answer = await fetch(`${api}/documents`, {method: "POST", headers: bearer, body: form});
    return [answer.status, !!answer.headers.get("Location"), !!answer.headers.get("X-Request-Id")];
  });
  told.job = await attempt(async () => {
    const headers = {...bearer, "Content-Type": "application/json", "Idempotency-Key": "one"};
    const body = JSON.stringify({pipeline: "line", params: {width: 5}});
    await fetch(`${api}/jobs`, {method: "POST", headers, body});
    const answer = await fetch(`${api}/jobs`, {method: "POST", headers, body});
    return [answer.status, answer.headers.get("Idempotent-Replayed"), (await answer.json()).status];
  });
  told.etag = await attempt(async () => {
    const first = await fetch(`${api}/jobs/${job}`, {headers: bearer, cache: "no-store"});
    const known = {...bearer, "If-None-Match": first.headers.get("ETag")};
    return [first.status, (await fetch(`${api}/jobs/${job}`, {headers: known, cache: "no-store"})).status];
  });
  told.stream = await attempt(async () => {
    const answer = await fetch(`${api}/jobs/${job}/stream`, {headers: {...bearer, "Last-Event-ID": "1"}});
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) text += piece.value;
    return [answer.status, /^id: 2$/m.test(text), /^id: 1$/m.test(text), /^event: end$/m.test(text)];
  });
  told.events = await attempt(async () => {
    await fetch(`${api}/me`, {headers: bearer});
    const kinds = [];
    return new Promise((resolve) => follow(`/jobs/${job}/stream`, (event) => {
      kinds.push(event.kind);
      if (event.kind === "completed") resolve([kinds[0], kinds.length, document.title]);
    }));
  });
  told.artifact = await attempt(async () => {
    const listed = await (await fetch(`${api}/jobs/${job}/artifacts`, {headers: bearer})).json();
    const self = listed.artifacts[0].links.self.replace("/api/v1", "");
    const link = await (await fetch(`${api}${self}?redirect=0`, {headers: bearer})).json();
    return await (await fetch(link.url)).text();
  });
  told.error = await attempt(async () => (await (await fetch(`${api}/me`)).json()).error.code);
  await fetch("/told", {method: "POST", body: JSON.stringify(told)});
}
run();
</script>
"""


@pytest.fixture
def browser() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found:
        pytest.skip("needs Chromium")
    return found


@contextmanager
def visiting(browser: str, profile: Path, address: str) -> Iterator[None]:
    """A browser that has this page open."""
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
    quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync")
    process = subprocess.Popen(
        [browser, *options, *quiet, f"--user-data-dir={profile}", "--remote-debugging-port=0", address],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


def example() -> str:
    """What our documents tell the makers of pages to write."""
    found = re.search(r"```js\n(async function follow.*?)```", read("docs/streams.md"), re.DOTALL)
    assert found
    return found[1]


def test_in_a_real_browser_the_named_page_can_do_everything_and_the_other_nothing(
    front: Front, open_served: Served, pages: tuple[Page, Page], browser: str, tmp_path: Path
) -> None:
    person = front.person()
    job = submit_job(front, person)["id"]
    content = b"the answer is 6"
    with open_served.client(person) as client:
        stored = client.post("/documents", files={"file": ("answer.txt", content)}).json()
    file = {"name": "answer.txt", "media_type": "text/plain", "sha256": stored["sha256"], "bytes": len(content)}
    front.play.complete(front.play.begin(), 1, artifacts=[file])
    front.play.finish_all()
    given = {"api": open_served.url + PREFIX, "token": make_token(person.user, SECRET), "job": job}
    for page in pages:
        page.html = SCRIPT % ({name: json.dumps(value) for name, value in given.items()} | {"example": example()})
    ours, theirs = pages
    ours.html += f'<iframe src="{theirs.origin}"></iframe>'
    with visiting(browser, tmp_path / "profile", ours.origin):
        for page in pages:
            assert page.done.wait(40), "the page has not reported"
    assert ours.told == {
        "upload": [201, True, True],
        "job": [202, "true", "queued"],
        "etag": [200, 304],
        "stream": [200, True, False, True],
        "events": ["submitted", front.play.job(UUID(job))["last_seq"], "A page"],
        "artifact": content.decode(),
        "error": "token_missing",
    }
    assert set(theirs.told.values()) == {"TypeError"}
    documents = httpx.get(f"{open_served.url}{PREFIX}/documents", headers=person.bearer()).json()["documents"]
    assert [document["title"] for document in documents] == ["story", "answer"]
