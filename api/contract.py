"""How a call is declared: one decorator that says everything a client may rely on, and holds the view to it.

    @jobs.call("POST", "/jobs", "Start a job", access=Access.WRITE, body=NewJob, gives=Job, status=202, errors=(...))
    def submit_job(member: Member, body: NewJob) -> Reply: ...

A view is handed by name what its declaration promises: `member` (READ, WRITE, REVIEW, OWN) or `caller` (USER), `query`,
`body`, and the parts of its path. What is declared here is also what /openapi.json shows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from flask import Blueprint, Response, current_app, g, request
from pydantic import BaseModel

from api import people
from api.codes import EVERYWHERE, MEMBERSHIP, SIGNED_IN
from api.headers import Header
from api.house import house
from api.incoming import read_body, read_query
from api.tokens import Caller
from tasks.errors import Refused

JSON = "application/json"
Headers = dict[str, str]
View = TypeVar("View", bound=Callable[..., Any])


class Access(Enum):
    """Who may call."""

    PUBLIC = "anyone"
    USER = "a signed-in user"
    READ = "a member of the tenant"
    WRITE = "an owner or editor of the tenant"
    REVIEW = "an owner, editor or reviewer of the tenant"
    OWN = "an owner of the tenant"


MEMBERS = (Access.READ, Access.WRITE, Access.REVIEW, Access.OWN)


@dataclass(frozen=True)
class Reply:
    """A typed answer. `status` replaces the declared one."""

    value: BaseModel
    status: int | None = None
    headers: Headers = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One declared call. `also`: other answers without an error, by status. `media`: of the answer; `other_media`: what
    it may come as instead, if the request says so.

    `takes`: media types of a body that the view reads by itself, each with its model, or None for plain bytes.
    `ticket`: a stream ticket opens it as well as a token does. `proves`: the view has the database prove who asks, so
    that it need not be asked first.
    """

    method: str
    path: str
    summary: str
    description: str
    tag: str
    access: Access
    status: int
    gives: type[BaseModel] | None
    query: type[BaseModel] | None
    body: type[BaseModel] | None
    form: type[BaseModel] | None
    takes: dict[str, type[BaseModel] | None]
    media: str
    other_media: tuple[str, ...]
    takes_headers: dict[str, Header]
    gives_headers: dict[str, str]
    also: dict[int, str]
    errors: tuple[str, ...]
    ticket: bool
    proves: bool

    @property
    def operation_id(self) -> str:
        """Its name for programs, made of the summary."""
        return self.summary.lower().replace("'", "").replace(" ", "_")

    @property
    def codes(self) -> tuple[str, ...]:
        """Every error code this call may answer with."""
        found = [*self.errors, *EVERYWHERE]
        found += ["json_broken", "body_too_large", "media_type_unsupported"] if self.body else []
        found += ["media_type_unsupported"] if self.form or self.takes else []
        found += ["request_invalid"] if self.body or self.query or self.form else []
        found += SIGNED_IN if self.access is not Access.PUBLIC else []
        found += ["ticket_invalid"] if self.ticket else []
        found += MEMBERSHIP if self.access in MEMBERS else []
        found += ["role_not_allowed"] if self.access in (Access.WRITE, Access.REVIEW, Access.OWN) else []
        return tuple(dict.fromkeys(found))


class Room(Blueprint):
    """A blueprint for one noun. `about` stands over its calls in the documents."""

    def __init__(self, name: str, about: str) -> None:
        super().__init__(name, __name__)
        self.about = about

    def call(
        self,
        method: str,
        path: str,
        summary: str,
        *,
        access: Access,
        gives: type[BaseModel] | None = None,
        status: int = 200,
        query: type[BaseModel] | None = None,
        body: type[BaseModel] | None = None,
        form: type[BaseModel] | None = None,
        takes: dict[str, type[BaseModel] | None] | None = None,
        media: str = JSON,
        other_media: tuple[str, ...] = (),
        takes_headers: dict[str, Header] | None = None,
        gives_headers: dict[str, str] | None = None,
        also: dict[int, str] | None = None,
        errors: tuple[str, ...] = (),
        ticket: bool = False,
        proves: bool = False,
    ) -> Callable[[View], View]:
        """Declare the decorated view as this call."""

        def declare(view: View) -> View:
            call = Call(
                method=method,
                path=path,
                summary=summary,
                description=_paragraphs(view.__doc__),
                tag=self.name,
                access=access,
                status=status,
                gives=gives,
                query=query,
                body=body,
                form=form,
                takes=takes or {},
                media=media,
                other_media=other_media,
                takes_headers=takes_headers or {},
                gives_headers=gives_headers or {},
                also=also or {},
                errors=errors,
                ticket=ticket,
                proves=proves,
            )
            self.add_url_rule(path, view.__name__, _handler(call, view), methods=[method])
            return view

        return declare


def declared_call() -> Call | None:
    """The declaration of the call at hand; None for addresses that have none."""
    handler = current_app.view_functions.get(request.endpoint or "")
    return getattr(handler, "call", None)


def _handler(call: Call, view: Callable[..., Any]) -> Callable[..., Response]:
    @functools.wraps(view)
    def handle(**path: Any) -> Response:
        given = path | _read(call)
        if call.access is Access.USER:
            given["caller"] = _count(people.identify(house(), g.asker))
        elif call.access is not Access.PUBLIC:
            given["member"] = _enter(call, given, recall=call.proves)
        try:
            return _write(call, view(**given))
        except people.Outdated:
            given["member"] = _enter(call, given)
            return _write(call, view(**given))

    handle.call = call  # type: ignore[attr-defined]
    return handle


def _read(call: Call) -> dict[str, Any]:
    try:
        return _read_request(call)
    except Refused:
        # What is wrong with a request is told to those who may ask, and a key was not looked up yet.
        if call.access is not Access.PUBLIC:
            people.identify(house(), g.asker)
        raise


def _read_request(call: Call) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if call.query:
        given["query"] = read_query(call.query)
    if call.body:
        given["body"] = read_body(call.body, house().settings.max_body_bytes)
    return given


def _enter(call: Call, given: dict[str, Any], recall: bool = False) -> people.Member:
    asked = given.get("body") or given.get("query")
    writes = call.access is Access.WRITE
    desk = house()
    member = people.enter(desk, g.asker, getattr(asked, "pipeline", None) if writes else None, recall)
    g.tenant_id = member.tenant_id
    if "rate" not in g:  # whoever was taken for somebody they are no longer is let in twice
        most = member.requests_per_minute or desk.settings.requests_per_minute
        desk.rates.count(member.user_id, member.tenant_id, most)
    if writes:
        people.require_writer(member)
    elif call.access is Access.REVIEW:
        people.require_reviewer(member)
    elif call.access is Access.OWN:
        people.require_owner(member)
    return member


def _count(caller: Caller) -> Caller:
    """A caller whose request was counted, outside of any tenant."""
    desk = house()
    desk.rates.count(caller.user_id, None, desk.settings.requests_per_minute)
    return caller


def _write(call: Call, answer: Any) -> Response:
    if isinstance(answer, Response):
        return answer
    reply = answer if isinstance(answer, Reply) else Reply(answer)
    status = reply.status or call.status
    return Response(reply.value.model_dump_json(by_alias=True), status, reply.headers, mimetype=JSON)


def _paragraphs(text: str | None) -> str:
    """A docstring as prose: lines of a paragraph joined."""
    blocks = (text or "").strip().split("\n\n")
    return "\n\n".join(" ".join(block.split()) for block in blocks)
