"""Access tokens of Supabase Auth: who is it, or a refusal. A token is never logged or echoed.

Either HS256 with the project's secret, or ES256 and RS256 with the keys that the project publishes: never both, and
the key decides the algorithm, not the token. `user_metadata` is the user's to edit, so it is left behind here.
"""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from uuid import UUID

import jwt
from jwt import PyJWK

from api.codes import refuse
from api.published_keys import PublishedKeys
from tasks.errors import Refused
from tasks.settings import Settings, SettingsInvalid

AUDIENCE = "authenticated"
ROLE = "authenticated"
_REQUIRED = ["exp", "iat", "sub", "aud", "iss"]
# What row-level security may ask for. Nothing the user can write is among it.
_KEPT = ("iss", "sub", "aud", "exp", "role", "email", "phone", "app_metadata", "session_id", "aal")
_SHORTEST_SECRET = 32
_LONGEST_TOKEN = 16_384
_REMEMBERED = 1_000
# Numbers beyond all dates (OverflowError) and keys of the wrong kind (TypeError) are no tokens of ours either.
_NO_TOKEN = (jwt.PyJWTError, ValueError, TypeError, OverflowError)


@dataclass(frozen=True)
class Caller:
    """A signed-in user, or a machine. `claims` go to Postgres; `expires_at` is in seconds since 1970, inf for never."""

    user_id: UUID
    email: str | None
    expires_at: float
    claims: dict[str, Any]


class Verifier:
    """Checks tokens as the settings say. Raises SettingsInvalid when they do not say how."""

    def __init__(self, settings: Settings) -> None:
        self._leeway_s = settings.jwt_leeway_s
        secret = settings.jwt_secret.get_secret_value() if settings.jwt_secret else None
        self._keys = PublishedKeys(settings.jwks_url) if settings.jwks_url else None
        self._algorithms = ["HS256"] if secret else ["ES256", "RS256"]
        _check(secret, self._keys)
        self._secret_key = _prepare(secret) if secret else None
        self._issuer = _issuer(settings)
        # Checking a signature costs more than all else about a request, and sessions ask often. What is good stays good
        # while its key does and until it expires; what is not is never remembered.
        self._recognise = lru_cache(_REMEMBERED)(self._read)

    def verify(self, authorization: str | None) -> Caller:
        """The user an `Authorization` header speaks for. Raises Refused (401, 403); Unavailable without keys."""
        token = read_bearer(authorization)
        caller = self._recognise(token, self._key(token))
        if caller.expires_at <= time.time():
            raise _expired()
        return caller

    def _read(self, token: str, key: PyJWK) -> Caller:
        claims = self._decode(token, key)
        if claims.get("is_anonymous"):
            raise refuse("anonymous_refused", "Please sign in first: anonymous users have no access here.")
        if claims.get("role") != ROLE:
            raise invalid()
        user_id, email = _uuid(claims["sub"]), claims.get("email")
        return Caller(
            user_id=user_id,
            email=email if isinstance(email, str) and email else None,
            expires_at=int(claims["exp"]) + self._leeway_s,
            # Postgres reads fewer spellings of an id than Python does.
            claims={name: claims[name] for name in _KEPT if name in claims} | {"sub": str(user_id)},
        )

    def _decode(self, token: str, key: PyJWK) -> dict[str, Any]:
        try:
            return jwt.decode(
                token,
                key,
                algorithms=self._algorithms,
                audience=AUDIENCE,
                issuer=self._issuer,
                leeway=self._leeway_s,
                options={"require": _REQUIRED, "enforce_minimum_key_length": True},
            )
        except jwt.ExpiredSignatureError:
            raise _expired() from None
        except _NO_TOKEN:
            raise invalid() from None

    def _key(self, token: str) -> PyJWK:
        if self._keys is None:
            assert self._secret_key is not None
            return self._secret_key
        try:
            key = self._keys.find(str(jwt.get_unverified_header(token).get("kid")))
        except _NO_TOKEN:
            raise invalid() from None
        if key is None:
            raise invalid()
        return key


def invalid() -> Refused:
    """The one refusal for every token that is not good: an attacker learns nothing from it."""
    return _refused("token_invalid", "Your session is not valid here. Please sign in again.")


def _expired() -> Refused:
    return _refused("token_expired", "Your session has expired. Please sign in again.")


def _refused(code: str, message: str) -> Refused:
    error = refuse(code, message)
    error.headers = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
    return error


def read_bearer(authorization: str | None) -> str:
    """What an `Authorization` header shows: a token or a key. Raises Refused `token_missing` and `token_invalid`."""
    scheme, _, token = (authorization or "").strip().partition(" ")
    if not authorization or scheme.lower() != "bearer":
        message = "Please sign in: send your access token, or an API key, in the Authorization header."
        error = refuse("token_missing", message)
        error.headers = {"WWW-Authenticate": "Bearer"}
        raise error
    if not token.strip() or len(token) > _LONGEST_TOKEN:
        raise invalid()
    return token.strip()


def _uuid(subject: object) -> UUID:
    try:
        return UUID(str(subject))
    except ValueError:
        raise invalid() from None


def _prepare(secret: str) -> PyJWK:
    """The secret as a key, looked at once and not with each token."""
    text = base64.urlsafe_b64encode(secret.encode()).decode().rstrip("=")
    return PyJWK({"kty": "oct", "k": text}, "HS256")


def _issuer(settings: Settings) -> str:
    if settings.jwt_issuer:
        return settings.jwt_issuer
    # The settings see to it that one of the two is there wherever tokens are checked.
    assert settings.supabase_url is not None
    return f"{settings.supabase_url.rstrip('/')}/auth/v1"


def _check(secret: str | None, keys: PublishedKeys | None) -> None:
    if not secret and keys is None:
        raise SettingsInvalid("JWKS_URL or JWT_SECRET must be set, to check who calls")
    if secret and len(secret.encode()) < _SHORTEST_SECRET:
        raise SettingsInvalid(f"JWT_SECRET must have at least {_SHORTEST_SECRET} bytes")
