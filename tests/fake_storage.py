"""An imitation of the hosted Supabase Storage on a loopback socket, with the original's manners and its bad days.

What it imitates was read off a real server, v1.11: errors that are HTTP 400 whatever the cause, with the truth in the
body; a key that is not the secret one makes the caller a stranger, to whom every file and bucket is missing; an
expired one does so for reading; deleting without the right to answers like deleting nothing; links are signed tokens.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from uuid import uuid4

import jwt

SECRET = "sb_secret_of_the_imitation_only"
STRANGER = "sb_publishable_of_the_imitation"
EXPIRED = "an.expired.key"
BUCKET = "ledgerline"

_SIGNING = "the imitation signs its links with this"
_PIECE = 64 * 1024
UPLOAD_TTL_S = 7200
_KEY = re.compile(r"[A-Za-z0-9_/!.*'() &$=@;:+,?-]+")
_ROUTES = {
    "upload": ("POST", r"/object/(?P<bucket>[^/]+)/(?P<key>.+)"),
    "sign": ("POST", r"/object/sign/(?P<bucket>[^/]+)/(?P<key>.+)"),
    "download": ("GET", r"/object/sign/(?P<bucket>[^/]+)/(?P<key>.+)"),
    "info": ("GET", r"/object/info/(?P<bucket>[^/]+)/(?P<key>.+)"),
    "sign_upload": ("POST", r"/object/upload/sign/(?P<bucket>[^/]+)/(?P<key>.+)"),
    "send_signed": ("PUT", r"/object/upload/sign/(?P<bucket>[^/]+)/(?P<key>.+)"),
    "list": ("POST", r"/object/list/(?P<bucket>[^/]+)"),
    "remove": ("DELETE", r"/object/(?P<bucket>[^/]+)"),
    "bucket": ("GET", r"/bucket/(?P<bucket>[^/]+)"),
}


class Refusal(Exception):
    """An error of the store: its body, and the HTTP status that it comes with."""

    def __init__(self, said: int, code: str, message: str, error: str | None = None, status: int | None = None) -> None:
        super().__init__(code)
        self.status = status or (500 if said == 500 else 400)
        self.body = {"statusCode": str(said), "error": error or code, "message": message, "code": code}


NO_BUCKET = Refusal(404, "NoSuchBucket", "Bucket not found", "Bucket not found")
NO_OBJECT = Refusal(404, "NoSuchKey", "Object not found", "not_found")
DUPLICATE = Refusal(409, "ResourceAlreadyExists", "The resource already exists", "Duplicate")
TOO_LARGE = Refusal(413, "EntityTooLarge", "The object exceeded the maximum allowed size", "Payload too large")
DENIED = Refusal(403, "AccessDenied", "new row violates row-level security policy", "Unauthorized")
JWT_EXPIRED = Refusal(403, "AccessDenied", '"exp" claim timestamp check failed', "Unauthorized")
LINK_EXPIRED = Refusal(400, "InvalidJWT", '"exp" claim timestamp check failed')
SLOW_DOWN = Refusal(429, "SlowDown", "Too many connections issued to the database", "too_many_connections", 429)
LOCKED = Refusal(423, "ResourceLocked", "The resource is locked")
LOCK_TIMEOUT = Refusal(503, "LockTimeout", "acquiring lock timeout", "acquiring_lock_timeout")
DATABASE_TIMEOUT = Refusal(544, "DatabaseTimeout", "The connection to the database timed out", status=544)
INTERNAL = Refusal(500, "InternalError", "Internal server error")
OVER_QUOTA = Refusal(402, "exceed_storage_size_quota", "Service for this project is restricted", status=402)
FORBIDDEN_TYPE = Refusal(415, "InvalidMimeType", "mime type is not supported", "invalid_mime_type")


@dataclass
class Fault:
    """What goes wrong with the next requests of one kind. `way`: a Refusal, or one of these words.

    reset: the connection is reset. hang: nothing is read and nothing answered. page: a proxy's error page.
    garbage: HTTP 200, and no JSON. truncate: the body ends in the middle. shorten: half the body, well-formed.
    garble: one byte is another. trickle: the body comes byte by byte.
    """

    what: str
    way: Refusal | str
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)


class FakeStorage:
    """The state of the imitation: buckets, objects (files in `folder`), faults to come, and requests that came."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.buckets: dict[str, dict[str, Any]] = {}
        self.objects: dict[str, Path] = {}
        self.types: dict[str, str] = {}
        self.faults: list[Fault] = []
        self.seen: list[str] = []
        self.passed_s = 0.0
        self.released = Event()
        self.lock = Lock()
        self.url = ""
        self.add_bucket(BUCKET)

    def add_bucket(self, name: str, **properties: Any) -> None:
        stamp = "2026-01-01T00:00:00.000Z"
        self.buckets[name] = {
            "id": name, "name": name, "owner": "", "public": False, "type": "STANDARD", "file_size_limit": None,
            "allowed_mime_types": None, "created_at": stamp, "updated_at": stamp, **properties,
        }  # fmt: skip

    def break_next(self, what: str, way: Refusal | str, times: int = 1, **headers: str) -> None:
        """Let the next requests of this kind go wrong. Header names with _ for -."""
        self.faults.append(Fault(what, way, times, {name.replace("_", "-"): text for name, text in headers.items()}))

    def fault_of(self, what: str) -> Fault | None:
        """Note a request, and say what goes wrong with it."""
        with self.lock:
            self.seen.append(what)
            for fault in self.faults:
                if fault.what == what and fault.times:
                    fault.times -= 1
                    return fault
        return None

    def now(self) -> float:
        return time.time() + self.passed_s


@contextmanager
def serve(folder: Path) -> Iterator[FakeStorage]:
    """A running imitation. Its `url` is what SUPABASE_URL would be."""
    fake = FakeStorage(folder)
    server = _Server(("127.0.0.1", 0), type("Bound", (_Handler,), {"fake": fake}))
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        fake.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that end early are what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    fake: FakeStorage
    fault: Fault | None
    unread: int

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.answer()

    do_POST = do_PUT = do_DELETE = do_GET

    def answer(self) -> None:
        what, names = self.route()
        self.unread = int(self.headers.get("Content-Length", 0))
        self.fault = self.fake.fault_of(what)
        way = self.fault.way if self.fault else None
        try:
            if isinstance(way, Refusal):
                raise way
            if way in ("reset", "hang", "page", "garbage"):
                return self.misbehave(way)
            getattr(self, what)(*names)
        except Refusal as refusal:
            self.reply(json.dumps(refusal.body).encode(), status=refusal.status)

    def route(self) -> tuple[str, list[str]]:
        path = unquote(urlsplit(self.path).path.removeprefix("/storage/v1"))
        matches = [(what, re.fullmatch(pattern, path)) for what, (_, pattern) in self.routes()]
        what, match = next((what, match) for what, match in reversed(matches) if match)
        return what, list(match.groups()) if match else []

    def routes(self) -> list[tuple[str, tuple[str, str]]]:
        return [(what, route) for what, route in _ROUTES.items() if route[0] == self.command]

    # What the store can do

    def upload(self, bucket: str, key: str) -> None:
        limit = self.visible_bucket(bucket, DENIED)["file_size_limit"]
        if not _KEY.fullmatch(key):
            raise Refusal(400, "InvalidKey", f"Invalid key: {key}")
        name = f"{bucket}/{key}"
        self.keep(name, limit, replace=self.headers.get("x-upsert") == "true")

    def keep(self, name: str, limit: int | None, replace: bool = False) -> None:
        """Take the body of the request as an object."""
        if name in self.fake.objects and not replace:
            raise DUPLICATE
        if limit is not None and int(self.headers["Content-Length"]) > limit:
            raise TOO_LARGE
        path, media_type = self.receive()
        with self.fake.lock:
            if name in self.fake.objects and not replace:
                path.unlink()
                raise DUPLICATE
            self.fake.objects[name] = path
            self.fake.types[name] = media_type
        self.reply_json({"Key": name, "Id": str(uuid4())})

    def sign_upload(self, bucket: str, key: str) -> None:
        self.visible_bucket(bucket, DENIED)
        if f"{bucket}/{key}" in self.fake.objects:
            raise DUPLICATE
        token = self.make_token(f"{bucket}/{key}", UPLOAD_TTL_S)
        self.reply_json({"url": f"/object/upload/sign/{bucket}/{quote(key)}?token={token}", "token": token})

    def send_signed(self, bucket: str, key: str) -> None:
        """No key is asked for, and the link is good until it expires: a second object is refused, not the link."""
        self.keep(self.read_token(bucket, key), self.fake.buckets[bucket]["file_size_limit"])

    def list(self, bucket: str) -> None:
        """What lies directly in a folder. To a stranger all folders are empty."""
        asked = json.loads(self.take())
        self.refuse_expired()
        own = f"{bucket}/{asked['prefix']}/" if asked["prefix"] else f"{bucket}/"
        names = {name.removeprefix(own) for name in self.fake.objects if self.role() == SECRET and name.startswith(own)}
        entries = [{"name": name, "id": str(uuid4())} for name in names if "/" not in name]
        entries += [{"name": folder, "id": None} for folder in {name.split("/")[0] for name in names if "/" in name}]
        entries.sort(key=lambda entry: str(entry["name"]))
        self.reply_json(entries[asked["offset"] : asked["offset"] + asked["limit"]])

    def sign(self, bucket: str, key: str) -> None:
        asked = json.loads(self.take())
        self.visible_object(bucket, key)
        token = self.make_token(f"{bucket}/{key}", int(asked["expiresIn"]))
        self.reply_json({"signedURL": f"/object/sign/{bucket}/{quote(key)}?token={token}"})

    def download(self, bucket: str, key: str) -> None:
        url = self.read_token(bucket, key)
        if url not in self.fake.objects:
            raise NO_OBJECT
        headers = {"Content-Type": self.fake.types[url]}
        if name := parse_qs(urlsplit(self.path).query).get("download"):
            headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(name[0])}"
        self.reply_file(self.fake.objects[url], headers)

    def make_token(self, url: str, ttl_s: int) -> str:
        now = int(self.fake.now())
        return jwt.encode({"url": url, "iat": now, "exp": now + ttl_s}, _SIGNING, "HS256")

    def read_token(self, bucket: str, key: str) -> str:
        """The object that the token of the request is for."""
        token = parse_qs(urlsplit(self.path).query)["token"][0]
        claims = jwt.decode(token, _SIGNING, ["HS256"], options={"verify_exp": False, "verify_iat": False})
        if claims["exp"] <= self.fake.now():
            raise LINK_EXPIRED
        if claims["url"] != f"{bucket}/{key}":
            raise Refusal(400, "InvalidSignature", "The url do not match the signature")
        return str(claims["url"])

    def info(self, bucket: str, key: str) -> None:
        path = self.visible_object(bucket, key)
        self.reply_json({"name": key, "bucket_id": bucket, "size": path.stat().st_size})

    def remove(self, bucket: str) -> None:
        keys = json.loads(self.take())["prefixes"]
        self.refuse_expired()
        known = [key for key in keys if self.role() == SECRET and f"{bucket}/{key}" in self.fake.objects]
        for key in known:
            self.fake.objects.pop(f"{bucket}/{key}").unlink()
        self.reply_json([{"name": key, "bucket_id": bucket} for key in known])

    def bucket(self, name: str) -> None:
        self.reply_json(self.visible_bucket(name, NO_BUCKET))

    # Who may see what

    def role(self) -> str:
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if bearer not in (SECRET, STRANGER, EXPIRED) or self.headers.get("apikey") != bearer:
            raise Refusal(401, "", "Invalid API key", "Unauthorized", status=401)
        return bearer

    def refuse_expired(self) -> None:
        if self.role() == EXPIRED:
            raise JWT_EXPIRED

    def visible_bucket(self, name: str, otherwise: Refusal) -> dict[str, Any]:
        if self.command != "GET":
            self.refuse_expired()
        if self.role() != SECRET:
            raise otherwise
        if name not in self.fake.buckets:
            raise NO_BUCKET
        return self.fake.buckets[name]

    def visible_object(self, bucket: str, key: str) -> Path:
        self.visible_bucket(bucket, NO_BUCKET if self.role() == EXPIRED else NO_OBJECT)
        path = self.fake.objects.get(f"{bucket}/{key}")
        if path is None:
            raise NO_OBJECT
        return path

    # Bytes in

    def receive(self) -> tuple[Path, str]:
        """The file of a form, which is its last field, or the body, in a file of its own; and its declared type."""
        path = self.fake.folder / uuid4().hex
        if not self.headers["Content-Type"].startswith("multipart/"):
            with path.open("wb") as file:
                file.writelines(self.take_pieces())
            return path, self.headers["Content-Type"]
        boundary = self.headers["Content-Type"].partition("boundary=")[2].encode()
        head, media_type, in_file = b"", "", False
        while not in_file or head != b"\r\n":
            head = self.rfile.readline()
            self.unread -= len(head)
            in_file = in_file or b'filename="' in head
            if in_file and head.lower().startswith(b"content-type:"):
                media_type = head.partition(b":")[2].strip().decode()
        with path.open("wb") as file:
            for piece in self.take_pieces(len(b"\r\n--" + boundary + b"--\r\n")):
                file.write(piece)
        self.take()
        return path, media_type

    def take(self) -> bytes:
        """What is left of the request."""
        return b"".join(self.take_pieces())

    def take_pieces(self, but: int = 0) -> Iterator[bytes]:
        while self.unread > but:
            piece = self.rfile.read(min(self.unread - but, _PIECE))
            if not piece:
                raise ConnectionError("the request ended in the middle")
            self.unread -= len(piece)
            yield piece

    # Bytes out

    def reply_json(self, value: object) -> None:
        self.reply(json.dumps(value).encode())

    def reply(self, body: bytes, status: int = 200, kind: str = "application/json") -> None:
        self.start_reply(status, len(body), {"Content-Type": kind})
        self.send_pieces(iter([body]), len(body))

    def reply_file(self, path: Path, headers: dict[str, str]) -> None:
        size = path.stat().st_size
        shortened = self.fault is not None and self.fault.way == "shorten"
        self.start_reply(200, size // 2 if shortened else size, headers)
        with path.open("rb") as file:
            self.send_pieces(iter(lambda: file.read(_PIECE), b""), size // 2 if shortened else size)

    def start_reply(self, status: int, size: int, headers: dict[str, str]) -> None:
        for _ in self.take_pieces():  # closing on unread bytes would reset the connection under the answer
            pass
        self.send_response(status)
        more = self.fault.headers if self.fault else {}
        for name, text in {**headers, **more, "Content-Length": str(size)}.items():
            self.send_header(name, text)
        self.end_headers()

    def send_pieces(self, pieces: Iterator[bytes], size: int) -> None:
        way = self.fault.way if self.fault else None
        end = size // 2 if way == "truncate" else size
        for piece in pieces:
            data, end = piece[:end], end - len(piece[:end])
            if way == "garble":
                data, way = bytes([data[0] ^ 1]) + data[1:], None
            if way == "trickle":
                for byte in data:
                    self.wfile.write(bytes([byte]))
                    self.fake.released.wait(0.02)
            else:
                self.wfile.write(data)
        self.close_connection = self.close_connection or way == "truncate"

    def misbehave(self, way: str) -> None:
        if way == "page":
            return self.reply(b"<html>Bad gateway</html>", 502, "text/html")
        if way == "garbage":
            return self.reply(b"<html>Welcome</html>", 200, "text/html")
        if way == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        else:
            self.fake.released.wait()
        self.close_connection = True
