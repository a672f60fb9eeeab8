"""Files on the way in and out: read in chunks, digested, written whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

from tasks.errors import Refused, Unavailable

CHUNK = 1024 * 1024

# Between making a file and holding it there is an instant in which nobody holds it.
_JUST_MADE_S = 10.0

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
BROKEN = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


@contextmanager
def full_disk_is_unavailable() -> Iterator[None]:
    """Turns a full, read-only or broken disk into Unavailable; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise storage_full(str(error)) from error
        if error.errno in BROKEN:
            raise storage_unavailable(str(error)) from error
        raise


def storage_full(detail: str) -> Unavailable:
    """There is no room for more bytes, here or in the hosted store."""
    return Unavailable("storage_full", "Files cannot be stored right now.", detail=detail, status=507)


def storage_unavailable(detail: str) -> Unavailable:
    """The store cannot be used now."""
    return Unavailable("storage_unavailable", "Files cannot be reached right now.", detail=detail)


def file_not_found() -> Refused:
    """The bytes are gone, or never came."""
    return Refused("file_not_found", "The file is no longer there.", status=404)


def hold(file: IO[bytes]) -> None:
    """Keep a staged file from being cleared away for as long as it is open: however its process ends, that lets go."""
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def clear_staging(folder: Path) -> int:
    """Remove what processes that are gone have left in a staging folder; returns how many files."""
    removed = 0
    for path in folder.iterdir():
        # Another process may clear up, or finish what it stages, at the same moment.
        with suppress(FileNotFoundError):
            if path.is_file() and path.stat().st_mtime < time.time() - _JUST_MADE_S and _is_let_go(path):
                path.unlink()
                removed += 1
    return removed


def _is_let_go(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            hold(file)
        except BlockingIOError:
            return False
    return True


@contextmanager
def arriving(target: Path, *, staging: Path | None = None, durable: bool = False) -> Iterator[IO[bytes]]:
    """A file to write to, that becomes `target` when the block ends well, and is gone when it does not.

    staging: where it lies until then, on the same file system as the target; by default beside it.
    durable: wait until the disk has it. Files of one attempt need not outlive the machine's power.
    """
    with full_disk_is_unavailable(), NamedTemporaryFile(dir=staging or target.parent, delete=False) as part:
        hold(part.file)
        try:
            yield part
            part.flush()
            if durable:
                os.fsync(part.fileno())
            os.replace(part.name, target)
        except BaseException:
            Path(part.name).unlink(missing_ok=True)
            raise


def digest_file(path: Path) -> tuple[str, int]:
    """sha256 (hex) and size in bytes of a file."""
    digest, size = hashlib.sha256(), 0
    for chunk in read_chunks(path):
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


def read_chunks(path: Path) -> Iterator[bytes]:
    """A file's bytes, a MiB at a time."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
