"""API keys: a machine comes in with a secret that is shown once, as a member of one tenant, until it is revoked."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest
from api_play import PREFIX, Front, Person, Served, error_code, submit_job
from ledger_play import Play
from psycopg import sql
from psycopg.rows import dict_row
from waiting import until

from api import create_app, key_secrets
from api.house import house_of
from tasks.db import statement

NEW = {"name": "Nightly import", "role": "editor"}


def make(front: Front, **body: Any) -> dict[str, Any]:
    answer = front.person().post("/keys", json=NEW | body)
    assert answer.status_code == 201, answer.get_json()
    return dict(answer.get_json())


def machine(front: Front, made: dict[str, Any]) -> Person:
    return Person(front.app, UUID(made["id"]), token=made["secret"])


def set_of(front: Front, made: dict[str, Any], column: str, value: Any) -> None:
    query = sql.SQL("update api_keys set {} = %s where id = %s").format(sql.Identifier(column))
    front.play.connection.execute(query, [value, made["id"]])


def everything(play: Play) -> Iterator[str]:
    """Every row of every table of ours, as text."""
    tables = play.all(
        "select oid::regclass::text as name from pg_class where relkind in ('r', 'p')"
        " and relnamespace::regnamespace::text in ('public', 'access', 'ledger', 'ops', 'procrastinate')"
    )
    for table in tables:
        query = sql.SQL("select t::text as row from {} t").format(sql.SQL(table["name"]))
        yield from (row["row"] for row in play.connection.execute(query))


# Secrets -------------------------------------------------------------------------------------------


def test_a_secret_is_told_by_its_prefix_and_its_checksum() -> None:
    secrets = {key_secrets.make_secret() for _ in range(50)}
    assert len(secrets) == 50
    for secret in secrets:
        assert re.fullmatch(r"llk_[0-9A-Za-z]{49}", secret)
        assert key_secrets.recognise(secret) == key_secrets.KeyHolder(hashlib.sha256(secret.encode()).hexdigest())
        number = 0
        for letter in secret[-6:]:
            number = number * 62 + "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz".index(letter)
        assert number == zlib.crc32(secret[:-6].encode())


def test_a_secret_is_shown_once_and_kept_nowhere(front: Front) -> None:
    owner = front.person()
    made = owner.post("/keys", json=NEW).get_json()
    secret = made.pop("secret")
    assert made["prefix"] == secret[:12]
    assert owner.get("/keys").get_json()["keys"] == [made]
    assert made["works"]
    assert made["created_by"] == str(owner.user)
    rows = list(everything(front.play))
    assert any(made["id"] in row for row in rows)
    assert [row for row in rows if secret in row or secret[12:] in row] == []


def test_a_secret_is_not_logged_and_its_key_is(front: Front, served: Served) -> None:
    owner = front.person()
    with served.client(owner) as client:
        made = client.post("/keys", json=NEW).json()
    with served.client(machine(front, made)) as client:
        assert client.get("/jobs").status_code == 200
        broken = {"Authorization": f"Bearer {made['secret'][:-1]}", "X-Tenant-Id": made["secret"]}
        assert client.get("/jobs", headers=broken).status_code == 401
        assert client.get(f"/jobs?cursor={made['secret']}").status_code in (400, 422)
    until(lambda: served.log.read_text().count("/api/v1/jobs") >= 3)
    text = served.log.read_text()
    assert made["secret"][12:40] not in text
    assert f'"user": "{made["id"]}"' in text


# What a key is -------------------------------------------------------------------------------------


def test_a_key_works_as_a_member_whose_id_is_its_own(front: Front) -> None:
    made = make(front)
    key = machine(front, made)
    me = key.get("/me").get_json()
    assert me["user"] == {"id": made["id"], "email": None}
    assert [(one["id"], one["role"]) for one in me["tenants"]] == [(str(front.play.tenant), "editor")]
    job = submit_job(front, key)
    assert job["created_by"] == made["id"]
    assert [event["actor"] for event in key.get(f"/jobs/{job['id']}/events").get_json()["events"]] == [made["id"]]
    assert key.get("/pipelines").status_code == 200


@pytest.mark.parametrize("role", ["viewer", "reviewer", "editor"])
def test_a_key_may_what_its_role_may(front: Front, role: str) -> None:
    key = front.key(role)
    assert key.get("/jobs").status_code == 200
    assert (error_code(key.post("/jobs", json={"pipeline": "line"})) == "role_not_allowed") == (role != "editor")
    decision = key.post(f"/review/{uuid4()}/approve")
    assert error_code(decision) == ("role_not_allowed" if role == "viewer" else "review_not_found")


def test_a_key_needs_no_tenant_header_and_is_refused_with_a_wrong_one(front: Front) -> None:
    key = front.key()
    for tenant, status in ((front.play.tenant, 200), (front.play.add_tenant(), 404)):
        answer = key.get("/jobs", headers={"X-Tenant-Id": str(tenant)})
        assert (answer.status_code, error_code(answer)) == (status, "" if status == 200 else "tenant_not_found")


def test_keys_make_no_keys_and_see_none(front: Front) -> None:
    key = front.key("editor")
    other = make(front)
    for answer in (key.post("/keys", json=NEW), key.get("/keys"), key.call("DELETE", f"/keys/{other['id']}")):
        assert (answer.status_code, error_code(answer)) == (403, "role_not_allowed")
    answer = front.person().post("/keys", json=NEW | {"role": "owner"})
    assert (answer.status_code, error_code(answer)) == (422, "request_invalid")
    with pytest.raises(psycopg.errors.CheckViolation):
        front.play.connection.execute("update api_keys set role = 'owner'")


@pytest.mark.parametrize("role", ["editor", "reviewer", "viewer"])
def test_only_owners_see_and_change_keys_here_and_in_sql(front: Front, role: str) -> None:
    made = make(front)
    person = front.person(role)
    for answer in (person.post("/keys", json=NEW), person.get("/keys"), person.call("DELETE", f"/keys/{made['id']}")):
        assert error_code(answer) == "role_not_allowed"
    assert seen_in_sql(front, person) == []
    assert seen_in_sql(front, front.stranger()) == []
    assert seen_in_sql(front, machine(front, made)) == []
    assert seen_in_sql(front, front.person()) == [made["id"]]


def seen_in_sql(front: Front, person: Person) -> list[str]:
    claims = json.dumps({"role": "authenticated", "sub": str(person.user)})
    with front.play.connection.transaction():
        front.play.connection.execute(statement("act_as_user"), {"claims": claims})
        return [str(row["id"]) for row in front.play.all("select id from api_keys")]


def test_keys_of_another_tenant_are_not_there(front: Front) -> None:
    made = make(front)
    stranger = front.stranger()
    assert stranger.get("/keys").get_json()["keys"] == []
    answer = stranger.call("DELETE", f"/keys/{made['id']}")
    assert (answer.status_code, error_code(answer)) == (404, "key_not_found")
    assert machine(front, made).get("/jobs").status_code == 200


# What does not come in -----------------------------------------------------------------------------


def other_secret() -> str:
    return key_secrets.make_secret()


@pytest.mark.parametrize(
    "token",
    [
        other_secret(), "llk_", "llk_short", other_secret()[:-1] + "!", other_secret() + "0", "llk_" + "0" * 49,
        other_secret().replace("llk_", "LLK_"), "llk_" + "é" * 49, "llk_" + "a" * 20_000, other_secret().swapcase(),
    ],
    ids=range(10),
)  # fmt: skip
def test_what_is_no_key_is_refused(front: Front, token: str) -> None:
    header = f"Bearer {token}".encode().decode("latin-1")
    answer = front.app.test_client().get(f"{PREFIX}/jobs", headers={"Authorization": header})
    expected = "key_invalid" if token.startswith("llk_") and len(token) < 16_384 else "token_invalid"
    assert (answer.status_code, error_code(answer)) == (401, expected)
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert token[4:30] == "" or token[4:30] not in answer.text


@pytest.mark.parametrize("path", ["/me", "/pipelines", "/jobs", "/nowhere", f"/jobs/{UUID(int=9)}"])
def test_an_unknown_key_gets_nowhere(front: Front, path: str) -> None:
    answer = Person(front.app, uuid4(), token=other_secret()).get(path)
    assert error_code(answer) == ("not_found" if path == "/nowhere" else "key_invalid")


def test_an_unknown_key_does_not_even_learn_what_is_wrong_with_its_request(front: Front) -> None:
    unknown = Person(front.app, uuid4(), token=other_secret())
    assert error_code(unknown.post("/jobs", json={"surprise": 1})) == "key_invalid"
    assert error_code(unknown.post("/jobs", data=b"{", content_type="application/json")) == "key_invalid"
    assert error_code(unknown.get("/jobs?limit=0")) == "key_invalid"
    assert error_code(unknown.upload(b"Once upon a time.")) == "key_invalid"
    assert error_code(front.key().post("/jobs", json={"surprise": 1})) == "request_invalid"


def test_a_view_that_was_never_declared_is_closed_to_unknown_keys(front: Front) -> None:
    app = create_app(front.settings)
    app.add_url_rule("/forgotten", "forgotten", lambda: "open")
    for token, status in ((other_secret(), 401), (make(front)["secret"], 200)):
        answer = app.test_client().get("/forgotten", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == status
    house_of(app).close()


def test_a_key_whose_time_is_over_is_told_so(front: Front) -> None:
    made = make(front, expires_in_days=1.0)  # JSON knows no integers
    assert datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"]) == timedelta(days=1)
    key = machine(front, made)
    assert key.get("/jobs").status_code == 200
    set_of(front, made, "created_at", "2020-01-01")
    set_of(front, made, "expires_at", datetime.fromisoformat(made["created_at"]))
    for answer in (key.get("/jobs"), key.get("/me"), key.post("/jobs", json={"pipeline": "line"})):
        assert (answer.status_code, error_code(answer)) == (401, "key_expired")
    assert front.person().get("/keys").get_json()["keys"][0]["works"] is False


def test_a_key_whose_member_was_removed_is_refused(front: Front) -> None:
    key = front.key()
    front.play.connection.execute("delete from members where user_id = %s", [key.user])
    assert error_code(key.get("/jobs")) == "key_invalid"


# Revoking ------------------------------------------------------------------------------------------


def test_a_revoked_key_is_out_at_once_and_its_row_stays(front: Front) -> None:
    made = make(front)
    key, owner = machine(front, made), front.person()
    job = submit_job(front, key)["id"]
    revoked = owner.call("DELETE", f"/keys/{made['id']}")
    assert revoked.status_code == 200
    assert (revoked.get_json()["revoked_by"], revoked.get_json()["works"]) == (str(owner.user), False)
    for answer in (key.get("/jobs"), key.get("/me"), key.get("/pipelines"), key.post("/jobs", json={"pipeline": "x"})):
        assert (answer.status_code, error_code(answer)) == (401, "key_invalid")
    assert front.play.all("select 1 from members where user_id = %s", key.user) == []
    assert front.play.all("select 1 from access.key_digests") == []
    assert front.person().call("DELETE", f"/keys/{made['id']}").get_json() == revoked.get_json()
    (listed,) = owner.get("/keys").get_json()["keys"]
    assert listed == revoked.get_json()
    assert owner.get(f"/jobs/{job}").get_json()["status"] == "queued"


def test_revoking_ends_a_stream_that_is_open(front: Front, served: Served) -> None:
    made = make(front)
    key = machine(front, made)
    job = UUID(submit_job(front, key)["id"])
    with served.client(key) as client, client.stream("GET", f"/jobs/{job}/stream") as answer:
        lines = answer.iter_lines()
        assert any(line.startswith("data:") for line in lines)
        front.person().call("DELETE", f"/keys/{made['id']}")
        front.play.begin()
        assert [line for line in lines if line.startswith("data:")] == []


def test_a_stream_ticket_is_worth_nothing_without_the_key_it_was_made_with(front: Front) -> None:
    made = make(front)
    key, nobody = machine(front, made), front.app.test_client()
    job = submit_job(front, key)["id"]
    tickets = [key.post("/stream-tickets").get_json()["ticket"] for _ in range(2)]
    opened = nobody.get(f"{PREFIX}/jobs/{job}/stream?ticket={tickets[0]}", buffered=False)
    assert opened.status_code == 200
    opened.close()
    front.person().call("DELETE", f"/keys/{made['id']}")
    answer = nobody.get(f"{PREFIX}/jobs/{job}/stream?ticket={tickets[1]}")
    assert (answer.status_code, error_code(answer)) == (403, "no_tenant")


def test_what_is_not_there_cannot_be_revoked(front: Front) -> None:
    answer = front.person().call("DELETE", f"/keys/{uuid4()}")
    assert (answer.status_code, error_code(answer)) == (404, "key_not_found")


def test_when_a_tenant_goes_its_keys_go_too(front: Front) -> None:
    key = front.key()
    front.play.connection.execute("delete from tenants where id = %s", [front.play.tenant])
    assert error_code(key.get("/me")) == "key_invalid"
    assert front.play.all("select 1 from access.key_digests") == front.play.all("select 1 from api_keys") == []


# When it was used ----------------------------------------------------------------------------------


def last_used(front: Front, key: Person) -> tuple[Any, Any]:
    (row,) = front.play.all("select last_used_at, xmin::text as version from api_keys where id = %s", key.user)
    return row["last_used_at"], row["version"]


def test_the_last_use_is_noted_seldom(front: Front) -> None:
    key = front.key()
    assert last_used(front, key)[0] is None
    key.get("/jobs")
    first = last_used(front, key)
    assert first[0] is not None
    key.get("/jobs")
    assert last_used(front, key) == first
    front.play.connection.execute("update api_keys set last_used_at = last_used_at - interval '6 minutes'")
    key.get("/jobs")
    assert last_used(front, key)[0] >= first[0]


def test_nobody_waits_to_note_when_a_key_was_used(front: Front) -> None:
    key = front.key()
    with psycopg.connect(front.settings.database_url.get_secret_value()) as other:
        other.execute("select 1 from api_keys where id = %s for update", [key.user])
        assert key.get("/jobs").status_code == 200
        assert last_used(front, key)[0] is None


# Limits --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {}, {"name": ""}, {"name": "  "}, {"name": "n" * 101}, {"name": 7}, {"role": "admin"}, {"role": None},
        {"expires_in_days": 0}, {"expires_in_days": 3651}, {"expires_in_days": -1}, {"expires_in_days": 1.5},
        {"expires_in_days": "1"}, {"expires_in_days": 10**30}, {"tenant_id": str(uuid4())}, {"secret": "llk_mine"},
    ],
)  # fmt: skip
def test_a_key_that_is_asked_for_wrongly_is_not_made(front: Front, body: dict[str, Any]) -> None:
    answer = front.person().post("/keys", json=NEW | body if body else {})
    assert (answer.status_code, error_code(answer)) == (422, "request_invalid")
    assert front.play.all("select 1 from api_keys") == []


def test_a_tenant_has_at_most_a_hundred_keys_that_work_also_when_two_are_made_at_once(front: Front) -> None:
    front.play.connection.execute(
        "select ledger.create_key(%s, %s, 'A', 'viewer', 'llk_00000000', encode(sha256(n::text::bytea), 'hex'), null)"
        " from generate_series(1, 99) n",
        [front.play.tenant, front.play.user],
    )
    owner, start = front.person(), threading.Barrier(2)

    def ask(_: int) -> Any:
        start.wait(10)
        return owner.post("/keys", json=NEW)

    with ThreadPoolExecutor(2) as pool:
        answers = sorted(pool.map(ask, range(2)), key=lambda answer: answer.status_code)
    assert [answer.status_code for answer in answers] == [201, 409]
    assert error_code(answers[1]) == "too_many_keys"
    assert answers[1].get_json()["error"]["details"] == {"limit": 100}
    owner.call("DELETE", f"/keys/{answers[0].get_json()['id']}")
    assert owner.post("/keys", json=NEW).status_code == 201
    assert front.stranger().post("/keys", json=NEW).status_code == 201


def test_the_list_of_keys_is_paged_and_walks_an_index(front: Front) -> None:
    owner = front.person()
    made = [owner.post("/keys", json=NEW).get_json()["id"] for _ in range(3)]
    first = owner.get("/keys?limit=2").get_json()
    second = owner.get(f"/keys?limit=2&cursor={first['next_cursor']}").get_json()
    assert [key["id"] for page in (first, second) for key in page["keys"]] == made[::-1]
    assert error_code(owner.get("/keys?cursor=nonsense")) == "cursor_invalid"
    front.play.connection.execute("insert into tenants (name) select 'T' from generate_series(1, 500)")
    front.play.connection.execute(
        "insert into api_keys (tenant_id, name, role, prefix, created_by)"
        " select id, 'K', 'viewer', 'llk_00000000', gen_random_uuid() from tenants, generate_series(1, 10)"
    )
    front.play.connection.execute("analyze api_keys")
    asked = {"tenant_id": front.play.tenant, "before": uuid4(), "most": 51}
    plan = front.play.connection.execute("explain " + statement("api_keys"), asked).fetchall()
    assert any("api_keys_by_tenant" in row["QUERY PLAN"] for row in plan), plan


def test_recognising_a_key_reads_by_index_however_many_there_are(front: Front) -> None:
    front.play.connection.execute("insert into tenants (name) select 'T' from generate_series(1, 2000)")
    front.play.connection.execute(
        "select ledger.create_key(id, gen_random_uuid(), 'A', 'viewer', 'llk_00000000',"
        " encode(sha256(id::text::bytea), 'hex'), null) from tenants"
    )
    key = front.key()
    front.play.connection.execute("analyze")
    url = front.settings.database_url.get_secret_value()
    scans: LiteralString = (
        "select sum(seq_scan)::integer as n from pg_stat_xact_user_tables"
        " where relname in ('api_keys', 'members', 'key_digests')"
    )
    with psycopg.connect(url, row_factory=dict_row) as connection:
        digest = key_secrets.digest_of(str(key.token))
        for _ in range(8):
            asked = {"digest": digest, "pipeline": None, "known": None}
            (row,) = connection.execute(statement("api_enter_by_key"), asked).fetchall()
            assert row["key_id"] == key.user
        assert connection.execute(scans).fetchone() == {"n": 0}
