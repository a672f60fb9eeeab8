"""One uploaded file on its way in: from the socket to a staging file, hashed and counted while it passes.

Memory stays constant, whatever the size. Reading stops at the limit. However it ends, nothing of it is left: the
staging file goes when the request does, and a stored document has its own copy by then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any, cast

from flask import request
from werkzeug.datastructures import FileStorage, MultiDict
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from api.codes import refuse
from tasks.documents.kinds import HEAD_BYTES
from tasks.errors import Refused
from tasks.intake import clean_name
from tasks.storage import full_disk_is_unavailable
from tasks.storage.files import hold

FIELD = "file"
MIB = 1024 * 1024
_MOST_FIELD_BYTES = 256 * 1024
_MOST_PARTS = 16
# Fields, boundaries and headers beside the file.
_WRAPPING_BYTES = MIB


@dataclass(frozen=True)
class Upload:
    """A file that came in whole. `path` is gone when the request is over."""

    path: Path
    filename: str
    size: int
    sha256: str
    fields: dict[str, str]

    def head(self) -> bytes:
        """The first bytes, for telling what kind it is."""
        with self.path.open("rb") as file:
            return file.read(HEAD_BYTES)


@contextmanager
def receive(staging: Path, most_bytes: int) -> Iterator[Upload]:
    """Read the request's multipart body.

    Raises Refused `media_type_unsupported`, `multipart_broken`, `file_missing`, `one_file_only`, `file_too_large` or
    `body_too_large`, and Unavailable `storage_full`.
    """
    if request.mimetype != "multipart/form-data":
        raise refuse("media_type_unsupported", "Send the file as multipart/form-data.", expected="multipart/form-data")
    inlet = Inlet(staging, most_bytes)
    try:
        fields, files = _parse(inlet)
        if FIELD not in files:
            raise refuse("file_missing", f"Send the document in the form field `{FIELD}`.")
        yield inlet.upload(fields.to_dict())
    finally:
        inlet.discard()


class Inlet:
    """The one staging file of a request: what the form parser writes to instead of memory."""

    def __init__(self, staging: Path, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._staging = staging
        self._digest = hashlib.sha256()
        self._bytes = 0
        self._name = ""
        self._file: Any = None

    def open(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        """Called by the parser at the start of each file part."""
        if self._file is not None:
            raise refuse("one_file_only", "Please upload one file at a time.")
        self._name = clean_name(filename or "")
        with full_disk_is_unavailable():
            # Unbuffered: what could not be written must not be tried again when the file is closed.
            self._file = NamedTemporaryFile(dir=self._staging, prefix="upload-", buffering=0, delete=False)  # noqa: SIM115
            hold(self._file.file)
        return cast(IO[bytes], self)

    def write(self, data: bytes) -> int:
        """Called by the parser with each piece."""
        self._bytes += len(data)
        if self._bytes > self.most_bytes:
            raise self.too_large()
        self._digest.update(data)
        rest = memoryview(data)
        with full_disk_is_unavailable():
            while rest:
                rest = rest[self._file.write(rest) :]
        return len(data)

    def seek(self, offset: int) -> int:
        """Called by the parser at the end of the part."""
        return offset

    def upload(self, fields: dict[str, str]) -> Upload:
        """What came in."""
        return Upload(Path(self._file.name), self._name, self._bytes, self._digest.hexdigest(), fields)

    def discard(self) -> None:
        """Leave nothing behind."""
        if self._file is not None:
            self._file.close()
            Path(self._file.name).unlink(missing_ok=True)

    def too_large(self) -> Refused:
        """The refusal for a file over the limit."""
        limit = f"{self.most_bytes // MIB} MB" if self.most_bytes >= MIB else f"{self.most_bytes} bytes"
        details = {"limit": "upload_bytes", "value": self.most_bytes, "current": request.content_length}
        return refuse("file_too_large", f"This file is too large. The limit is {limit}.", **details)


def _parse(inlet: Inlet) -> tuple[MultiDict[str, str], MultiDict[str, FileStorage]]:
    most_bytes = inlet.most_bytes + _WRAPPING_BYTES
    request.max_content_length = most_bytes
    parser = FormDataParser(
        stream_factory=inlet.open,
        max_form_memory_size=_MOST_FIELD_BYTES,
        max_form_parts=_MOST_PARTS,
        silent=False,
    )
    try:
        parsed = parser.parse(request.stream, request.mimetype, request.content_length, request.mimetype_params)
    except RequestEntityTooLarge:
        if (request.content_length or 0) > most_bytes:
            raise inlet.too_large() from None
        raise refuse("body_too_large", "The fields beside the file are too large.") from None
    except ValueError:
        raise refuse("multipart_broken", "The upload is damaged or ended early. Please send it again.") from None
    return parsed[1], parsed[2]
