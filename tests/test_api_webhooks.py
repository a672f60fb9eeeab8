"""Webhooks at the front door: registered by owners, with a secret that is shown once, and a log of what was sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from api_play import Front, Person, error_code, new_job_id
from flask import Flask
from webhook_play import Authority, Receiver, Sender, receiving, sender_settings, status

from api import create_app
from api.house import house_of
from tasks.db import statement
from tasks.settings import Settings

PUBLIC = "https://93.184.216.34/hook?key=secret"
PRIVATE_URLS = ["https://127.0.0.1/", "https://localhost/", "https://169.254.169.254/latest", "https://[::1]/"]


def register(owner: Person, **body: Any) -> dict[str, Any]:
    answer = owner.post("/webhooks", json={"url": PUBLIC} | body)
    assert answer.status_code == 201, answer.get_json()
    return dict(answer.get_json())


@pytest.fixture
def owner(front: Front) -> Person:
    return front.person()


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, error_code(answer)


def test_a_webhook_is_registered_and_its_secret_is_shown_once(front: Front, owner: Person) -> None:
    answer = owner.post("/webhooks", json={"url": PUBLIC, "kinds": ["completed"]})
    webhook = answer.get_json()
    assert answer.headers["Location"] == webhook["links"]["self"]
    assert webhook["secret"].startswith("whsec_")
    assert (webhook["url"], webhook["kinds"], webhook["enabled"]) == (PUBLIC, ["completed"], True)
    assert webhook["created_by"] == str(owner.user)
    shown = owner.get(webhook["links"]["self"])
    assert shown.get_json() == {name: value for name, value in webhook.items() if name != "secret"}
    assert owner.get("/webhooks").get_json() == {"webhooks": [shown.get_json()], "next_cursor": None}
    assert register(owner)["secret"] != webhook["secret"]
    rows = front.play.all("select to_jsonb(w) as row from webhooks w")
    assert webhook["secret"] not in json.dumps([row["row"] for row in rows])


def test_without_kinds_it_is_told_of_what_a_product_waits_for(owner: Person) -> None:
    assert register(owner)["kinds"] == ["awaiting_review", "completed", "failed", "cancelled"]


@pytest.mark.parametrize(
    "url", [*PRIVATE_URLS, "http://example.com/", "https://a:b@93.184.216.34/", "https://1.1.1.1:22/"]
)
def test_an_address_that_may_not_be_called_is_refused_when_it_is_registered_and_when_it_is_changed(
    front: Front, owner: Person, url: str
) -> None:
    assert code(owner.post("/webhooks", json={"url": url})) == (422, "webhook_url_refused")
    webhook = register(owner)
    assert code(owner.call("PATCH", webhook["links"]["self"], json={"url": url})) == (422, "webhook_url_refused")
    assert owner.get(webhook["links"]["self"]).get_json()["url"] == PUBLIC


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"url": ""},
        {"url": "https://1.1.1.1/" + "x" * 2000},
        {"url": PUBLIC, "kinds": []},
        {"url": PUBLIC, "kinds": ["progress"]},
        {"url": PUBLIC, "kinds": "completed"},
        {"url": PUBLIC, "kinds": ["completed"] * 7},
        {"url": PUBLIC, "secret": "whsec_mine"},
    ],
)
def test_a_body_that_is_not_right_is_refused(owner: Person, body: dict[str, Any]) -> None:
    assert code(owner.post("/webhooks", json=body)) == (422, "request_invalid")


def test_a_tenant_has_a_limited_number_of_webhooks(front: Front, owner: Person) -> None:
    for _ in range(front.settings.max_webhooks):
        webhook = register(owner)
    answer = owner.post("/webhooks", json={"url": PUBLIC})
    assert code(answer) == (409, "too_many_webhooks")
    assert answer.get_json()["error"]["details"] == {"limit": 10}
    register(front.stranger())
    assert owner.call("DELETE", webhook["links"]["self"]).status_code == 204
    register(owner)


def test_webhooks_are_listed_page_by_page(owner: Person) -> None:
    made = [register(owner)["id"] for _ in range(5)]
    first = owner.get("/webhooks?limit=3").get_json()
    second = owner.get(f"/webhooks?limit=3&cursor={first['next_cursor']}").get_json()
    assert [one["id"] for one in first["webhooks"] + second["webhooks"]] == made[::-1]
    assert second["next_cursor"] is None
    assert code(owner.get("/webhooks?cursor=nonsense")) == (400, "cursor_invalid")


def test_a_webhook_is_changed_disabled_and_enabled(front: Front, owner: Person) -> None:
    path = register(owner)["links"]["self"]
    other = "https://1.1.1.1:8443/"
    changed = owner.call("PATCH", path, json={"url": other, "kinds": ["failed"]}).get_json()
    assert (changed["url"], changed["kinds"], changed["enabled"]) == (other, ["failed"], True)
    off = owner.call("PATCH", path, json={"enabled": False}).get_json()
    assert (off["enabled"], off["disabled_reason"], off["url"]) == (False, "owner", other)
    assert owner.call("PATCH", path, json={}).get_json() == off
    assert code(owner.post(f"{path}/test")) == (409, "webhook_disabled")
    on = owner.call("PATCH", path, json={"enabled": True}).get_json()
    assert (on["enabled"], on["disabled_at"], on["disabled_reason"]) == (True, None, None)


def test_a_rotation_shows_the_new_secret_once_and_says_how_long_the_old_one_holds(owner: Person) -> None:
    webhook = register(owner)
    rotated = owner.post(f"{webhook['links']['self']}/rotate-secret").get_json()
    assert rotated["secret"].startswith("whsec_")
    assert rotated["secret"] != webhook["secret"]
    assert rotated["previous_valid_until"] > webhook["created_at"]


def test_the_log_tells_what_was_sent_page_by_page_and_by_status(front: Front, owner: Person) -> None:
    webhook = register(owner, kinds=["submitted"])
    jobs = [front.play.submit("line") for _ in range(3)]
    ping = owner.post(f"{webhook['links']['self']}/test")
    assert (ping.status_code, ping.get_json()["kind"], ping.get_json()["job_id"]) == (202, "ping", None)
    path = webhook["links"]["deliveries"]
    first = owner.get(f"{path}?limit=3").get_json()
    second = owner.get(f"{path}?limit=3&cursor={first['next_cursor']}").get_json()
    listed = first["deliveries"] + second["deliveries"]
    assert [one["job_id"] for one in listed] == [None, *map(str, jobs[::-1])]
    assert listed[0] == ping.get_json()
    told = listed[1]
    assert (told["status"], told["attempts"], told["error"], told["seq"]) == ("pending", 0, None, 1)
    assert told["payload"]["type"] == "job.submitted"
    assert told["links"]["job"] == f"/api/v1/jobs/{told['job_id']}"
    assert owner.get(f"{path}?status=failed").get_json()["deliveries"] == []
    assert len(owner.get(f"{path}?status=pending").get_json()["deliveries"]) == 4
    assert code(owner.get(f"{path}?status=lost")) == (422, "request_invalid")
    assert code(owner.get(f"{path}?cursor=nonsense")) == (400, "cursor_invalid")


def test_what_failed_is_retried_by_its_link_and_what_was_taken_is_not(front: Front, owner: Person) -> None:
    webhook = register(owner, kinds=["submitted"])
    front.play.submit("line")
    owner.call("PATCH", webhook["links"]["self"], json={"enabled": False})
    owner.call("PATCH", webhook["links"]["self"], json={"enabled": True})
    (failed,) = owner.get(webhook["links"]["deliveries"]).get_json()["deliveries"]
    assert (failed["status"], failed["error"]["code"]) == ("failed", "webhook_disabled")
    again = owner.post(failed["links"]["retry"])
    assert (again.status_code, again.get_json()["status"]) == (202, "pending")
    front.play.connection.execute(
        "update webhook_deliveries set status = 'delivered', due_at = null, finished_at = now(),"
        " error_code = null, error_message = null"
    )
    assert code(owner.post(failed["links"]["retry"])) == (409, "already_delivered")
    unknown = f"{webhook['links']['self']}/deliveries/{uuid4()}/retry"
    assert code(owner.post(unknown)) == (404, "delivery_not_found")


CALLS = [
    ("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/rotate-secret"), ("POST", "/test"), ("GET", "/deliveries"),
    ("POST", "/deliveries/{delivery}/retry"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "part"), CALLS)
def test_owners_only_and_what_belongs_to_others_is_not_found(
    front: Front, owner: Person, method: str, part: str
) -> None:
    webhook = register(owner, kinds=["submitted"])
    front.play.submit("line")
    (delivery,) = owner.get(webhook["links"]["deliveries"]).get_json()["deliveries"]
    path = webhook["links"]["self"] + part.format(delivery=delivery["id"])
    for role in ("editor", "reviewer", "viewer"):
        assert code(front.person(role).call(method, path)) == (403, "role_not_allowed")
    assert code(front.stranger().call(method, path)) == (404, "webhook_not_found")
    assert code(owner.call(method, path.replace(webhook["id"], str(new_job_id())))) == (404, "webhook_not_found")
    assert owner.call(method, path).status_code in (200, 202, 204)


@pytest.mark.parametrize("role", ["editor", "reviewer", "viewer"])
def test_no_other_member_sees_where_a_tenant_has_its_endpoints(front: Front, owner: Person, role: str) -> None:
    register(owner, kinds=["submitted"])
    front.play.submit("line")
    member = front.person(role)
    assert code(member.get("/webhooks")) == code(member.post("/webhooks", json={"url": PUBLIC})) == (
        403, "role_not_allowed",
    )  # fmt: skip
    for who, seen in ((member.user, 0), (owner.user, 1)):
        with front.play.connection.transaction():
            claims = json.dumps({"sub": str(who), "role": "authenticated"})
            front.play.connection.execute(statement("act_as_user"), {"claims": claims})
            assert len(front.play.all("select * from webhooks")) == seen
            assert len(front.play.all("select * from webhook_deliveries")) == seen


@pytest.mark.parametrize(
    ("given", "index"),
    [
        ({}, "webhook_deliveries_by_webhook"),
        ({"before": str(uuid4())}, "webhook_deliveries_by_webhook"),
        ({"status": "failed"}, "webhook_deliveries_by_status"),
    ],
    ids=["all", "a later page", "by status"],
)
def test_the_log_walks_an_index_and_never_the_table(
    front: Front, owner: Person, given: dict[str, str], index: str
) -> None:
    webhooks = [register(owner)["id"] for _ in range(5)]
    front.play.connection.execute(
        "insert into webhook_deliveries (webhook_id, tenant_id, job_id, seq, kind, payload, status, error_code,"
        " error_message, created_at, finished_at) select w.id, w.tenant_id, ledger.uuid7(), 1, 'completed', '{}',"
        " case when mod(n, 100) = 0 then 'failed' else 'delivered' end, case when mod(n, 100) = 0 then 'x' end,"
        " case when mod(n, 100) = 0 then 'x' end, now(), now() from webhooks w, generate_series(1, 2000) n"
    )
    front.play.connection.execute("analyze webhook_deliveries")
    asked = {"webhook_id": webhooks[2], "tenant_id": front.play.tenant, "before": None, "status": None, "most": 51}
    with front.play.connection.transaction():
        claims = json.dumps({"sub": str(owner.user), "role": "authenticated"})
        front.play.connection.execute(statement("act_as_user"), {"claims": claims})
        plan = front.play.connection.execute("explain " + statement("api_deliveries"), asked | given).fetchall()
    lines = "\n".join(row["QUERY PLAN"] for row in plan)
    assert f"using {index} " in lines or f"on {index} " in lines, lines
    assert "Seq Scan on webhook_deliveries" not in lines


# The whole way --------------------------------------------------------------------------------------


@pytest.fixture
def receiver(authority: Authority) -> Iterator[Receiver]:
    with receiving(authority.identity) as receiver:
        yield receiver


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "localhost")


@pytest.fixture
def open_app(api_settings: Settings) -> Iterator[Flask]:
    """An API of a developer, whose endpoints are on the same machine."""
    made = create_app(api_settings.model_copy(update={"webhook_allow_loopback": True}))
    yield made
    house_of(made).close()


def test_a_ping_goes_the_way_of_everything_else(
    front: Front, open_app: Flask, receiver: Receiver, authority: Authority
) -> None:
    owner = Person(open_app, front.person().user)
    webhook = register(owner, url=receiver.url())
    path = webhook["links"]["self"]
    sender = Sender(
        front.play,
        sender_settings(front.settings.direct_url, front.settings.storage_path, authority),
    )
    receiver.behave = status(500)
    owner.post(f"{path}/test")
    sender.send_due()
    (ping,) = owner.get(webhook["links"]["deliveries"]).get_json()["deliveries"]
    assert (ping["status"], ping["answer_status"]) == ("pending", 500)
    assert ping["error"] == {"code": "refused", "message": "The endpoint answered 500."}
    assert owner.get(path).get_json()["failing_since"] is not None
    receiver.behave = status(204)
    rotated = owner.post(f"{path}/rotate-secret").get_json()
    owner.post(ping["links"]["retry"])
    sender.send_due()
    (ping,) = owner.get(webhook["links"]["deliveries"]).get_json()["deliveries"]
    assert (ping["status"], ping["attempts"], ping["error"], ping["links"]["retry"]) == ("delivered", 2, None, None)
    last = receiver.heard[-1]
    assert last.verified(webhook["secret"]) == last.verified(rotated["secret"]) == ping["payload"]
    assert ping["payload"]["type"] == "webhook.ping"
    assert last.id == ping["id"]
