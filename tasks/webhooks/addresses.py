"""Where a webhook may lead: to public addresses over https, and nowhere inside.

A name is looked up by us, every address it has is checked, and the connection is made to a checked address. So a name
that leads elsewhere a moment later leads nowhere. Checked when a webhook is registered and again at each attempt.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

from tasks.errors import Refused

MOST_URL_CHARACTERS = 2000
LOWEST_PORT = 1024
_OWN_PORTS = {"https": 443, "http": 80}
_VISIBLE = re.compile(r"[\x21-\x7e]*")
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")

# Global by the book, and still not for us: relays of 6to4, and the host of every virtual machine on Azure.
_INSIDE = tuple(map(ip_network, ("192.88.99.0/24", "168.63.129.16/32")))
_NAT64 = ip_network("64:ff9b::/96")
# Only what was given out to be global unicast, less what is set apart in it: Teredo and its like, examples, 6to4.
_OUTSIDE_6 = ip_network("2000::/3")
_SET_APART_6 = tuple(map(ip_network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))

# The addresses of a host, as text. Raises OSError.
Resolve = Callable[[str, int], list[str]]


@dataclass(frozen=True)
class Endpoint:
    """What may be called: `host` is looked up, `authority` goes into Host, `target` is path and query."""

    scheme: str
    host: str
    port: int
    authority: str
    target: str


def read_endpoint(url: str, loopback: bool = False) -> Endpoint:
    """The endpoint of a URL. Raises Refused `webhook_url_refused`. `loopback`: http is taken too, for development."""
    if len(url) > MOST_URL_CHARACTERS:
        raise _refused("too_long", f"A URL of a webhook has at most {MOST_URL_CHARACTERS} characters.")
    parts = _split(url)
    if not parts.hostname or parts.scheme not in (_OWN_PORTS if loopback else ("https",)):
        raise _refused("not_https", "A webhook's URL begins with https://.")
    if "@" in parts.netloc:
        raise _refused("credentials", "Leave user and password out of the URL; the signature says who calls.")
    if not _HOST.fullmatch(parts.hostname):
        raise _refused("malformed", "The host of this URL is not one.")
    if "#" in url:
        raise _refused("fragment", "Leave out what follows # in the URL; it would never be sent.")
    port = _read_port(parts)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Endpoint(parts.scheme, parts.hostname, port, parts.netloc, target)


def _split(url: str) -> SplitResult:
    # Strictly: what a lenient reader would drop or mend, another one might read differently.
    if not _VISIBLE.fullmatch(url):
        raise _refused(
            "malformed", "A URL has visible ASCII characters only; write other letters as the web encodes them."
        )
    try:
        return urlsplit(url)
    except ValueError:
        raise _refused("malformed", "This is not a URL.") from None


def _read_port(parts: SplitResult) -> int:
    own_port = _OWN_PORTS[parts.scheme]
    try:
        port = own_port if parts.port is None else parts.port
    except ValueError:
        port = 0
    if port != own_port and port < LOWEST_PORT:
        raise _refused("port", f"A webhook may use port {own_port}, or one from {LOWEST_PORT} up.")
    return port


def resolve(host: str, port: int) -> list[str]:
    """The addresses that the system knows of a host, without repeats. Blocks. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def check_addresses(endpoint: Endpoint, addresses: list[str], loopback: bool = False) -> list[str]:
    """The addresses, when each of them may be called. Raises Refused `webhook_url_refused`."""
    if not addresses:
        raise unresolved()
    for text in addresses:
        address = ip_address(text)
        allowed = loopback and address.is_loopback
        if not allowed and (endpoint.scheme != "https" or not is_public(address)):
            raise _refused("address", "This URL leads to an address that webhooks may not call.")
    return addresses


def find_addresses(endpoint: Endpoint, loopback: bool = False, look_up: Resolve = resolve) -> list[str]:
    """Look an endpoint's host up, and check what is found. Blocks. Raises Refused `webhook_url_refused`."""
    try:
        found = look_up(endpoint.host, endpoint.port)
    except (OSError, UnicodeError):
        raise unresolved() from None
    return check_addresses(endpoint, found, loopback)


def unresolved() -> Refused:
    """The refusal of a host that has no address."""
    return _refused("unresolved", "The host of this URL has no address.")


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is on the public internet, also when it only wraps another one."""
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast and not any(address in inside for inside in _INSIDE)
    if address.scope_id is not None:
        return False
    if address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _OUTSIDE_6 and address.is_global and not any(address in part for part in _SET_APART_6)


def _refused(reason: str, sentence: str) -> Refused:
    return Refused("webhook_url_refused", sentence, details={"reason": reason}, status=422)
