"""The development user: somebody to sign in as on a machine that has no Supabase Auth.

The rows are the same everywhere and are made only where the signing secret is our own, never in a project whose
tokens somebody else signs.
"""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID, uuid4

import jwt
import psycopg

from tasks.db import Row, statement

TENANT = UUID("00000000-0000-7000-8000-000000000001")
USER = UUID("00000000-0000-7000-8000-000000000002")
EMAIL = "developer@ledgerline.local"
ISSUER = "http://127.0.0.1/auth/v1"

_AUDIENCE = "authenticated"
_DAY_S = 86_400
_LIFE_S = 365 * _DAY_S
_RENEW_S = 30 * _DAY_S


def settle(connection: psycopg.Connection[Row]) -> None:
    """Make the development tenant and its owner, unless they are there."""
    row = {"tenant_id": TENANT, "user_id": USER, "name": "Development"}
    with connection.transaction():
        connection.execute(statement("development_tenant"), row)
        connection.execute(statement("development_member"), row)


def issue_key(secret: str, issuer: str) -> str:
    """An access token for the development user, as Supabase Auth would sign it, good for a year."""
    now = int(time.time())
    return jwt.encode(_claims(issuer, now), secret, algorithm="HS256")


def is_good(token: str, secret: str, issuer: str) -> bool:
    """Whether a token is signed with this secret and has a month to live."""
    try:
        claims = jwt.decode(token, secret, algorithms=["HS256"], audience=_AUDIENCE, issuer=issuer)
    except jwt.InvalidTokenError:
        return False
    return bool(claims["sub"] == str(USER) and claims["exp"] > time.time() + _RENEW_S)


def _claims(issuer: str, now: int) -> dict[str, Any]:
    return {
        "iss": issuer,
        "sub": str(USER),
        "aud": _AUDIENCE,
        "exp": now + _LIFE_S,
        "iat": now,
        "email": EMAIL,
        "phone": "",
        "app_metadata": {"provider": "email", "providers": ["email"]},
        "user_metadata": {},
        "role": "authenticated",
        "aal": "aal1",
        "amr": [{"method": "password", "timestamp": now}],
        "session_id": str(uuid4()),
        "is_anonymous": False,
    }
