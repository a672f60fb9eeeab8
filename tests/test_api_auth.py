"""Who may come in: tokens of this project for signed-in users, and each only to its own tenant."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

import jwt
import pytest
from api_play import PREFIX, SECRET, Front, Person, error_code, make_claims, make_settings, make_token, submit_job
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pydantic import ValidationError

from api import create_app
from tasks.settings import Settings, SettingsInvalid


def knock(front: Front, **headers: str) -> Any:
    return front.app.test_client().get(f"{PREFIX}/me", headers=headers)


# Tokens --------------------------------------------------------------------------------------------


def test_a_good_token_says_who_it_is(front: Front) -> None:
    person = front.person("reviewer")
    me = person.get("/me").get_json()
    assert me["user"] == {"id": str(person.user), "email": "writer@example.com"}
    assert me["tenants"] == [{"id": str(front.play.tenant), "name": "A tenant", "role": "reviewer"}]


@pytest.mark.parametrize("header", ["", "Basic dTpw", "bearer", "Token x"])
def test_no_token_is_told_so(front: Front, header: str) -> None:
    answer = knock(front, **({"Authorization": header} if header else {}))
    expected = "token_invalid" if header == "bearer" else "token_missing"
    assert (answer.status_code, error_code(answer)) == (401, expected)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("claims", "status", "code"),
    [
        ({"exp": int(time.time()) - 60}, 401, "token_expired"),
        ({"iat": int(time.time()) + 600}, 401, "token_invalid"),
        ({"nbf": int(time.time()) + 600}, 401, "token_invalid"),
        ({"iss": "https://elsewhere.example/auth/v1"}, 401, "token_invalid"),
        ({"aud": "anon"}, 401, "token_invalid"),
        ({"role": "service_role"}, 401, "token_invalid"),
        ({"role": "anon"}, 401, "token_invalid"),
        ({"is_anonymous": True}, 403, "anonymous_refused"),
        ({"sub": "not-a-uuid"}, 401, "token_invalid"),
        ({"exp": "soon"}, 401, "token_invalid"),
        *(({name: None}, 401, "token_invalid") for name in ("exp", "iat", "sub", "aud", "iss", "role")),
    ],
)
def test_a_token_that_is_not_good_is_refused(front: Front, claims: dict[str, Any], status: int, code: str) -> None:
    answer = knock(front, Authorization=f"Bearer {make_token(uuid4(), **claims)}")
    assert (answer.status_code, error_code(answer)) == (status, code)


def test_a_clock_that_differs_a_little_is_forgiven(front: Front) -> None:
    now = int(time.time())
    person = front.person()
    person.token = make_token(person.user, exp=now - 5, iat=now + 5)
    assert person.get("/me").status_code == 200


def forge(kind: str) -> str:
    claims = make_claims(uuid4())
    if kind == "another secret":
        return jwt.encode(claims, "somebody else's secret, also long enough", algorithm="HS256")
    if kind == "another HMAC":
        return jwt.encode(claims, SECRET * 2, algorithm="HS512")
    if kind == "none":
        return jwt.encode(claims, None, algorithm="none")
    if kind == "RS256":
        return jwt.encode(claims, rsa.generate_private_key(65537, 2048), algorithm="RS256")
    if kind == "ES256":
        return jwt.encode(claims, ec.generate_private_key(ec.SECP256R1()), algorithm="ES256")
    good = make_token(uuid4())
    head, body, seal = good.split(".")
    return {
        "no seal": f"{head}.{body}.",
        "two parts": f"{head}.{body}",
        "words": "not a token",
        "endless": "a" * 20_000,
        "another body": f"{head}.{make_token(uuid4()).split('.')[1]}.{seal}",
        "key of the project": "sb_secret_0123456789",
    }[kind]


KINDS = (
    "another secret", "another HMAC", "none", "RS256", "ES256", "no seal", "two parts", "words", "endless",
    "another body", "key of the project",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_forged_token_is_refused_and_not_repeated_to_its_sender(front: Front, kind: str) -> None:
    token = forge(kind)
    answer = knock(front, Authorization=f"Bearer {token}")
    assert (answer.status_code, error_code(answer)) == (401, "token_invalid")
    assert token[:40] not in answer.text


def test_what_a_user_writes_about_itself_gives_it_nothing(front: Front) -> None:
    person = front.person("viewer")
    boast = {"role": "owner", "tenant_id": str(front.play.add_tenant())}
    person.token = make_token(person.user, user_metadata=boast, app_metadata=boast)
    assert person.get("/me").get_json()["tenants"][0]["role"] == "viewer"
    assert error_code(person.post("/jobs", json={"pipeline": "line"})) == "role_not_allowed"


@pytest.mark.parametrize(
    "wrong",
    [
        {"jwt_issuer": None},
        {"jwt_secret": None},
        {"jwt_secret": "short"},
    ],
)
def test_an_api_that_could_not_tell_friend_from_foe_does_not_start(
    api_settings: Settings, wrong: dict[str, Any]
) -> None:
    url = api_settings.database_url.get_secret_value()
    with pytest.raises((SettingsInvalid, ValidationError)):
        create_app(make_settings(url, api_settings.storage_path, **wrong))


# Every door ----------------------------------------------------------------------------------------


def test_a_viewers_upload_is_refused_before_it_is_read(front: Front) -> None:
    answer = front.person("viewer").upload(b"x" * 3 * 1024 * 1024)
    assert (answer.status_code, error_code(answer)) == (403, "role_not_allowed")


# Tenants -------------------------------------------------------------------------------------------


def test_lists_show_nothing_of_another_tenant(front: Front) -> None:
    owner, stranger = front.person(), front.stranger()
    document = owner.upload(b"Once upon a time.").get_json()["id"]
    submit_job(front, owner)
    assert stranger.get("/documents").get_json()["documents"] == []
    for query in ("", f"?document_id={document}"):
        assert stranger.get(f"/jobs{query}").get_json()["jobs"] == []


def test_a_user_of_no_tenant_is_told_so(front: Front) -> None:
    nobody = Person(front.app, uuid4())
    answer = nobody.get("/jobs")
    assert (answer.status_code, error_code(answer)) == (403, "no_tenant")
    assert nobody.get("/me").get_json()["tenants"] == []


def test_a_user_of_several_tenants_says_which(front: Front) -> None:
    person = front.person()
    second = front.play.add_tenant()
    front.join(person.user, second, "viewer")
    answer = person.get("/jobs")
    assert (answer.status_code, error_code(answer)) == (400, "tenant_required")
    assert {one["id"] for one in answer.get_json()["error"]["details"]["tenants"]} == {
        str(front.play.tenant), str(second),
    }  # fmt: skip
    person.tenant = front.play.tenant
    job = submit_job(front, person)["id"]
    person.tenant = second
    assert person.get("/jobs").get_json()["jobs"] == []
    assert error_code(person.get(f"/jobs/{job}")) == "job_not_found"
    assert error_code(person.post("/jobs", json={"pipeline": "line"})) == "role_not_allowed"


@pytest.mark.parametrize("tenant", [None, "nonsense", "00000000-0000-0000-0000-000000000000"])
def test_a_tenant_one_is_no_member_of_is_not_there(front: Front, tenant: str | None) -> None:
    person = front.person()
    person.headers = {"X-Tenant-Id": tenant or str(front.play.add_tenant())}
    answer = person.get("/jobs")
    assert (answer.status_code, error_code(answer)) == (404, "tenant_not_found")


def test_who_is_no_longer_a_member_is_out_at_once(front: Front) -> None:
    person = front.person()
    assert person.get("/jobs").status_code == 200
    front.play.all("delete from members where user_id = %s returning 1", person.user)
    assert error_code(person.get("/jobs")) == "no_tenant"
