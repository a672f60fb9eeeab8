"""The secret of an API key: how one is made, told from a token, and recognised without being kept.

`llk_`, then 256 random bits as 43 digits and letters, then a CRC-32 of all that as six. The prefix and the checksum let
scanners find a leaked one without mistaking other text for it, and spare the database those that were never made here.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib
from dataclasses import dataclass

from api.codes import refuse
from tasks.errors import Refused

PREFIX = "llk_"
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET = re.compile(r"(llk_[0-9A-Za-z]{43})([0-9A-Za-z]{6})", re.ASCII)
_SHOWN = len(PREFIX) + 8


@dataclass(frozen=True)
class KeyHolder:
    """Somebody with what may be an API key. Whose it is, and whether it works, is for the database to say."""

    digest: str


def make_secret() -> str:
    """A new secret."""
    body = PREFIX + _write(secrets.randbits(256), 43)
    return body + _checksum(body)


def shown_part(secret: str) -> str:
    """What may be shown of a secret, to tell it from others."""
    return secret[:_SHOWN]


def digest_of(secret: str) -> str:
    """What is kept of a secret: its sha256 (hex)."""
    return hashlib.sha256(secret.encode()).hexdigest()


def recognise(token: str) -> KeyHolder | None:
    """The holder of a key; None for what is no key but a token. Raises Refused `key_invalid` for a misshapen key."""
    if not token.startswith(PREFIX):
        return None
    found = _SECRET.fullmatch(token)
    if found is None or found[2] != _checksum(found[1]):
        raise invalid()
    return KeyHolder(digest_of(token))


def invalid() -> Refused:
    """The one refusal for a key that was revoked, and for one that never was."""
    return _refused("key_invalid", "This API key is not valid here. It may have been revoked.")


def expired() -> Refused:
    """The refusal for a key whose time is over."""
    return _refused("key_expired", "This API key has expired. Ask an owner of the tenant for a new one.")


def _refused(code: str, message: str) -> Refused:
    error = refuse(code, message)
    error.headers = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
    return error


def _checksum(body: str) -> str:
    return _write(zlib.crc32(body.encode()), 6)


def _write(number: int, width: int) -> str:
    text = ""
    for _ in range(width):
        number, rest = divmod(number, len(_DIGITS))
        text = _DIGITS[rest] + text
    return text
