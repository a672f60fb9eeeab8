"""Where a webhook may lead: to public addresses over https, however the way is written."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from webhook_play import lead_to

from tasks.errors import Refused
from tasks.webhooks.addresses import find_addresses, is_public, read_endpoint, resolve

PUBLIC = ["93.184.216.34", "1.1.1.1", "2606:4700::6810:85e5", "2a00:1450:4001:80b::200e", "::ffff:1.1.1.1"]
PUBLIC += ["64:ff9b::5db8:d822"]  # NAT64 of 93.184.216.34: how an IPv6-only machine reaches it
INSIDE = {
    "loopback": ["127.0.0.1", "127.255.255.254", "::1"],
    "this host": ["0.0.0.0", "0.1.2.3", "::"],
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fd00:ec2::254"],
    "link-local": ["169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0"],
    "shared by carriers": ["100.64.0.1", "100.100.100.200", "100.127.255.255"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1"],
    "reserved": ["192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "240.0.0.1", "255.255.255.255"],
    "set apart": ["2001:db8::1", "2001::1", "2001:10::1", "3fff::1", "fec0::1", "4000::1", "100::1", "192.88.99.1"],
    "of a cloud": ["168.63.129.16"],
    "wrapped": ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "::10.0.0.1"],
    "6to4": ["2002:7f00:1::", "2002:a00:1::", "2002:5db8:d822::"],
    "Teredo": ["2001:0:4136:e378:8000:63bf:3fff:fdd2"],
    "NAT64": ["64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::a00:1", "64:ff9b:1::1"],
}


def reason(url: str, *addresses: str, loopback: bool = False) -> str:
    """Why a URL is refused, when its host has these addresses; empty when it is not."""
    try:
        find_addresses(read_endpoint(url, loopback), loopback, lead_to(*addresses))
    except Refused as refusal:
        return str(refusal.details["reason"])
    return ""


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_may_be_called(address: str) -> None:
    assert is_public(ip_address(address))
    assert reason("https://example.com/hook", address) == ""


@pytest.mark.parametrize("address", [one for group in INSIDE.values() for one in group])
def test_addresses_inside_may_not_be_called(address: str) -> None:
    assert not is_public(ip_address(address))
    assert reason("https://example.com/hook", address) == "address"


def test_one_address_inside_spoils_all_others() -> None:
    assert reason("https://example.com/", "93.184.216.34", "10.0.0.1") == "address"
    assert reason("https://example.com/", "10.0.0.1", "93.184.216.34") == "address"
    assert reason("https://example.com/", "93.184.216.34", "1.1.1.1") == ""


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "0x7f.0.0.1", "2130706433", "017700000001", "0", "[::1]"])
def test_the_ways_to_write_loopback_are_seen_through(host: str) -> None:
    with pytest.raises(Refused) as caught:
        find_addresses(read_endpoint(f"https://{host}/hook"))
    assert caught.value.code == "webhook_url_refused"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://example.com/", "not_https"),
        ("ftp://example.com/", "not_https"),
        ("file:///etc/passwd", "not_https"),
        ("//example.com/", "not_https"),
        ("https://", "not_https"),
        ("https:///hook", "not_https"),
        ("example.com", "not_https"),
        ("", "not_https"),
        ("https://example.com\\@127.0.0.1/", "credentials"),
        ("https://exa%6dple.com/", "malformed"),
        ("https://[::1/", "malformed"),
        ("https://bücher.example/", "malformed"),
        ("https://example.com:0/", "port"),
        ("https://example.com:x/", "port"),
        ("https://example.com/#", "fragment"),
        (" https://example.com/", "malformed"),
        ("https://example.com/\x00", "malformed"),
        ("https://user@example.com/", "credentials"),
        ("https://user:secret@example.com/", "credentials"),
        ("https://example.com:22/", "port"),
        ("https://example.com:80/", "port"),
        ("https://example.com:1023/", "port"),
        ("https://example.com:99999/", "port"),
        ("https://example.com/#part", "fragment"),
        ("https://exa mple.com/", "malformed"),
        ("https://example.com/\n", "malformed"),
        ("https://example.com/" + "x" * 2000, "too_long"),
    ],
)
def test_a_url_that_says_too_much_or_too_little_is_refused(url: str, why: str) -> None:
    assert reason(url, "93.184.216.34") == why


@pytest.mark.parametrize(
    "url", ["https://example.com", "https://example.com:8443/a?b=c", "https://xn--bcher-kva.example/%C3%A9"]
)
def test_an_ordinary_url_is_taken(url: str) -> None:
    assert reason(url, "93.184.216.34") == ""


def test_a_name_without_an_address_is_refused() -> None:
    def fail(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    for look_up in (fail, lead_to()):
        with pytest.raises(Refused) as caught:
            find_addresses(read_endpoint("https://example.com/"), look_up=look_up)
        assert caught.value.details == {"reason": "unresolved"}
        assert (caught.value.code, caught.value.status) == ("webhook_url_refused", 422)


def test_every_address_of_the_system_is_looked_at_once() -> None:
    assert set(resolve("localhost", 443)) <= {"127.0.0.1", "::1"}
    assert len(resolve("localhost", 443)) == len(set(resolve("localhost", 443)))


def test_only_development_reaches_this_machine_and_nothing_else_inside() -> None:
    for url in ("http://localhost:8080/", "https://localhost:8443/"):
        assert reason(url, "127.0.0.1", "::1", loopback=True) == ""
        assert reason(url, "10.0.0.1", loopback=True) == "address"
    assert reason("http://example.com:8080/", "93.184.216.34", loopback=True) == "address"
    assert reason("http://localhost:8080/", "127.0.0.1") == "not_https"
