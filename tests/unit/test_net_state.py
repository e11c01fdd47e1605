"""Plans to states, states to operations, tables to scripts and ports to elements."""

from __future__ import annotations

import ipaddress
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import InUse, InvalidInput
from model.ids import HostId, InstanceId
from model.spec import NetworkSpec, Subnet
from model.status import BoundPort
from model.view import NetworkPeer, NetworkView, Peer
from net.diff import NftOp, Op, diff, nft_operations
from net.endpoint import InstanceNetwork
from net.host import EndpointRequest, NetworkPlan, PublishRequest
from net.kernel.steering import mask
from net.naming import bridge_name, endpoint_mac, link_local, veth_name, vtep_mac, vxlan_name
from net.nftscript import comment, parse_listing, table_script
from net.plan import around, check, desired, filter_tables
from net.publish import clash, elements, normal
from net.spans import punched, without
from net.state import Chain, ElementSet, NetState, NftTable, Route, Rule

ME, PEER = HostId("1" * 64), HostId("2" * 64)
NETWORK = "a" * 64


def plan(peer: str = "198.18.0.12", **changes: object) -> NetworkPlan:
    spec = NetworkSpec(name="web", subnets=(Subnet(cidr="10.1.0.0/16"), Subnet(cidr="fd00:1::/64")))
    peers = (NetworkPeer(host=PEER, blocks=("10.1.2.0/24", "10.1.9.0/24", "fd00:1::200/120")),)
    view = NetworkView(
        id=NETWORK, spec=spec, vni=4097, blocks=("10.1.1.0/24", "fd00:1::100/120"), peers=peers
    )
    whole = NetworkPlan(
        host=ME,
        address="198.18.0.11",
        mtu=1500,
        vxlan_port=4789,
        networks={NETWORK: view},
        peers={PEER: Peer(host=PEER, name="h2", address=peer)},
    )
    return msgspec.structs.replace(whole, **changes)


def test_names_fit_and_differ() -> None:
    names = {bridge_name(NETWORK), vxlan_name(NETWORK), veth_name("i1", NETWORK), veth_name("i2", NETWORK)}
    assert len(names) == 4 and all(len(name) <= 15 for name in names)
    assert vtep_mac(ME, 1) != vtep_mac(PEER, 1) != vtep_mac(PEER, 2)
    assert int(endpoint_mac("i", "n")[:2], 16) & 3 == 2
    assert link_local("02:00:5e:10:00:01") == "fe80::5eff:fe10:1"


def test_a_peer_costs_a_route_per_block_and_one_entry_each() -> None:
    state = desired(plan(), ())
    mac = vtep_mac(PEER, 4097)
    assert {(r.destination, r.via) for r in state.routes if r.via} == {
        ("10.1.2.0/24", "198.18.0.12"),
        ("10.1.9.0/24", "198.18.0.12"),
        ("fd00:1::200/120", link_local(mac)),
    }
    assert {n.address for n in state.neighbours} == {"198.18.0.12", link_local(mac)}
    assert [(f.mac, f.remote) for f in state.fdb] == [(mac, "198.18.0.12")]
    assert {link.mtu for link in state.links.values()} == {1450}


def test_an_ipv6_underlay_takes_twenty_bytes_more_and_ipv6_next_hops() -> None:
    state = desired(plan("2001:db8::12", address="2001:db8::11"), ())
    assert {link.mtu for link in state.links.values()} == {1430}
    assert all(":" in route.via for route in state.routes if route.via)


def test_a_moved_peer_replaces_routes_without_a_gap() -> None:
    before, after = desired(plan(), ()), desired(plan("198.18.0.99"), ())
    routes = [op for op in diff(after, before) if isinstance(op, Op) and isinstance(op.item, Route)]
    assert [op.verb for op in routes] == ["change", "change"]


def test_an_own_route_beside_the_wanted_one_goes() -> None:
    want = desired(plan(), ())
    beside = msgspec.structs.replace(min(want.routes, key=lambda r: r.destination), metric=5)
    have = msgspec.structs.replace(want, routes=want.routes | {beside})
    assert diff(want, have) == (Op(verb="remove", item=beside),)


def test_operations_are_in_the_order_the_kernel_needs() -> None:
    kinds = [
        type(op.item).__name__ if isinstance(op, Op) else "Nft"
        for op in diff(desired(plan(), ()), NetState())
    ]
    order = ["Nft", "Link", "Sysctl", "Address", "Neighbour", "Fdb", "Route"]
    assert kinds == sorted(kinds, key=order.index)
    back = [type(op.item).__name__ for op in diff(NetState(), desired(plan(), ())) if isinstance(op, Op)]
    assert back == sorted(back, key=["Route", "Fdb", "Neighbour", "Address", "Link"].index)


def test_equal_states_differ_in_nothing() -> None:
    assert diff(desired(plan(), ()), desired(plan(), ())) == ()


@pytest.mark.parametrize(
    ("options", "vni", "mtu", "says"),
    [
        ({"mode": "l4"}, 4097, 1500, "neither routed nor bridged"),
        ({"rps": "1"}, 4097, 1500, "neither on nor off"),
        ({"mtu": "0"}, 4097, 1500, "options.mtu"),
        ({"mtu": "1279"}, 4097, 1500, "1280"),
        ({"mtu": "1451"}, 4097, 1500, "1450"),
        ({"mtu": "x"}, 4097, 1500, "'x'"),
        ({}, 0, 1500, "VNI"),
        ({}, 1 << 24, 1500, "VNI"),
        ({}, 4097, 600, "underlay MTU of 600"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_are_refused(options: dict[str, str], vni: int, mtu: int, says: str) -> None:
    good = plan().networks[NETWORK]
    bad = msgspec.structs.replace(good, vni=vni, spec=msgspec.structs.replace(good.spec, options=options))
    with pytest.raises(InvalidInput) as caught:
        check(plan(networks={NETWORK: bad}, mtu=mtu))
    assert says in str(caught.value)


def test_a_network_around_the_hosts_own_address_is_refused() -> None:
    with pytest.raises(InvalidInput, match="own address"):
        check(plan(address="10.1.0.77"))


TABLE = NftTable(
    chains={"c": Chain(rules=(Rule(text="drop", why="no"),))},
    sets={"s": ElementSet(type="ifname"), "m": ElementSet(type="inet_service", data="ipv4_addr")},
)
PORTS = st.dictionaries(st.integers(1, 9).map(str), st.sampled_from(["10.0.0.1", "10.0.0.2"]))


def with_ports(found: dict[str, str]) -> NftTable:
    port_map = msgspec.structs.replace(TABLE.sets["m"], elements=found)
    return msgspec.structs.replace(TABLE, sets={**TABLE.sets, "m": port_map})


@given(before=PORTS, after=PORTS)
def test_a_changed_map_is_changed_by_its_elements_only(before: dict[str, str], after: dict[str, str]) -> None:
    script, whole = table_script("inet", with_ports(after), with_ports(before))
    assert not whole and (script == "") == (before == after)
    for key in {*before, *after}:
        touched = any(f" {key} " in line.replace(",", " ") for line in script.splitlines())
        assert touched == (before.get(key) != after.get(key))


def test_a_listing_is_known_again_and_a_lost_rule_is_seen() -> None:
    rule = {"rule": {"chain": "c", "comment": comment(TABLE.chains["c"].rules[0])}}
    entries = [
        {"metainfo": {}},
        {"chain": {"name": "c"}},
        rule,
        {"set": {"name": "s", "type": "ifname", "elem": ["eth0"]}},
        {"map": {"name": "m", "type": "inet_service", "map": "ipv4_addr", "elem": [[80, "10.0.0.1"]]}},
    ]
    seen = parse_listing(json.loads(json.dumps({"nftables": entries})))
    assert seen.sets["m"].elements == {"80": "10.0.0.1"}
    script, whole = table_script("inet", TABLE, seen)
    assert not whole and "delete element inet flota s { eth0 }" in script
    entries.remove(rule)
    assert table_script("inet", TABLE, parse_listing({"nftables": entries}))[1]


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("a table switched off", {"table": {"name": "flota", "flags": ["dormant"]}}),
        (
            "another policy",
            {"chain": {"name": "h", "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
        ),
    ],
)
def test_a_table_that_a_stranger_shut_is_made_anew(name: str, entry: dict[str, object]) -> None:
    hook = Chain(type="filter", hook="forward", priority=0)
    want = msgspec.structs.replace(TABLE, chains={"h": hook}, sets={})
    chain = {"chain": {"name": "h", "type": "filter", "hook": "forward", "prio": 0, "policy": "accept"}}
    assert table_script("inet", want, parse_listing({"nftables": [chain]})) == ("", False)
    script, whole = table_script("inet", want, parse_listing({"nftables": [chain, entry]}))
    assert whole and "policy accept" in script, name


def test_route_that_stood_is_taken_back_and_one_that_never_did_is_not() -> None:
    want = desired(plan(), ())
    have = msgspec.structs.replace(want, routes=frozenset())
    assert {op.verb for op in diff(want, have) if isinstance(op, Op)} == {"add"}
    stood = {route.place for route in want.routes}
    assert {op.verb for op in diff(want, have, stood) if isinstance(op, Op)} == {"change"}


def test_switches_that_a_kernel_does_not_have_are_no_difference() -> None:
    want = desired(plan(), ())
    without = {path: value for path, value in want.sysctls.items() if not path.startswith("net/ipv6/")}
    assert diff(want, msgspec.structs.replace(want, sysctls=without)) == ()


def request(instance: str, published: int, host_ip: str = "", ipv6: str = "") -> PublishRequest:
    port = BoundPort(target=80, published=published, protocol="tcp", host_ip=host_ip)
    return PublishRequest(instance=InstanceId(instance), ipv4="10.0.0.9", ipv6=ipv6, ports=(port,))


@pytest.mark.parametrize(
    ("host_ip", "found"),
    [
        ("", {"port4": {"tcp . 8080": "10.0.0.9 . 80"}, "port6": {"tcp . 8080": "fd00::9 . 80"}}),
        ("0.0.0.0", {"port4": {"tcp . 8080": "10.0.0.9 . 80"}}),
        ("127.0.0.1", {"host4": {"127.0.0.1 . tcp . 8080": "10.0.0.9 . 80"}}),
        ("::1", {"host6": {"::1 . tcp . 8080": "fd00::9 . 80"}}),
        ("::", {"port6": {"tcp . 8080": "fd00::9 . 80"}}),
    ],
)
def test_published_port_is_in_the_maps_of_its_addresses(
    host_ip: str, found: dict[str, dict[str, str]]
) -> None:
    made = elements([normal(request("a", 8080, host_ip, "fd00::9"))])
    assert {name: dict(items) for name, items in made.items() if items} == found


@pytest.mark.parametrize(
    ("one", "two", "clashes"),
    [
        ("", "", True), ("", "127.0.0.1", True), ("127.0.0.1", "", True), ("127.0.0.1", "10.0.0.1", False),
        ("::", "127.0.0.1", False), ("::", "::1", True), ("0.0.0.0", "127.0.0.1", True),
        ("0.0.0.0", "::", False), ("0.0.0.0", "", True),
    ],
)  # fmt: skip
def test_ports_clash_when_one_packet_could_be_for_both(one: str, two: str, clashes: bool) -> None:
    if not clashes:
        clash(request("a", 80, one), [request("b", 80, two)])
        return
    with pytest.raises(InUse):
        clash(request("a", 80, one), [request("b", 80, two)])


def test_nft_operations_carry_the_table_they_make() -> None:
    made = [op for op in diff(desired(plan(), ()), NetState()) if isinstance(op, NftOp)]
    assert [(op.family, op.whole) for op in made] == [("bridge", True), ("inet", True)]
    assert all(op.table is not None for op in made)


@pytest.mark.parametrize(
    ("cidr", "but", "spans"),
    [
        ("10.1.0.0/24", ["10.1.0.1"], ["10.1.0.0", "10.1.0.2-10.1.0.255"]),
        ("10.1.0.0/24", [], ["10.1.0.0/24"]),
        ("10.1.0.0/31", ["10.1.0.0", "10.1.0.1"], []),
        ("10.1.0.0/30", ["10.1.0.1", "10.2.0.1", "fd00::1"], ["10.1.0.0", "10.1.0.2/31"]),
        ("fd00::/64", ["fd00::1"], ["fd00::", "fd00::2-fd00::ffff:ffff:ffff:ffff"]),
    ],
)
def test_a_range_without_its_hosts_addresses(cidr: str, but: list[str], spans: list[str]) -> None:
    assert list(without(cidr, but)) == spans
    addresses = [ipaddress.ip_address(text) for text in but]
    holes = {version: sorted(int(a) for a in addresses if a.version == version) for version in (4, 6)}
    assert list(punched(cidr, holes)) == spans


def test_links_of_an_overlay_are_steered_unless_told_otherwise() -> None:
    view = plan().networks[NETWORK]
    spec = msgspec.structs.replace(view.spec, options={"rps": "off"})
    on = desired(plan(), ())
    off = desired(plan(networks={NETWORK: msgspec.structs.replace(view, spec=spec)}), ())
    assert on.links[vxlan_name(NETWORK)].steered and not off.links[vxlan_name(NETWORK)].steered
    assert diff(on, off) == ()


@pytest.mark.parametrize(
    ("processors", "text"), [(1, "1"), (2, "3"), (8, "ff"), (32, "ffffffff"), (40, "ff,ffffffff")]
)
def test_a_mask_of_processors_is_written_as_the_kernel_reads_it(processors: int, text: str) -> None:
    assert mask(processors) == text


@pytest.mark.parametrize(
    ("allow", "elements4", "elements6"),
    [
        ((), {"port4"}, {"port6"}),
        (("10.0.0.0/8", "10.1.0.0/16"), {"portfor4 10.0.0.0/8"}, set()),
        (("192.0.2.1", "fd00::/8"), {"portfor4 192.0.2.1"}, {"portfor6 fd00::/8"}),
        (("0.0.0.0/0",), {"portfor4 0.0.0.0/1", "portfor4 128.0.0.0/1"}, set()),
        (("10.0.0.0/8", "::/0"), {"portfor4 10.0.0.0/8"}, {"portfor6 ::/1", "portfor6 8000::/1"}),
    ],
)
def test_a_port_with_an_allow_list_is_published_for_those_alone(
    allow: tuple[str, ...], elements4: set[str], elements6: set[str]
) -> None:
    port = BoundPort(target=80, published=8080, protocol="tcp", allow=allow)
    request = PublishRequest(instance=InstanceId("i"), ipv4="10.1.1.9", ipv6="fd00:1::9", ports=(port,))
    found = {
        f"{name} {key.removeprefix('tcp . 8080').removeprefix(' . ')}".strip()
        for name, entries in elements([normal(request)]).items()
        for key in entries
    }
    assert found == elements4 | elements6


def test_where_icc_is_off_no_port_of_the_bridge_speaks_to_another() -> None:
    lone = msgspec.structs.replace(plan().networks[NETWORK].spec, options={"icc": "off", "mode": "bridged"})
    view = msgspec.structs.replace(plan().networks[NETWORK], spec=lone)
    foot = EndpointRequest(instance=InstanceId("i"), network=NETWORK, ifname="eth0", ipv4="10.1.1.9")
    state = desired(plan(networks={NETWORK: view}), (InstanceNetwork(namespace="/n", endpoints=(foot,)),))
    assert set(state.tables["bridge"].sets["lonely"].elements) == {
        veth_name("i", NETWORK),
        vxlan_name(NETWORK),
    }
    assert "within" in state.tables["bridge"].chains and not state.tables["inet"].sets["lanes"].elements
    assert "within" not in desired(plan(), ()).tables["bridge"].chains


def test_what_one_container_changes_is_the_same_among_its_own_networks_and_among_all() -> None:
    networks = {
        f"{n:x}" * 64: NetworkView(
            id=f"{n:x}" * 64,  # type: ignore[arg-type]
            spec=NetworkSpec(name=f"n{n}", driver="overlay", subnets=(Subnet(cidr=f"10.{n}.0.0/16"),)),
            vni=n,
            blocks=(f"10.{n}.0.0/24",),
        )
        for n in (1, 2, 3)
    }
    whole = plan(networks=networks)
    foot = EndpointRequest(instance=InstanceId("i" * 64), network="2" * 64, ifname="eth0", ipv4="10.2.0.5")
    before = InstanceNetwork(namespace="/n")
    published = msgspec.structs.replace(request("i" * 64, 80), ipv4="10.2.0.5")
    after = InstanceNetwork(namespace="/n", endpoints=(foot,), published=published)
    near = around(whole, (before, after))
    assert set(near.networks) == {"2" * 64}
    found = [nft_operations(filter_tables(p, (after,)), filter_tables(p, (before,))) for p in (whole, near)]
    assert found[0] == found[1] and len(found[0]) == 2
