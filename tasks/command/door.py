"""The port of the API: chosen and listened on by `up` itself, so nobody can take it while the API restarts."""

from __future__ import annotations

import errno
import socket

from tasks.errors import Refused

_TRIES = 100
_BACKLOG = 512
_LAST = 65_535
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - looked up, not listened on


def open_door(host: str, port: int, *, exactly: bool) -> socket.socket:
    """A listening socket on the port or, unless it must be `exactly` that one, on the next free port above it.

    Raises Refused `port_busy` or `address_invalid`.
    """
    for candidate in range(port, min(port + (1 if exactly else _TRIES), _LAST + 1)):
        try:
            return _listen(host, candidate)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                message = f"This machine cannot listen on {host}:{candidate}: {error.strerror or error}."
                raise Refused("address_invalid", message) from error
    message = f"Port {port} is used by another program. Stop that one, or choose another with --port."
    raise Refused("port_busy", message)


def reachable_host(host: str) -> str:
    """An address under which a listener on `host` can be reached from this machine."""
    if host in _EVERYWHERE:
        return _EVERYWHERE[host]
    return f"[{host}]" if ":" in host else host


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    door = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A port whose last connections are still fading out is free; one that somebody listens on is not.
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind((host, port))
        door.listen(_BACKLOG)
    except BaseException:
        door.close()
        raise
    return door
