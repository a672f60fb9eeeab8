"""The public keys that the project signs tokens with, fetched seldom and kept when the other side is away.

Fetched at first use; again in the background when older than LIFESPAN_S; and at once, at most every COOLDOWN_S, for a
key id nobody has heard of, which is how a rotated key gets in. Keys stay in use while fetching fails.
"""

from __future__ import annotations

import logging
import threading
import time

import jwt
from jwt import PyJWK, PyJWKClient

from tasks.errors import Unavailable

LIFESPAN_S = 600.0
COOLDOWN_S = 30.0
TIMEOUT_S = 5.0
# After a failure with nothing in hand, whoever comes next asks again, but not everybody at once.
RETRY_S = 1.0

_log = logging.getLogger("ledgerline.published_keys")


class PublishedKeys:
    """The keys of one JWKS address, by key id."""

    def __init__(self, url: str) -> None:
        self._client = PyJWKClient(url, cache_jwk_set=False, timeout=TIMEOUT_S)
        self._keys: dict[str, PyJWK] = {}
        self._fetched_at = float("-inf")
        self._asked_at = float("-inf")
        self._fetching = threading.Lock()

    def find(self, key_id: str) -> PyJWK | None:
        """The key of that id, None when the project has none. Raises Unavailable while no key could be fetched."""
        if not self._keys:
            self._fetch_first()
        elif key_id not in self._keys and self._may_ask(COOLDOWN_S):
            self._fetch()
        elif self._age() > LIFESPAN_S and self._may_ask(COOLDOWN_S):
            threading.Thread(target=self._fetch, name="ledgerline.published_keys", daemon=True).start()
        return self._keys.get(key_id)

    def _age(self) -> float:
        return time.monotonic() - self._fetched_at

    def _may_ask(self, pause_s: float) -> bool:
        return time.monotonic() - self._asked_at >= pause_s

    def _fetch_first(self) -> None:
        with self._fetching:
            if not self._keys and self._may_ask(RETRY_S):
                self._ask()
        if not self._keys:
            message = "We cannot check who you are right now. Please try again."
            raise Unavailable("keys_unavailable", message, headers={"Retry-After": "2"})

    def _fetch(self) -> None:
        with self._fetching:
            # Those who waited for the lock find it done.
            if self._may_ask(COOLDOWN_S):
                self._ask()

    def _ask(self) -> None:
        self._asked_at = time.monotonic()
        try:
            keys = {str(key.key_id): key for key in self._client.get_signing_keys()}
        except (jwt.PyJWTError, OSError, ValueError) as error:
            _log.warning("public keys cannot be fetched, %d stay in use: %s", len(self._keys), error)
            return
        self._keys = keys
        self._fetched_at = time.monotonic()
