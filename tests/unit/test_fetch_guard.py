"""Which addresses a build fetches from, by what kind of address each is."""

from __future__ import annotations

import ipaddress

import pytest

from image.context.guard import Address, Guard, kind, never
from model.errors import Forbidden, Unavailable

PUBLIC = ("1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700::1111", "2a00:1450::1", "192.0.1.1", "172.32.0.1")
SITE = {
    "127.0.0.1": "loopback", "127.8.9.1": "loopback", "::1": "loopback", "::ffff:127.0.0.1": "loopback",
    "::127.0.0.1": "loopback", "64:ff9b::127.0.0.1": "loopback", "2002:7f00:1::": "loopback",
    "169.254.169.254": "link-local", "fe80::1": "link-local", "::ffff:169.254.169.254": "link-local",
    "64:ff9b::a9fe:a9fe": "link-local", "10.0.0.1": "private", "172.16.0.1": "private",
    "172.31.255.255": "private", "192.168.1.1": "private", "100.64.0.1": "private", "198.18.0.1": "private",
    "192.0.2.1": "private", "fd00::1": "private", "fc00::1": "private", "fec0::1": "private",
    "2001:db8::1": "private", "64:ff9b:1::1": "private", "2002:a00:1::": "private", "0.1.2.3": "private",
}  # fmt: skip
NEVER = (
    "224.0.0.1", "239.1.1.1", "ff02::1", "0.0.0.0", "::", "255.255.255.255", "240.0.0.1", "::ffff:224.0.0.1"
)  # fmt: skip


def of(text: str) -> Address:
    return ipaddress.ip_address(text)


@pytest.mark.parametrize("text", PUBLIC)
def test_public_address_is_fetched_from(text: str) -> None:
    assert kind(of(text)) == "" == never(of(text))
    Guard().check(of(text), 80, private=False)


@pytest.mark.parametrize(("text", "what"), SITE.items())
def test_address_of_the_site_is_refused_unless_allowed_b18(text: str, what: str) -> None:
    assert kind(of(text)) == what
    with pytest.raises(Forbidden, match=rf"is a {what} address.*--private-addresses"):
        Guard().check(of(text), 80, private=False)
    Guard().check(of(text), 80, private=True)


@pytest.mark.parametrize("text", NEVER)
@pytest.mark.parametrize("private", [False, True])
def test_address_of_nobody_is_always_refused_b18(text: str, private: bool) -> None:
    with pytest.raises(Forbidden, match="nothing is fetched from it"):
        Guard().check(of(text), 80, private=private)


@pytest.mark.parametrize("text", ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3"])
def test_api_of_the_fleet_is_refused_whatever_is_allowed_b18(text: str) -> None:
    guard = Guard([("10.1.2.3", 8443), ("", 2375)])
    with pytest.raises(Forbidden, match="port 8443 is the fleet's own API"):
        guard.check(of(text), 8443, private=True)
    guard.check(of(text), 80, private=True)
    for mine in ("127.0.0.1", "127.1.2.3", "::1"):
        with pytest.raises(Forbidden, match="the fleet's own API"):
            guard.check(of(mine), 2375, private=True)


async def test_name_with_some_good_addresses_is_fetched_from_those_alone() -> None:
    async def lookup(host: str, port: int) -> list[Address]:
        del host, port
        return [of("10.0.0.1"), of("1.1.1.1"), of("::1")]

    guard = Guard(lookup=lookup)
    assert await guard.resolved("mixed.example", 80, private=False) == [of("1.1.1.1")]
    assert len(await guard.resolved("mixed.example", 80, private=True)) == 3


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "0x7f.1", "2130706433", "017700000001", "127.1", "localhost", "[::1]"]
)
async def test_loopback_is_refused_in_every_spelling_b18(host: str) -> None:
    with pytest.raises((Forbidden, Unavailable)):
        await Guard().resolved(host.strip("[]"), 80, private=False)


@pytest.mark.parametrize("mine", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_api_on_this_host_is_refused_under_each_of_its_addresses_b18(mine: str) -> None:
    guard = Guard([("127.0.0.5", 8443)])
    with pytest.raises(Forbidden, match="the fleet's own API"):
        guard.check(of(mine), 8443, private=True)
