"""Zip files read with a guard: what they declare, and what really comes out, must stay within bounds.

Stdlib only. The directory of a zip is measured before it is loaded, because loading a hostile one takes gigabytes.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tasks.documents.problems import unreadable

MIB = 1024 * 1024
MAX_ENTRIES = 5_000
MAX_DIRECTORY_BYTES = 4 * MIB
MAX_TOTAL_BYTES = 300 * MIB
MAX_RATIO = 200
# Small parts of honest files compress extremely well (empty style sheets, white images).
RATIO_FREE_BYTES = 2 * MIB
MAX_PART_BYTES = 48 * MIB

_END = b"PK\x05\x06"
_END_SIZE = 22
_LOCATOR = b"PK\x06\x07"
_LOCATOR_SIZE = 20
_ENCRYPTED = 0x1
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, struct.error, ValueError, OSError)


class Archive:
    """An open zip whose reads are counted. Use `with open_archive(path) as archive`."""

    def __init__(self, file: zipfile.ZipFile) -> None:
        self._file = file
        self._entries = {info.filename: info for info in file.infolist()}
        self._read = 0
        self._check_declared()

    @property
    def names(self) -> list[str]:
        """Names of all entries, in the order of the directory."""
        return list(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def read(self, name: str, limit: int = MAX_PART_BYTES) -> bytes:
        """All bytes of one entry. Raises `too_large` beyond `limit`, `corrupt_file` when it is missing."""
        with self.open(name) as part:
            data = part.read(limit + 1)
        if len(data) > limit:
            raise unreadable("too_large", f"{name} holds more than {limit} bytes")
        return data

    @contextmanager
    def open(self, name: str) -> Iterator[GuardedPart]:
        """One entry as a readable stream that stops a bomb while it unpacks."""
        info = self._entries.get(name)
        if info is None:
            raise unreadable("corrupt_file", f"the archive lacks {name}")
        if info.flag_bits & _ENCRYPTED:
            raise unreadable("encrypted_file", f"{name} is encrypted")
        try:
            with self._file.open(info) as stream:
                yield GuardedPart(self, info, stream)
        except _DAMAGED as error:
            raise unreadable("corrupt_file", f"{name}: {error}") from error

    def count(self, info: zipfile.ZipInfo, part: int, more: int) -> None:
        """Note `more` bytes read of an entry that has given `part` bytes so far."""
        self._read += more
        if self._read > MAX_TOTAL_BYTES or _too_dense(part, info.compress_size):
            raise unreadable("zip_bomb", f"{info.filename} gave {part} bytes from {info.compress_size}")

    def _check_declared(self) -> None:
        if len(self._entries) > MAX_ENTRIES:
            raise unreadable("zip_bomb", f"{len(self._entries)} entries")
        total = sum(info.file_size for info in self._entries.values())
        if total > MAX_TOTAL_BYTES:
            raise unreadable("zip_bomb", f"declares {total} bytes")
        for info in self._entries.values():
            if _too_dense(info.file_size, info.compress_size):
                raise unreadable("zip_bomb", f"{info.filename} declares {info.file_size} from {info.compress_size}")


class GuardedPart:
    """The stream of one entry; counts what it hands out."""

    def __init__(self, archive: Archive, info: zipfile.ZipInfo, stream: IO[bytes]) -> None:
        self._archive = archive
        self._info = info
        self._stream = stream
        self._given = 0

    def read(self, size: int = -1) -> bytes:
        """Like a file's read; memory stays bounded also when no size is given."""
        wanted = size if size >= 0 else MAX_TOTAL_BYTES + 1
        pieces = []
        while wanted > 0 and (piece := self._stream.read(min(wanted, MIB))):
            self._given += len(piece)
            self._archive.count(self._info, self._given, len(piece))
            wanted -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open a zip for guarded reading. Raises Permanent `corrupt_file` or `zip_bomb`."""
    check_directory(path)
    try:
        file = zipfile.ZipFile(path)
    except _DAMAGED as error:
        raise unreadable("corrupt_file", f"not a readable zip: {error}") from error
    with file:
        yield Archive(file)


def check_directory(path: Path) -> None:
    """Raise `zip_bomb` when the zip's directory alone is too large to load, `corrupt_file` when there is none."""
    size = _directory_bytes(path)
    if size is None:
        raise unreadable("corrupt_file", "no zip directory found")
    if size > MAX_DIRECTORY_BYTES:
        raise unreadable("zip_bomb", f"the zip directory takes {size} bytes")


def _directory_bytes(path: Path) -> int | None:
    """Bytes of the central directory as the end record tells, None without an end record."""
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        tail_at = max(0, length - (0xFFFF + _END_SIZE + _LOCATOR_SIZE))
        file.seek(tail_at)
        tail = file.read()
        at = tail.rfind(_END)
        if at < 0 or len(tail) < at + _END_SIZE:
            return None
        size = int(struct.unpack_from("<L", tail, at + 12)[0])
        return max(size, _zip64_directory_bytes(file, tail, at))


def _zip64_directory_bytes(file: IO[bytes], tail: bytes, at: int) -> int:
    """The same for the 64-bit record, which zipfile believes whenever its locator is there; else 0."""
    locator = tail[max(0, at - _LOCATOR_SIZE) : at]
    if not locator.startswith(_LOCATOR):
        return 0
    (offset,) = struct.unpack_from("<Q", locator, 8)
    file.seek(min(offset, 2**62))
    record = file.read(56)
    if len(record) < 56 or not record.startswith(b"PK\x06\x06"):
        return MAX_DIRECTORY_BYTES + 1
    return int(struct.unpack_from("<Q", record, 40)[0])


def _too_dense(size: int, compressed: int) -> bool:
    return size > RATIO_FREE_BYTES and size > MAX_RATIO * max(compressed, 1)
