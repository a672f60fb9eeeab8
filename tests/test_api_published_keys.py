"""Tokens signed with published keys: rotation gets in, an outage changes nothing, and algorithms are not confused."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
import pytest
from api_play import ISSUER, make_claims, make_settings
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from published_play import PRIVATE, Project, open_project, publish
from waiting import until

from api import published_keys
from api.tokens import Verifier
from tasks.errors import Refused, Unavailable


def sign(algorithm: str, key_id: str, key: Any = None, **claims: Any) -> str:
    token = jwt.encode(
        make_claims(uuid4(), **claims), key or PRIVATE[algorithm], algorithm=algorithm, headers={"kid": key_id}
    )
    return f"Bearer {token}"


@pytest.fixture
def project() -> Iterator[Project]:
    with open_project() as project:
        yield project


@pytest.fixture
def verifier(project: Project, tmp_path: Path) -> Verifier:
    return Verifier(make_settings("postgresql://x/y", tmp_path, jwt_secret=None, jwks_url=project.url))


def refused(verifier: Verifier, authorization: str) -> str:
    with pytest.raises(Refused) as caught:
        verifier.verify(authorization)
    assert caught.value.status == 401
    return caught.value.code


@pytest.mark.parametrize(("algorithm", "key_id"), [("ES256", "one"), ("RS256", "two")])
def test_tokens_of_published_keys_are_good(verifier: Verifier, project: Project, algorithm: str, key_id: str) -> None:
    for _ in range(5):
        assert verifier.verify(sign(algorithm, key_id)).claims["iss"] == ISSUER
    assert project.asked == 1


def test_a_token_with_another_keys_seal_is_refused(verifier: Verifier) -> None:
    stranger = ec.generate_private_key(ec.SECP256R1())
    assert refused(verifier, sign("ES256", "one", stranger)) == "token_invalid"


def test_algorithms_are_the_keys_choice_and_not_the_tokens(verifier: Verifier) -> None:
    public = PRIVATE["RS256"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head = jwt.utils.base64url_encode(json.dumps({"alg": "HS256", "typ": "JWT", "kid": "two"}).encode())
    body = jwt.utils.base64url_encode(json.dumps(make_claims(uuid4())).encode())
    seal = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(head + b"." + body, public)
    confused = b".".join([head, body, jwt.utils.base64url_encode(seal)]).decode()
    assert refused(verifier, f"Bearer {confused}") == "token_invalid"
    assert refused(verifier, sign("ES256", "two")) == "token_invalid"
    assert refused(verifier, sign("RS256", "one")) == "token_invalid"


def test_a_shared_secret_among_the_published_keys_opens_nothing(verifier: Verifier, project: Project) -> None:
    secret = "a secret that somebody published by mistake"
    encoded = jwt.utils.base64url_encode(secret.encode()).decode()
    project.keys.append({"kty": "oct", "k": encoded, "kid": "three", "alg": "HS256"})
    token = jwt.encode(make_claims(uuid4()), secret, algorithm="HS256", headers={"kid": "three"})
    assert refused(verifier, f"Bearer {token}") == "token_invalid"


def test_a_key_the_project_does_not_have_is_refused_without_asking_each_time(
    verifier: Verifier, project: Project
) -> None:
    for _ in range(10):
        assert refused(verifier, sign("ES256", "unheard of")) == "token_invalid"
    token = jwt.encode(make_claims(uuid4()), PRIVATE["ES256"], algorithm="ES256")
    assert refused(verifier, f"Bearer {token}") == "token_invalid"
    assert project.asked == 1


def test_a_rotated_key_gets_in(verifier: Verifier, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    verifier.verify(sign("ES256", "one"))
    fresh = ec.generate_private_key(ec.SECP256R1())
    project.keys = [publish("ES256", "four", fresh)]
    assert refused(verifier, sign("ES256", "four", fresh)) == "token_invalid", "asked a moment ago"
    monkeypatch.setattr(published_keys, "COOLDOWN_S", 0)
    assert verifier.verify(sign("ES256", "four", fresh))
    assert refused(verifier, sign("ES256", "one")) == "token_invalid"


def test_a_token_that_was_good_is_none_once_its_key_is_gone(
    verifier: Verifier, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = sign("ES256", "one")
    assert verifier.verify(token) is verifier.verify(token), "it was not looked at again"
    fresh = ec.generate_private_key(ec.SECP256R1())
    project.keys = [publish("ES256", "one", fresh)]
    monkeypatch.setattr(published_keys, "COOLDOWN_S", 0)
    assert refused(verifier, sign("ES256", "unheard of")) == "token_invalid"
    assert refused(verifier, token) == "token_invalid"
    assert verifier.verify(sign("ES256", "one", fresh))


def test_a_token_that_was_good_is_none_once_it_has_expired(verifier: Verifier, monkeypatch: pytest.MonkeyPatch) -> None:
    token = sign("ES256", "one", exp=int(time.time()) + 60)
    known = verifier.verify(token)
    now = known.expires_at
    monkeypatch.setattr("api.tokens.time.time", lambda: now - 1)
    assert verifier.verify(token) is known
    monkeypatch.setattr("api.tokens.time.time", lambda: now)
    assert refused(verifier, token) == "token_expired"


def test_known_keys_stay_in_use_while_the_project_is_away(
    verifier: Verifier, project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    verifier.verify(sign("ES256", "one"))
    project.down = True
    monkeypatch.setattr(published_keys, "LIFESPAN_S", -1)
    monkeypatch.setattr(published_keys, "COOLDOWN_S", 0)
    for _ in range(3):
        assert verifier.verify(sign("ES256", "one"))
    until(lambda: "2 stay in use" in caplog.text)
    project.down = False
    project.keys = [publish("ES256", "one")]
    asked = project.asked
    verifier.verify(sign("ES256", "one"))
    until(lambda: project.asked > asked)
    until(lambda: refuses(verifier, sign("RS256", "two")))


def refuses(verifier: Verifier, authorization: str) -> bool:
    try:
        verifier.verify(authorization)
    except Refused:
        return True
    return False


def test_without_any_key_it_says_to_come_back(verifier: Verifier, project: Project, monkeypatch: Any) -> None:
    project.down = True
    for _ in range(5):
        with pytest.raises(Unavailable) as caught:
            verifier.verify(sign("ES256", "one"))
        assert (caught.value.code, caught.value.status) == ("keys_unavailable", 503)
    assert project.asked < 5
    project.down = False
    monkeypatch.setattr(published_keys, "RETRY_S", 0)
    assert verifier.verify(sign("ES256", "one"))
