"""What worker and child say to each other: frames of eight bytes of length and a pickle.

The child answers a request with STARTED before it touches anything of it. A child that dies without having said so
has run nothing, and the request can be given to another.
"""

from __future__ import annotations

import pickle
import struct
from typing import Any, Literal, NamedTuple

HEADER = struct.Struct("!Q")
STARTED = b"\x01"
MAX_BYTES = 64 * 1024 * 1024  # more than that belongs in a file; the worker must not be made to hold it

Kind = Literal["value", "error", "memory"]

# Exit code of a child that had no memory left even to say so.
OUT_OF_MEMORY = 112


class Request(NamedTuple):
    """One call. `arguments` is a pickle of its own: reading it can import modules, which belongs under the limits."""

    target: str
    arguments: bytes
    cpu_s: float
    memory_bytes: int


class Reply(NamedTuple):
    """How a call ended. `body` pickles the value or the error; `trace` is the stack of the error, without its text."""

    kind: Kind
    body: bytes
    trace: str
    peak_memory_bytes: int
    cpu_s: float
    task_number: int
    worn: bool


def pack(message: Request | Reply) -> bytes:
    """One frame."""
    body = pickle.dumps(tuple(message), pickle.HIGHEST_PROTOCOL)
    return HEADER.pack(len(body)) + body


def open_reply(body: bytes) -> Reply:
    """The reply in a frame. EOFError when it is none: something in the child wrote over its socket."""
    try:
        return Reply(*pickle.loads(body))
    except Exception as problem:
        raise EOFError("the child sent something that is no reply") from problem


def pack_error(error: BaseException) -> bytes:
    """A pickle of the error that is known to open again; of a RuntimeError with its name and text when it would not.

    Only an Exception may come out in the worker: a foreign KeyboardInterrupt or CancelledError would stop the loop.
    """
    try:
        body = pickle.dumps(error, pickle.HIGHEST_PROTOCOL)
        if isinstance(error, Exception) and type(pickle.loads(body)) is type(error):
            return body
    except MemoryError:
        raise
    except Exception:  # a class may do anything in its __reduce__
        return _pack_description(error)
    return _pack_description(error)


def _pack_description(error: BaseException) -> bytes:
    return pickle.dumps(RuntimeError(f"{type(error).__name__}: {_text(error)}"))


def open_error(body: bytes) -> Exception:
    """The error as the worker knows it."""
    try:
        error = pickle.loads(body)
    except Exception as problem:
        return RuntimeError(f"the error of the child cannot be opened here: {type(problem).__name__}: {problem}")
    return error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__} instead of an error")


def open_value(body: bytes) -> Any:
    """What the function returned. RuntimeError when the worker cannot open it."""
    try:
        return pickle.loads(body)
    except Exception as problem:
        text = f"the result cannot be opened in the worker: {type(problem).__name__}: {problem}"
        raise RuntimeError(text) from problem


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "(its text cannot be read)"
