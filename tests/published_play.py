"""A Supabase project as far as it publishes the keys that it signs tokens with."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

PRIVATE = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "RS256": rsa.generate_private_key(65537, 2048),
}
ALGORITHMS: dict[str, Any] = {"ES256": ECAlgorithm, "RS256": RSAAlgorithm}


def publish(algorithm: str, key_id: str, key: Any = None) -> dict[str, Any]:
    """A public key as the project shows it."""
    shown = ALGORITHMS[algorithm].to_jwk((key or PRIVATE[algorithm]).public_key(), as_dict=True)
    return dict(shown) | {"kid": key_id, "alg": algorithm, "use": "sig"}


class Project:
    """The side that publishes keys. `down`: it answers with an error. `nonsense`: it answers with that. `asked`: how
    often it was asked."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = []
        self.down = False
        self.nonsense: bytes | None = None
        self.asked = 0
        project = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                project.asked += 1
                self.send_response(503 if project.down else 200)
                self.end_headers()
                shown = json.dumps({"keys": project.keys}).encode() if project.nonsense is None else project.nonsense
                self.wfile.write(b"" if project.down else shown)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/auth/v1/.well-known/jwks.json"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@contextmanager
def open_project() -> Iterator[Project]:
    """A project with a key of each kind."""
    project = Project()
    project.keys = [publish("ES256", "one"), publish("RS256", "two")]
    try:
        yield project
    finally:
        project.server.shutdown()
        project.server.server_close()
