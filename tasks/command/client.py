"""The API as the commands use it: a handful of calls over HTTP."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from tasks.command.events import Event, Frame, read_frames
from tasks.errors import LedgerlineError, Refused, Unavailable

Json = dict[str, Any]

_CONNECT_S = 5.0
_ANSWER_S = 60.0
# The stream sends a sign of life at least every quarter of a minute.
_SILENCE_S = 45.0
_PAGE = 100


@dataclass(frozen=True)
class Endpoint:
    """Where the API is, the token to show there (None: none), and the tenant to act for (None: the user's only one)."""

    url: str
    token: str | None = None
    tenant: str | None = None


class Client:
    """Calls to one API as one user. Raises Refused as the API refuses, Unavailable when it does not answer."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        headers = {"User-Agent": "ledgerline-command"}
        headers |= {"Authorization": f"Bearer {endpoint.token}"} if endpoint.token else {}
        headers |= {"X-Tenant-Id": endpoint.tenant} if endpoint.tenant else {}
        timeout = httpx.Timeout(_ANSWER_S, connect=_CONNECT_S)
        with _explained(endpoint.url):
            self._http = httpx.Client(base_url=f"{endpoint.url}/api/v1", headers=headers, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def upload(self, path: Path) -> Json:
        """Upload a file; the document."""
        with path.open("rb") as file:
            return self._call("POST", "/documents", files={"file": (path.name, file)})

    def submit(self, pipeline: str, document_id: str, params: Json, *, fresh: bool = False) -> tuple[Json, bool]:
        """Start a job. The job, and whether it is new: an equal request gets the job it made before."""
        body: Json = {"pipeline": pipeline, "document_id": document_id, "params": params}
        response = self._send("POST", "/jobs", json=body | ({"fresh": True} if fresh else {}))
        return response.json(), "Idempotent-Replayed" not in response.headers

    def document(self, document_id: str) -> Json:
        """One document."""
        return self._call("GET", f"/documents/{_part(document_id)}")

    def job(self, job_id: str) -> Json:
        """One job."""
        return self._call("GET", f"/jobs/{_part(job_id)}")

    def jobs(self, status: str | None, limit: int) -> list[Json]:
        """Jobs, newest first, at most `limit`."""
        return self._pages("/jobs", "jobs", {"status": status} if status else {}, limit)

    def events(self, job_id: str) -> list[Event]:
        """A job's whole history."""
        found: list[Event] = []
        while True:
            after = found[-1].seq if found else 0
            page = self._call("GET", f"/jobs/{_part(job_id)}/events", params={"after": after, "limit": _PAGE})["events"]
            found += [Event.from_json(row) for row in page]
            if len(page) < _PAGE:
                return found

    def cancel(self, job_id: str, reason: str) -> Json:
        """Stop a job."""
        return self._call("POST", f"/jobs/{_part(job_id)}/cancel", json={"reason": reason})

    def retry(self, job_id: str) -> Json:
        """Reopen a failed job."""
        return self._call("POST", f"/jobs/{_part(job_id)}/retry")

    def reviews(self, limit: int, **filters: str | None) -> list[Json]:
        """Reviews, at most `limit`; filters as the API has them, None: no such filter."""
        given = {name: value for name, value in filters.items() if value is not None}
        return self._pages("/review", "reviews", given, limit)

    def review(self, review_id: str) -> Json:
        """One review, with the steps its job could run again from."""
        return self._call("GET", f"/review/{_part(review_id)}")

    def decide(self, review_id: str, verb: str, decision: Json) -> Json:
        """Approve, reject or reprocess; the review as it is then."""
        return self._call("POST", f"/review/{_part(review_id)}/{verb}", json=decision)

    def artifacts(self, job_id: str) -> list[Json]:
        """The artifacts of a job: id, name, media_type, bytes, step, item."""
        return self._pages(f"/jobs/{_part(job_id)}/artifacts", "artifacts", {}, sys.maxsize)

    def link(self, artifact_id: str) -> Json:
        """A short-lived link to an artifact that needs no token: url, expires_in (seconds), name."""
        return self._call("GET", f"/artifacts/{_part(artifact_id)}", params={"redirect": "0"})

    def save(self, artifact_id: str, target: Path) -> None:
        """Download an artifact; the file appears when it is whole."""
        draft = target.with_name(f".{target.name}.part")
        with (
            _explained(self.endpoint.url),
            self._http.stream("GET", f"/artifacts/{_part(artifact_id)}", follow_redirects=True) as response,
        ):
            _check(response)
            with draft.open("wb") as file:
                for chunk in response.iter_bytes():
                    file.write(chunk)
        draft.replace(target)

    @contextmanager
    def stream(self, job_id: str, after: int) -> Iterator[Iterator[Frame]]:
        """The messages of a job's live stream that come after event number `after`."""
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        timeout = httpx.Timeout(_SILENCE_S, connect=_CONNECT_S)
        with (
            _explained(self.endpoint.url),
            self._http.stream("GET", f"/jobs/{_part(job_id)}/stream", headers=headers, timeout=timeout) as response,
        ):
            _check(response)
            yield read_frames(response.iter_lines())

    def readiness(self, timeout_s: float) -> Json | None:
        """What the API says about being ready; None when it does not answer in time. `ready` is in it."""
        try:
            response = self._http.get("/readyz", timeout=timeout_s)
            return {"ready": response.is_success, **response.json()}
        except (httpx.TransportError, ValueError):
            return None

    def _pages(self, path: str, name: str, params: Json, limit: int) -> list[Json]:
        """The rows of a list that comes in pages, at most `limit`."""
        found: list[Json] = []
        while len(found) < limit:
            answer = self._call("GET", path, params=params | {"limit": min(_PAGE, limit - len(found))})
            found += answer[name]
            if not answer["next_cursor"]:
                break
            params = params | {"cursor": answer["next_cursor"]}
        return found

    def _call(self, method: str, path: str, **arguments: Any) -> Json:
        return dict(self._send(method, path, **arguments).json())

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        with _explained(self.endpoint.url):
            response = self._http.request(method, path, **arguments)
            _check(response)
            return response


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Failures of the network, as a sentence."""
    try:
        yield
    except httpx.InvalidURL as error:
        raise Refused("url_invalid", f"{url} is not a URL of an API.") from error
    except httpx.UnsupportedProtocol as error:
        raise Refused("url_invalid", f"{url} is not a URL of an API: it must begin with http or https.") from error
    except httpx.TransportError as error:
        message = f"The API at {url} does not answer. Is it running?"
        raise Unavailable("api_unreachable", message, detail=str(error)) from error


def _check(response: httpx.Response) -> None:
    """Raise what the API refused, with its code and its sentence."""
    if response.is_success:
        return
    response.read()
    try:
        error = response.json()["error"]
        code, message, details = str(error["code"]), str(error["message"]), error.get("details")
    except (ValueError, KeyError, TypeError):
        code, message, details = "unexpected_answer", f"The API answered with status {response.status_code}.", None
    if response.status_code >= 500 and "X-Request-Id" in response.headers:
        message = f"{message} (request {response.headers['X-Request-Id']})"
    kind: type[LedgerlineError] = Unavailable if response.status_code in (502, 503, 504) else Refused
    raise kind(code, message, details=details if isinstance(details, dict) else {}, status=response.status_code)


def _part(value: str) -> str:
    return quote(value, safe="")
