"""What forgers try with tokens: headers that point to keys of their own, claims of odd shapes, damaged text.

None gets in, none breaks anything, and nobody is made to fetch what a forger names.
"""

from __future__ import annotations

import base64
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
from api_play import PREFIX, SECRET, Front, Person, Served, error_code, make_claims, make_settings, make_token
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, HMACAlgorithm
from published_play import PRIVATE, Project, open_project, publish

from api import published_keys
from api.tokens import Verifier
from tasks.errors import Refused


def encode(part: Any) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def seal(header: dict[str, Any], claims: Any, secret: bytes | str = SECRET) -> str:
    """A token with a good seal under HS256, whatever its header and claims are."""
    signed = f"{encode(header)}.{encode(claims)}"
    key = secret if isinstance(secret, bytes) else secret.encode()
    return f"{signed}.{encode(HMACAlgorithm(HMACAlgorithm.SHA256).sign(signed.encode(), key))}"


def code_of(verifier: Verifier, token: str) -> str:
    """Why a token is refused; empty when it is good."""
    try:
        verifier.verify(f"Bearer {token}")
    except Refused as refused:
        return refused.code
    return ""


@pytest.fixture
def by_secret(tmp_path: Path) -> Verifier:
    return Verifier(make_settings("postgresql://x/y", tmp_path))


@pytest.fixture
def project() -> Iterator[Project]:
    with open_project() as project:
        yield project


@pytest.fixture
def by_keys(project: Project, tmp_path: Path) -> Verifier:
    return Verifier(make_settings("postgresql://x/y", tmp_path, jwt_secret=None, jwks_url=project.url))


# Headers -------------------------------------------------------------------------------------------

ALGORITHMS = ["none", "None", "nOnE", "", "HS384", "HS512", "RS256", "ES256", "PS256", "EdDSA", "hs256", None, 7]
KEY_IDS = ["../../../dev/null", "/dev/null", "one' or '1'='1", "one\x00", "", "None", "ONE", "öne"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_other_algorithm_gets_in_by_its_name(by_secret: Verifier, algorithm: Any) -> None:
    token = seal({"alg": algorithm, "typ": "JWT"}, make_claims(uuid4()))
    assert code_of(by_secret, token) == "token_invalid"
    unsealed = token.rpartition(".")[0] + "."
    assert code_of(by_secret, unsealed) == "token_invalid"


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["b64"], "b64": False}, {"crit": ["exp"]}, {"crit": []}, {"crit": "b64"}, {"b64": False},
        {"kid": 1}, {"kid": None}, {"kid": ["one"]}, {"kid": {"a": 1}},
    ],
)  # fmt: skip
def test_headers_that_change_what_is_signed_are_refused(by_secret: Verifier, header: dict[str, Any]) -> None:
    assert code_of(by_secret, seal({"alg": "HS256"}, make_claims(uuid4()))) == ""
    assert code_of(by_secret, seal({"alg": "HS256"} | header, make_claims(uuid4()))) == "token_invalid"


@pytest.mark.parametrize("kid", KEY_IDS)
def test_a_key_id_is_a_name_and_nothing_else(by_keys: Verifier, kid: str) -> None:
    for secret in (b"", b"\x00"):
        assert code_of(by_keys, seal({"alg": "HS256", "kid": kid}, make_claims(uuid4()), secret)) == "token_invalid"
    token = jwt.encode(make_claims(uuid4()), PRIVATE["ES256"], algorithm="ES256", headers={"kid": kid})
    assert code_of(by_keys, token) == "token_invalid"


@pytest.mark.parametrize("way", ["jku", "x5u", "jwk", "x5c"])
def test_a_token_does_not_bring_its_own_key(by_keys: Verifier, project: Project, way: str) -> None:
    mine = ec.generate_private_key(ec.SECP256R1())
    shown = ECAlgorithm.to_jwk(mine.public_key(), as_dict=True) | {"kid": "mine", "alg": "ES256", "use": "sig"}
    with open_project() as theirs:
        theirs.keys = [shown]
        brought = {"jku": theirs.url, "x5u": theirs.url, "jwk": shown, "x5c": ["MIIB"]}[way]
        for kid in ("mine", "one"):
            headers = {"kid": kid, way: brought}
            token = jwt.encode(make_claims(uuid4()), mine, algorithm="ES256", headers=headers)
            assert code_of(by_keys, token) == "token_invalid"
        assert (theirs.asked, project.asked) == (0, 1)


@pytest.mark.parametrize("kind", ["ES256", "RS256"])
@pytest.mark.parametrize("form", ["pem", "der", "point or pkcs1", "jwk"])
def test_a_public_key_is_no_secret_in_any_of_its_forms(by_keys: Verifier, kind: str, form: str) -> None:
    public = PRIVATE[kind].public_key()
    kid = {"ES256": "one", "RS256": "two"}[kind]
    bare = (Encoding.X962, PublicFormat.UncompressedPoint) if kind == "ES256" else (Encoding.DER, PublicFormat.PKCS1)
    secret = {
        "pem": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "der": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "point or pkcs1": public.public_bytes(*bare),
        "jwk": json.dumps(publish(kind, kid)).encode(),
    }[form]
    for header in ({"alg": "HS256", "kid": kid}, {"alg": "HS256"}):
        assert code_of(by_keys, seal(header, make_claims(uuid4()), secret)) == "token_invalid"


@pytest.mark.filterwarnings("ignore:The RSA key is 1024 bits")
def test_published_keys_that_are_weak_or_for_something_else_open_nothing(by_keys: Verifier, project: Project) -> None:
    weak = rsa.generate_private_key(65537, 1024)
    wide = ec.generate_private_key(ec.SECP384R1())
    project.keys += [
        publish("RS256", "weak", weak),
        publish("ES256", "wide", wide) | {"alg": "ES384"},
        publish("ES256", "other use") | {"use": "enc"},
        {key: value for key, value in publish("ES256", "x").items() if key != "kid"},
    ]
    tokens = [
        jwt.encode(make_claims(uuid4()), weak, algorithm="RS256", headers={"kid": "weak"}),
        jwt.encode(make_claims(uuid4()), wide, algorithm="ES384", headers={"kid": "wide"}),
        jwt.encode(make_claims(uuid4()), PRIVATE["ES256"], algorithm="ES256", headers={"kid": "other use"}),
        jwt.encode(make_claims(uuid4()), PRIVATE["ES256"], algorithm="ES256"),
    ]
    assert [code_of(by_keys, token) for token in tokens] == ["token_invalid"] * 4
    good = jwt.encode(make_claims(uuid4()), PRIVATE["ES256"], algorithm="ES256", headers={"kid": "one"})
    assert code_of(by_keys, good) == ""


@pytest.mark.parametrize("answer", [b"", b"<html>", b"[]", b"{}", b'{"keys": []}', b'{"keys": 7}', b'{"keys": [7]}'])
def test_nonsense_in_place_of_the_published_keys_changes_nothing(
    by_keys: Verifier, project: Project, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = jwt.encode(make_claims(uuid4()), PRIVATE["ES256"], algorithm="ES256", headers={"kid": "one"})
    assert code_of(by_keys, token) == ""
    project.nonsense = answer
    monkeypatch.setattr(published_keys, "COOLDOWN_S", 0)
    new = jwt.encode(make_claims(uuid4()), PRIVATE["ES256"], algorithm="ES256", headers={"kid": "unheard of"})
    assert code_of(by_keys, new) == "token_invalid"
    assert project.asked == 2
    assert code_of(by_keys, token) == ""


# Claims --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": ["anon"]}, {"aud": []}, {"aud": {"authenticated": 1}}, {"aud": "authenticated "}, {"aud": 7},
        {"iss": ["http://127.0.0.1/auth/v1"]}, {"iss": "http://127.0.0.1/auth/v1/"}, {"iss": {}},
        {"role": ["authenticated"]}, {"role": "Authenticated"}, {"role": {"authenticated": 1}}, {"role": "postgres"},
        {"exp": [9999999999]}, {"exp": float("inf")}, {"exp": -1}, {"exp": {}},
        {"iat": "now"}, {"nbf": "soon"}, {"nbf": float("nan")}, {"iat": 10**30},
        {"sub": 7}, {"sub": ""}, {"sub": ["a"]}, {"sub": "postgres"}, {"sub": "../" + str(UUID(int=1))},
    ],
)  # fmt: skip
def test_claims_of_the_wrong_shape_are_refused_though_their_seal_is_good(
    by_secret: Verifier, claims: dict[str, Any]
) -> None:
    token = seal({"alg": "HS256", "typ": "JWT"}, make_claims(uuid4()) | claims)
    assert code_of(by_secret, token) in ("token_invalid", "token_expired")


@pytest.mark.parametrize("whole", [[], "claims", 7, None, [["sub", "x"]], {}])
def test_what_holds_no_claims_is_refused(by_secret: Verifier, whole: Any) -> None:
    assert code_of(by_secret, seal({"alg": "HS256"}, whole)) == "token_invalid"


@pytest.mark.parametrize("anonymous", [True, "true", 1, "no", [0]])
def test_who_may_be_anonymous_is_refused(by_secret: Verifier, anonymous: Any) -> None:
    assert code_of(by_secret, make_token(uuid4(), is_anonymous=anonymous)) == "anonymous_refused"


def test_clocks_may_differ_by_the_leeway_and_no_more(tmp_path: Path) -> None:
    verifier = Verifier(make_settings("postgresql://x/y", tmp_path, jwt_leeway_s=60))
    now = int(time.time())
    for claims, code in (
        ({"exp": now - 50}, ""), ({"exp": now - 70}, "token_expired"),
        ({"nbf": now + 50}, ""), ({"nbf": now + 90}, "token_invalid"),
        ({"iat": now + 50}, ""), ({"iat": now + 90}, "token_invalid"),
    ):  # fmt: skip
        assert code_of(verifier, make_token(uuid4(), **claims)) == code, claims


@pytest.mark.parametrize("spelling", ["{{{}}}", "urn:uuid:{}"])
def test_a_user_is_the_same_however_its_id_is_spelled(front: Front, spelling: str) -> None:
    person = front.person()
    person.token = make_token(spelling.format(person.user))
    assert person.get("/jobs").status_code == 200
    assert person.get("/me").get_json()["user"]["id"] == str(person.user)


@pytest.mark.parametrize("email", [7, ["a@b"], {"a": 1}, "", None])
def test_an_email_that_is_none_harms_nobody(front: Front, email: Any) -> None:
    person = front.person()
    person.token = seal({"alg": "HS256"}, make_claims(person.user) | {"email": email})
    assert person.get("/me").get_json()["user"]["email"] is None
    assert person.get("/jobs").status_code == 200


def test_what_users_say_of_themselves_never_reaches_the_database(by_secret: Verifier) -> None:
    boast = {"role": "service_role", "tenant_id": str(uuid4())}
    token = make_token(uuid4(), user_metadata=boast, tenant_id=str(uuid4()), raw_app_meta_data=boast)
    claims = by_secret.verify(f"Bearer {token}").claims
    assert not {"user_metadata", "tenant_id", "raw_app_meta_data"} & set(claims)
    assert claims["role"] == "authenticated"


# Text ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        "Bearer é.ü.ß", "Bearer \xff\xfe", "Bearer " + "." * 16_000, "Bearer a.b.c.d.e", "Bearer  ", "Bearer ..",
        "bearer bearer", "Bearer null", "Bearer undefined", "Bearer " + "é" * 16_384, "Bearer " + "a" * 16_385,
        "Bearer eyJhbGciOiJIUzI1NiJ9." + "A" * 16_000 + ".x", "Bearer " + "[" * 9_000,
    ],
)  # fmt: skip
def test_text_that_is_no_token_is_refused_quietly(front: Front, header: str) -> None:
    answer = front.app.test_client().get(f"{PREFIX}/me", headers={"Authorization": header})
    assert (answer.status_code, error_code(answer)) == (401, "token_invalid")


def test_deep_json_in_a_token_is_refused_quietly(by_secret: Verifier) -> None:
    assert code_of(by_secret, f"{encode(b'[' * 11_000)}.e30.x") == "token_invalid"
    deep = b'{"alg": "HS256", "x": ' + b"[" * 5_000 + b"]" * 5_000 + b"}"
    assert code_of(by_secret, f"{encode(deep)}.e30.x") == "token_invalid"


def test_a_token_that_is_damaged_anywhere_is_refused(by_secret: Verifier) -> None:
    token, dice = make_token(uuid4()), random.Random(7)
    assert code_of(by_secret, token) == ""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=\x00é"
    for _ in range(500):
        place = dice.randrange(len(token) - 1)
        damaged = token[:place] + dice.choice(letters.replace(token[place], "")) + token[place + 1 :]
        assert code_of(by_secret, damaged) == "token_invalid", damaged


def test_two_headers_are_not_one_token(front: Front, served: Served) -> None:
    token = front.person().bearer()["Authorization"]
    with served.client() as client:
        for pair in ((token, token), (token, "Bearer x"), ("Bearer x", token)):
            answer = client.get("/me", headers=[("Authorization", value) for value in pair])
            assert (answer.status_code, error_code(answer)) == (401, "token_invalid"), pair
        assert client.get("/me", headers={"Authorization": token}).status_code == 200


def test_a_header_beyond_all_measure_costs_its_sender_the_connection_only(front: Front, served: Served) -> None:
    with served.client() as client:
        assert client.get("/me", headers={"Authorization": "Bearer " + "a" * 200_000}).status_code in (400, 431)
        assert client.get("/healthz").status_code == 200


def test_a_token_elsewhere_than_in_its_header_is_none(front: Front) -> None:
    token = str(front.person().bearer()["Authorization"])
    nobody = front.app.test_client()
    for place in (f"?access_token={token[7:]}", f"?token={token[7:]}", f"?apikey={token[7:]}"):
        assert error_code(nobody.get(f"{PREFIX}/me{place}")) == "token_missing"
    for name in ("X-Api-Key", "apikey", "X-Authorization", "Proxy-Authorization", "Cookie"):
        assert error_code(nobody.get(f"{PREFIX}/me", headers={name: token})) == "token_missing"


def test_what_comes_in_a_header_does_not_come_out_in_one(front: Front) -> None:
    person = Person(front.app, front.person().user)
    for name in ("X-Request-Id", "X-Tenant-Id", "Origin", "If-None-Match", "Last-Event-ID", "Idempotency-Key"):
        answer = person.get("/jobs", headers={name: "evil: 1; Set-Cookie=a"})
        assert "evil" not in str(answer.headers), name
        assert answer.status_code < 500
