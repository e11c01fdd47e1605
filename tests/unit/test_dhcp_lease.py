"""What a DHCP client says it was given, and how it is started."""

from __future__ import annotations

import pytest

from net.dhcp.lease import MOST, Lease, argv, parse

BOUND = (
    b"event=bound\nclient=77\nip=192.0.2.130\nmask=24\nrouter=192.0.2.1 192.0.2.2\n"
    b"dns=192.0.2.53 evil;rm 192.0.2.54\nserverid=192.0.2.3\nlease=3600\n"
)


def test_a_lease_is_read_and_only_addresses_are_taken() -> None:
    assert parse(BOUND) == Lease(
        address="192.0.2.130",
        router="192.0.2.1",
        dns=("192.0.2.53", "192.0.2.54"),
        server="192.0.2.3",
        seconds=3600,
    )


def test_a_lease_that_was_taken_back_has_no_address() -> None:
    assert parse(BOUND.replace(b"event=bound", b"event=deconfig")) == Lease(address="")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"event=bound\nip=\n",
        b"event=bound\nip=224.0.0.1\n",
        b"event=bound\nip=0.0.0.0\n",
        b"event=bound\nip=127.0.0.1\n",
        b"event=bound\nip=192.0.2.1/24\n",
        b"\xff\xfe",
        b"event=bound\nip=192.0.2.1\n" + b"x" * MOST,
    ],
)
def test_what_is_no_lease_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        parse(text)


def test_a_client_has_two_rights_and_asks_for_what_it_had() -> None:
    words = argv(("/bin/busybox", "udhcpc"), "/run/ns/a", "eth0", "/run/d", before="192.0.2.9", name="web")
    assert words[:2] == ["nsenter", "--net=/run/ns/a"]
    assert "--bounding-set=-all,+net_raw,+net_bind_service" in words and "--no-new-privs" in words
    assert words[words.index("-r") + 1] == "192.0.2.9"
    assert "-r" not in argv(("udhcpc",), "/run/ns/a", "eth0", "/run/d", before="", name="web")
