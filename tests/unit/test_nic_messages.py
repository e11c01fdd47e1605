"""Route messages that move from one link to another, and the links that can't."""

from __future__ import annotations

import socket
import struct

import pytest
from msgspec.structs import replace

from net.nic import messages
from net.nic.link import LINK_HEADER, Seen, links_of, names, ports_of, refusal
from net.nic.messages import attribute, attributes
from net.nic.shift import merged
from net.nic.state import Journal, Standing, Wish, decode, encode

WISH = Wish(network="lan", parent="eth1", bridge="fln0123456789ab", mtu=1500)
ETH1 = Seen(index=7, name="eth1", kind="", mac="02:00:00:00:00:07", mtu=1500, ethernet=True, up=True)
BRIDGE = Seen(index=9, name=WISH.bridge, kind="bridge", mac="", mtu=1500, ethernet=True, up=True)
HERE = {"eth1": ETH1, WISH.bridge: BRIDGE}


def address(text: str, *, index: int = 7, flags: int = 0x80, label: str = "", valid: int = 100) -> bytes:
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    body = struct.pack("=BBBBI", family, 24, flags & 0xFF, 0, index)
    body += attribute(1, socket.inet_pton(family, text)) + attribute(2, socket.inet_pton(family, text))
    if label:
        body += attribute(3, label.encode() + b"\0")
    body += attribute(6, struct.pack("=IIII", valid // 2, valid, 1, 2))
    return body + attribute(8, struct.pack("=I", flags))


def route(*parts: bytes, table: int = 254, flags: int = 0) -> bytes:
    return struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, table, 4, 0, 1, flags) + b"".join(parts)


def by(index: int) -> bytes:
    return attribute(4, struct.pack("=I", index))


def test_an_address_moves_with_its_lifetime_less_what_passed() -> None:
    body = messages.address_for(address("192.0.2.5", label="eth1"), 9, "fln0", elapsed=30, unprobed=True)
    found = dict(attributes(body, 8))
    assert struct.unpack_from("=I", body, 4)[0] == 9
    assert struct.unpack("=IIII", found[6])[:2] == (20, 70)
    assert found[3] == b"fln0\0"


def test_an_address_that_is_good_for_ever_stays_so() -> None:
    body = messages.address_for(
        address("192.0.2.5", valid=messages.FOREVER), 9, "", elapsed=30, unprobed=True
    )
    assert struct.unpack_from("=II", dict(attributes(body, 8))[6])[1] == messages.FOREVER


def test_an_address_whose_lifetime_has_passed_goes_within_a_second() -> None:
    body = messages.address_for(address("192.0.2.5"), 9, "", elapsed=500, unprobed=True)
    assert struct.unpack_from("=II", dict(attributes(body, 8))[6]) == (0, 1)


def test_routes_by_others_with_an_address_of_the_link_are_known() -> None:
    own = [address("192.0.2.5"), address("2001:db8::5")]
    source = attribute(7, socket.inet_aton("192.0.2.5"))
    beside = route(by(8), attribute(5, socket.inet_aton("198.51.100.1")), source)
    strangers = (
        route(by(7), source),
        route(by(8), attribute(7, socket.inet_aton("192.0.2.6"))),
        route(by(8), source, table=255),
        route(by(8)),
    )
    direct = route(by(8), source)
    assert messages.routes_from((*strangers, beside, direct), 7, own) == (direct, beside)


def test_route_by_a_nexthop_object_is_told_by_its_number_alone() -> None:
    source, ident = attribute(7, socket.inet_aton("192.0.2.5")), attribute(30, struct.pack("=I", 3))
    told = route(by(8), attribute(5, socket.inet_aton("198.51.100.1")), source, ident)
    assert messages.routes_from([told], 7, [address("192.0.2.5")]) == (route(source, ident),)


def test_routes_of_others_are_no_longer_beside_once_they_lead_by_the_bridge() -> None:
    source = attribute(7, socket.inet_aton("192.0.2.5"))
    link = Standing(index=7, others=(route(by(9), source), route(by(8), source)))
    bridge = Standing(index=9, others=(route(by(8), source),))
    assert merged(link, bridge).others == (route(by(8), source),)


@pytest.mark.parametrize(("unprobed", "flags"), [(True, 0x202), (False, 0x200)])
def test_an_ipv6_address_moves_without_a_probe_and_with_its_own_flags(unprobed: bool, flags: int) -> None:
    seen = address("2001:db8::5", flags=0x80 | 0x40 | 0x200)  # permanent, tentative, noprefixroute
    body = messages.address_for(seen, 9, "", elapsed=0, unprobed=unprobed)
    assert struct.unpack("=I", dict(attributes(body, 8))[8])[0] == flags


def test_ipv6_addresses_are_added_last_first() -> None:
    four, six = [address("192.0.2.5"), address("192.0.2.6")], [address("2001:db8::5"), address("fe80::1")]
    assert messages.in_order((*four, *six)) == [*four, six[1], six[0]]


def test_labels_follow_their_link() -> None:
    assert messages.relabelled("eth1:2", "eth1", "fln0") == "fln0:2"
    assert messages.relabelled("eth1", "eth1", "fln0") == "fln0"
    assert messages.relabelled("eth10", "eth1", "fln0") == "eth10"


def test_a_route_moves_with_all_that_nobody_here_knows() -> None:
    seen = route(by(7), attribute(8, b"metrics!"), attribute(99, b"unknown."), flags=16 | 4)
    body = messages.route_for(seen, 7, 9)
    assert attributes(body, 12) == [(4, struct.pack("=I", 9)), (8, b"metrics!"), (99, b"unknown.")]
    assert struct.unpack_from("=I", body, 8)[0] == 4


def test_a_route_by_several_links_moves_where_it_is_ours() -> None:
    hops = b"".join(struct.pack("=HBBi", 16, 0, 1, i) + attribute(5, b"abcd") for i in (7, 8))
    moved = dict(attributes(messages.route_for(route(attribute(9, hops)), 7, 9), 12))[9]
    assert [struct.unpack_from("=i", moved, at)[0] for at in (4, 20)] == [9, 8]
    assert moved[8:16] == attribute(5, b"abcd")


def test_a_route_that_expires_goes_on_expiring() -> None:
    cache = attribute(12, struct.pack("=IIiIIIII", 0, 0, 5000, 0, 0, 0, 0, 0))
    found = dict(attributes(messages.route_for(route(by(7), cache), 7, 9, elapsed=20), 12))
    assert struct.unpack("=I", found[23])[0] == 30 and 12 not in found


def test_routes_of_a_link_are_its_users_own_and_gateways_come_last() -> None:
    local = route(by(7), table=255)
    cached = route(by(7), flags=0x200)
    other = route(by(8))
    direct, led = route(by(7)), route(by(7), attribute(5, b"abcd"))
    assert messages.routes_on([led, local, cached, other, direct], 7) == (direct, led)
    assert messages.gateways([direct, led]) == ((socket.AF_INET, b"abcd"),)


def test_permanent_neighbours_move_and_others_do_not() -> None:
    def entry(index: int, state: int, flags: int = 0) -> bytes:
        return struct.pack("=BxxxiHBB", socket.AF_INET, index, state, flags, 1) + attribute(1, b"abcd")

    kept = entry(7, 0x80)
    assert messages.neighbours_on([kept, entry(8, 0x80), entry(7, 2), entry(7, 0x80, 8)], 7) == (kept,)
    assert struct.unpack_from("=i", messages.neighbour_for(kept, 9), 4)[0] == 9


def test_a_link_that_can_be_moved_is_not_refused() -> None:
    assert refusal(WISH, HERE, wireless=False, rules=()) == ""
    port = {**HERE, "eth1": replace(ETH1, master=9)}
    assert refusal(WISH, port, wireless=False, rules=()) == ""


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"eth1": None}, "no link eth1"),
        ({WISH.bridge: None}, "not there yet"),
        ({"eth1": replace(ETH1, kind="bridge")}, "a bridge itself"),
        ({"eth1": replace(ETH1, kind="tun", ethernet=False)}, "no Ethernet link"),
        ({"eth1": replace(ETH1, kind="wireguard")}, "no Ethernet link"),
        (
            {"eth1": replace(ETH1, master=3), "br7": replace(BRIDGE, index=3, name="br7")},
            "a port of br7 already",
        ),
        ({"mv": replace(ETH1, index=12, name="mv", kind="macvlan", below=7)}, "the parent of macvlan mv"),
        ({"eth1": replace(ETH1, up=False)}, "ip link set eth1 up"),
        ({"eth1": replace(ETH1, mtu=9000)}, "--opt mtu=9000"),
    ],
)
def test_a_link_that_can_not_be_moved_is_refused_in_words(change: dict[str, Seen | None], told: str) -> None:
    links = {name: link for name, link in {**HERE, **change}.items() if link is not None}
    assert told in refusal(WISH, links, wireless=False, rules=())


def test_wireless_links_and_those_that_rules_name_are_refused() -> None:
    rule = bytes(12) + attribute(3, b"eth1\0")
    assert "wireless" in refusal(WISH, HERE, wireless=True, rules=())
    assert "ip rule" in refusal(WISH, HERE, wireless=False, rules=[rule])
    assert not names(bytes(12) + attribute(17, b"eth10\0"), "eth1")
    assert "flota's own" in refusal(
        replace(WISH, parent="flv1"), {**HERE, "flv1": ETH1}, wireless=False, rules=()
    )


def test_ports_of_bridges_are_found_by_their_master() -> None:
    def link(index: int, name: str, master: int = 0) -> bytes:
        head = struct.pack("=BxHiII", 0, 1, index, 1, 0) + attribute(3, name.encode() + b"\0")
        return head + (attribute(10, struct.pack("=I", master)) if master else b"")

    dumped = [link(9, WISH.bridge), link(7, "eth1", 9), link(8, "eth2")]
    assert LINK_HEADER == 16 and links_of(dumped)["eth1"].master == 9
    assert ports_of(dumped, [WISH.bridge]) == {"eth1": WISH.bridge}


def test_a_journal_is_read_as_it_was_written() -> None:
    before = Standing(index=7, addresses=(address("192.0.2.5"),), sysctls={"a": "1"}, at=5.0)
    journal = Journal(wish=WISH, phase="moving", before=before, boot="b")
    assert decode(encode(journal)) == journal
