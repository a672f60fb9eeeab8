"""Every route, asked by everybody who may come to the door, with something there to be asked for.

A route has one row here. Whoever adds a route adds its row: who may call it, what those are answered, and what goes
with the request so that the answer says something.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from api_play import PREFIX, Front, error_code, new_job_id
from matrix_play import (
    EDITORS,
    EVERYBODY,
    MEMBERS,
    OWNERS,
    REFUSED,
    REVIEWERS,
    USERS,
    Row,
    Stage,
    ask,
    askers,
    body,
    bytes_alone,
    file,
    lines,
)

from api.openapi import full_path, list_calls

ROWS = {
    "POST /documents": Row(EDITORS, 201, send=file),
    "GET /documents": Row(MEMBERS, 200),
    "GET /documents/{document_id}": Row(MEMBERS, 200),
    "DELETE /documents/{document_id}": Row(EDITORS, 200),
    "POST /documents/{document_id}/cancel": Row(EDITORS, 200),
    "POST /documents/uploads": Row(EDITORS, 201, send=body(filename="a.txt", bytes=5)),
    "POST /documents/{document_id}/uploaded": Row(EDITORS, 201, send=body(), parts={"document_id": Stage.upload}),
    "PUT /uploads/{token}": Row(EVERYBODY, 200, send=bytes_alone, parts={"token": Stage.upload_link}),
    "POST /jobs": Row(EDITORS, 202, elsewhere=404, send=body(pipeline="reading", document_id=Stage.document)),
    "GET /jobs": Row(MEMBERS, 200),
    "GET /jobs/{job_id}": Row(MEMBERS, 200),
    "POST /jobs/{job_id}/cancel": Row(EDITORS, 200),
    "POST /jobs/{job_id}/retry": Row(EDITORS, 202, parts={"job_id": Stage.failed_job}),
    "GET /jobs/{job_id}/events": Row(MEMBERS, 200),
    "GET /jobs/{job_id}/stream": Row(MEMBERS, 200, parts={"job_id": Stage.finished_job}),
    "GET /documents/{document_id}/stream": Row(MEMBERS, 200, live=True),
    "GET /stream": Row(MEMBERS, 200, live=True),
    "POST /stream-tickets": Row(MEMBERS, 201),
    "GET /jobs/{job_id}/artifacts": Row(MEMBERS, 200, parts={"job_id": Stage.finished_job}),
    "POST /batches": Row(EDITORS, 202, send=lines),
    "GET /batches": Row(MEMBERS, 200),
    "GET /batches/{batch_id}": Row(MEMBERS, 200),
    "GET /batches/{batch_id}/items": Row(MEMBERS, 200),
    "POST /batches/{batch_id}/cancel": Row(EDITORS, 202),
    "POST /batches/{batch_id}/retry": Row(EDITORS, 202, parts={"batch_id": Stage.failed_batch}),
    "GET /artifacts/{artifact_id}": Row(MEMBERS, 302),
    "GET /files/{token}": Row(EVERYBODY, 200),
    "GET /review": Row(MEMBERS, 200),
    "GET /review/{review_id}": Row(MEMBERS, 200),
    "POST /review/{review_id}/assign": Row(REVIEWERS, 200, send=body(user_id=None)),
    "POST /review/{review_id}/approve": Row(REVIEWERS, 200),
    "POST /review/{review_id}/reject": Row(REVIEWERS, 200),
    "POST /review/{review_id}/reprocess": Row(REVIEWERS, 200, send=body(from_step="draft")),
    "GET /export": Row(MEMBERS, 200),
    "GET /keys": Row(OWNERS, 200),
    "POST /keys": Row(OWNERS, 201, send=body(name="Import", role="viewer")),
    "DELETE /keys/{key_id}": Row(OWNERS, 200),
    "POST /webhooks": Row(OWNERS, 201, send=body(url="https://93.184.216.34/hook")),
    "GET /webhooks": Row(OWNERS, 200),
    "GET /webhooks/{webhook_id}": Row(OWNERS, 200),
    "PATCH /webhooks/{webhook_id}": Row(OWNERS, 200, send=body(enabled=False)),
    "DELETE /webhooks/{webhook_id}": Row(OWNERS, 204),
    "POST /webhooks/{webhook_id}/rotate-secret": Row(OWNERS, 200),
    "POST /webhooks/{webhook_id}/test": Row(OWNERS, 202),
    "GET /webhooks/{webhook_id}/deliveries": Row(OWNERS, 200),
    "POST /webhooks/{webhook_id}/deliveries/{delivery_id}/retry": Row(OWNERS, 202),
    "GET /me": Row(USERS, 200),
    "GET /pipelines": Row(USERS, 200),
    "GET /healthz": Row(EVERYBODY, 200),
    "GET /readyz": Row(EVERYBODY, 503),  # no worker is there
    "GET /metrics": Row(EVERYBODY, 200),  # asked from the same machine
    "GET /openapi.json": Row(EVERYBODY, 200),
    "GET /docs": Row(EVERYBODY, 200),
}


def test_every_route_has_a_row_and_every_row_a_route(front: Front) -> None:
    routes = {f"{call.method} {full_path(call).removeprefix(PREFIX)}" for call in list_calls(front.app)}
    forgotten = sorted(routes - set(ROWS))
    assert forgotten == [], (
        'these routes have no row in ROWS: add `"METHOD /path": Row(who may call, status of success)`, with `send` and'
        " `parts` where the request needs a body or a particular thing to ask for"
    )
    assert sorted(set(ROWS) - routes) == [], "these rows have no route any more: delete them"


def test_every_address_wants_a_token_unless_its_row_is_open_to_everybody(front: Front) -> None:
    """Also addresses that no declaration made, and methods that a route does not take."""
    public = {route.split()[1] for route, row in ROWS.items() if row.open_to == EVERYBODY}
    for rule in front.app.url_map.iter_rules():
        shown = re.sub(r"<(?:uuid:)?(\w+)>", r"{\1}", rule.rule).removeprefix(PREFIX)
        path = re.sub(r"<uuid:\w+>", str(new_job_id()), rule.rule).replace("<token>", "t")
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            answer = front.app.test_client().open(path, method=method)
            assert (answer.status_code == 401) == (shown not in public), (method, rule.rule, answer.status_code)


@pytest.mark.parametrize("route", ROWS)
def test_everybody_is_answered_as_the_matrix_says(front: Front, route: str) -> None:
    row, (method, path), stage = ROWS[route], route.split(), Stage(front)
    answers, changed = {}, {}
    for asker, person in askers(front).items():
        response, changed[asker] = ask(stage, row, person, method, path)
        answers[asker] = (response.status_code, error_code(response) if response.status_code in (401, 403, 404) else "")
    assert answers.keys() == EVERYBODY
    assert {asker: status for asker, (status, _) in answers.items()} == {
        asker: row.expected(asker, path) for asker in answers
    }
    for asker, (status, code) in answers.items():
        assert code == {401: REFUSED.get(asker), 403: "role_not_allowed"}.get(status, code), asker
        assert status < 400 or not changed[asker], f"{asker} was refused, and something changed"


NAMING = [route for route, row in ROWS.items() if "{" in route and row.open_to != EVERYBODY]


@pytest.mark.parametrize("route", NAMING)
def test_what_belongs_to_others_is_answered_like_what_does_not_exist(front: Front, route: str) -> None:
    row, (method, path), stage, stranger = ROWS[route], route.split(), Stage(front), front.stranger()
    invented = replace(row, parts={name: lambda _: new_job_id() for name in re.findall(r"{(\w+)}", path)})
    of_others, of_nobody = (ask(stage, one, stranger, method, path)[0] for one in (row, invented))
    assert (of_others.status_code, of_others.get_json()) == (of_nobody.status_code, of_nobody.get_json())
    assert of_others.status_code == 404
