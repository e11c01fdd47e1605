"""Plain routes between hosts that share a link: host-gw networks, and overlays with direct=true."""

from __future__ import annotations

import ipaddress
import struct

import msgspec
import pytest

from controller.commands.networks import create
from controller.snapshot import Cluster
from model.errors import InvalidInput
from model.ids import HostId, NetworkId
from model.records import Host
from model.spec import HostSpec, NetworkSpec, Subnet
from model.status import HostFacts
from model.view import NetworkPeer, NetworkView, Peer
from net.diff import NftOp, Op, diff
from net.host import NetworkPlan
from net.ipam import reserved
from net.kernel.underlay import on_link
from net.naming import bridge_name, gateway_mac, link_local, vxlan_name
from net.paths import paths_of
from net.plan import check, desired, scene_of, service_frame, traits_of, unreached
from net.servicechains import base_chains
from net.state import Address, NetState, Route

ME, NEAR, FAR = HostId("1" * 64), HostId("2" * 64), HostId("3" * 64)
NETWORK = NetworkId("a" * 64)
SUBNETS = (Subnet(cidr="10.1.0.0/16"), Subnet(cidr="fd00:1::/64"))
HOST_GW = NetworkSpec(name="lan", driver="host-gw", subnets=SUBNETS)
DIRECT = NetworkSpec(name="lan", options={"direct": "on"}, subnets=SUBNETS)
PEERS = {
    NEAR: Peer(host=NEAR, name="near", address="198.18.0.12", link_local="fe80::12"),
    FAR: Peer(host=FAR, name="far", address="198.18.4.14", link_local="fe80::14"),
}


def plan(spec: NetworkSpec, peers: dict[HostId, Peer] = PEERS, **changes: object) -> NetworkPlan:
    members = {
        NEAR: NetworkPeer(host=NEAR, blocks=("10.1.2.0/24", "fd00:1::200/120")),
        FAR: NetworkPeer(host=FAR, blocks=("10.1.3.0/24", "fd00:1::300/120")),
    }
    view = NetworkView(
        id=NETWORK,
        spec=spec,
        vni=4097,
        blocks=("10.1.1.0/24", "fd00:1::100/120"),
        peers=tuple(members[host] for host in peers),
    )
    whole = NetworkPlan(
        host=ME,
        address="198.18.0.11",
        mtu=1500,
        vxlan_port=4789,
        networks={NETWORK: view},
        peers=peers,
        link="eth0",
        onlink=("198.18.0.0/24",),
        vip_ranges={NETWORK: ("10.127.0.0/24",)},
    )
    return msgspec.structs.replace(whole, **changes)


def ways(state: NetState) -> set[tuple[str, str, str]]:
    """Destination, link and next hop of each route to another host."""
    return {(r.destination, r.link, r.via) for r in state.routes if r.via}


BY_LINK = {("10.1.2.0/24", "eth0", "198.18.0.12"), ("fd00:1::200/120", "eth0", "fe80::12")}


@pytest.mark.parametrize("spec", [HOST_GW, DIRECT, NetworkSpec(name="lan", subnets=SUBNETS)])
def test_bridge_asks_for_containers_by_its_link_local_address_which_is_wanted_and_others_are_left(
    spec: NetworkSpec,
) -> None:
    bridge, want = bridge_name(NETWORK), desired(plan(spec), ())
    own = Address(link=bridge, cidr=f"{link_local(gateway_mac(NETWORK))}/64")
    assert own in want.addresses
    other = Address(link=bridge, cidr="fe80::1/64")
    seen = msgspec.structs.replace(want, addresses=want.addresses - {own} | {other})
    assert diff(want, seen) == (Op(verb="add", item=own),)


def test_host_gw_peer_on_the_link_costs_a_route_per_block_and_nothing_else() -> None:
    state = desired(plan(HOST_GW), ())
    assert ways(state) == BY_LINK
    assert not state.neighbours and not state.fdb and set(state.links) == {bridge_name(NETWORK)}
    assert {r.source for r in state.routes if r.via} == {"10.1.1.0", "fd00:1::100"}


def test_host_gw_network_has_the_underlays_whole_mtu() -> None:
    found = plan(HOST_GW, mtu=9000)
    assert traits_of(found.networks[NETWORK], scene_of(found)).mtu == 9000
    options = msgspec.structs.replace(HOST_GW, options={"mtu": "9001"})
    with pytest.raises(InvalidInput, match="the underlay carries 9000"):
        check(plan(options, mtu=9000))


def test_host_gw_pair_without_a_common_link_is_named_with_the_remedy() -> None:
    found = plan(HOST_GW)
    check(found)
    (trouble,) = unreached(found)
    assert trouble.startswith("network lan: far (198.18.4.14) is on no link of this host")
    assert "direct=true" in trouble
    assert {path.peer for path in paths_of(found) if path.network} == {NEAR}


def test_direct_overlay_tunnels_only_where_no_link_is_shared() -> None:
    found = plan(DIRECT)
    state = desired(found, ())
    vxlan = vxlan_name(NETWORK)
    assert ways(state) > BY_LINK
    assert {link for destination, link, _ in ways(state) - BY_LINK} == {vxlan}
    assert [entry.remote for entry in state.fdb] == ["198.18.4.14"]
    assert unreached(found) == () and {path.peer for path in paths_of(found) if path.network} == {NEAR, FAR}
    assert traits_of(found.networks[NETWORK], scene_of(found)).mtu == 1450
    assert {path.peer for path in paths_of(found) if path.tunnel} == {FAR}


def test_direct_peer_that_moves_to_another_subnet_has_its_routes_replaced_without_a_gap() -> None:
    moved = {**PEERS, NEAR: msgspec.structs.replace(PEERS[NEAR], address="198.18.9.12")}
    before, after = desired(plan(DIRECT), ()), desired(plan(DIRECT, moved), ())
    for one, other in ((before, after), (after, before)):
        operations = diff(other, one)
        assert not any(isinstance(op, NftOp) and op.whole for op in operations)
        routes = [op for op in operations if isinstance(op, Op) and isinstance(op.item, Route)]
        assert {op.verb for op in routes} == {"change"}


def test_peer_without_ipv6_on_its_link_is_reached_by_the_tunnel_or_named() -> None:
    bare = {NEAR: msgspec.structs.replace(PEERS[NEAR], link_local="")}
    assert {link for _, link, _ in ways(desired(plan(DIRECT, bare), ()))} == {vxlan_name(NETWORK)}
    assert ways(desired(plan(HOST_GW, bare), ())) == {("10.1.2.0/24", "eth0", "198.18.0.12")}
    assert "no IPv6 address on its link" in unreached(plan(HOST_GW, bare))[0]


def test_ipv6_underlay_is_the_next_hop_of_both_families() -> None:
    peers = {NEAR: Peer(host=NEAR, name="near", address="2001:db8::12")}
    found = plan(HOST_GW, peers, address="2001:db8::11", onlink=("2001:db8::/64",))
    assert {hop for _, _, hop in ways(desired(found, ()))} == {"2001:db8::12"}


def test_host_that_knows_no_link_of_its_own_reaches_nobody_directly() -> None:
    assert ways(desired(plan(HOST_GW, link="", onlink=()), ())) == set()
    assert len(unreached(plan(HOST_GW, link="", onlink=()))) == 2


def test_filter_of_a_direct_network_does_not_change_with_its_peers() -> None:
    for spec in (HOST_GW, DIRECT):
        alone, both = desired(plan(spec, {}), ()), desired(plan(spec), ())
        changed = [
            name
            for name, found in both.tables["inet"].sets.items()
            if found != alone.tables["inet"].sets[name]
        ]
        assert changed == ["peers4"]
        assert both.tables["inet"].chains == alone.tables["inet"].chains


def test_filter_of_other_networks_has_nothing_of_direct_ones() -> None:
    plain = desired(plan(msgspec.structs.replace(DIRECT, options={})), ()).tables["inet"]
    assert "from_link" not in plain.chains and not plain.sets["direct4"].elements
    assert "eth0" not in str(plain)
    assert "eth0" not in str(base_chains(service_frame(plan(msgspec.structs.replace(DIRECT, options={})))))


def test_filter_knows_a_networks_own_pairs_only_and_apart_ones_have_no_way() -> None:
    sets = desired(plan(HOST_GW), ()).tables["inet"].sets
    assert all(e.startswith("10.1.0.0/16 . 10.1.") for e in sets["direct4"].elements)
    assert sets["near4"].elements == sets["direct4"].elements
    apart = msgspec.structs.replace(HOST_GW, options={"icc": "off"})
    assert not desired(plan(apart), ()).tables["inet"].sets["near4"].elements


def test_this_host_asks_services_by_its_own_address_in_the_network() -> None:
    come = base_chains(service_frame(plan(HOST_GW)))["come"]
    assert [r.text for r in come.rules if "snat" in r.text] == [
        'oifname "eth0" ip daddr 10.1.0.0/16 fib saddr type local snat ip to 10.1.1.0',
        'oifname "eth0" ip6 daddr fd00:1::/64 fib saddr type local snat ip6 to fd00:1::100',
    ]


def test_no_container_gets_the_hosts_own_address_of_a_host_gw_network() -> None:
    assert "10.1.1.0" in set(map(str, reserved(HOST_GW, ("10.1.1.0/24",))))


def host(mtu: int) -> Host:
    ident = HostId("9" * 64)
    facts = HostFacts(hostname="h9", address="198.18.0.19", mtu=mtu)
    return Host(id=ident, spec=HostSpec(name="h9"), facts=facts)


def test_network_create_knows_host_gw_and_what_its_hosts_carry() -> None:
    cluster = Cluster().apply([host(1500)], (), 1)[0]
    spec = NetworkSpec(name="lan", driver="host-gw", options={"mtu": "1500"})
    create(cluster, spec, now=1.0, ident=NETWORK)
    for options, says in (
        ({"mtu": "1501"}, "the underlay of h9 carries 1500"),
        ({"mode": "bridged"}, "unknown option"),
        ({"direct": "true"}, "unknown option"),
    ):
        bad = msgspec.structs.replace(spec, options=options)
        with pytest.raises(InvalidInput, match=says):
            create(cluster, bad, now=1.0, ident=NETWORK)


@pytest.mark.parametrize(
    ("options", "says"),
    [({"direct": "maybe"}, "on or off"), ({"direct": "true", "mode": "bridged"}, "one segment")],
)
def test_direct_overlay_that_cannot_be_is_refused(options: dict[str, str], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        create(Cluster(), NetworkSpec(name="lan", options=options), now=1.0, ident=NETWORK)


def address_message(text: str, prefix: int, *, family: int, local: str = "") -> bytes:
    body = struct.pack("=BBBBI", family, prefix, 0, 0, 7)
    for kind, word in ((1, text), (2, local)):
        if word:
            raw = ipaddress.ip_address(word).packed
            body += struct.pack("=HH", 4 + len(raw), kind) + raw
    return body


def test_ranges_of_a_link_are_those_of_its_addresses() -> None:
    entries = [
        address_message("198.18.0.11", 24, family=2, local="198.18.0.11"),
        address_message("192.0.2.9", 32, family=2, local="192.0.2.8"),
        address_message("2001:db8::5", 64, family=10),
        address_message("fe80::5", 64, family=10),
    ]
    assert on_link(entries) == (("192.0.2.9/32", "198.18.0.0/24", "2001:db8::/64"), "fe80::5")
    assert on_link(()) == ((), "")


def test_what_comes_by_the_link_is_judged_where_it_arrives_by_one_set() -> None:
    """The host's own addresses are among the sources: what claims one has no way back by the link."""
    table = desired(plan(HOST_GW), ()).tables["inet"]
    rules = [r.text for r in table.chains["from_link"].rules if r.text.startswith("ip ")]
    pair = "ip saddr . ip daddr @direct4"
    assert rules == [f"{pair} fib saddr . iif oif exists notrack accept", f"{pair} counter drop"]
    assert all(element.startswith("10.1.0.0/16 . ") for element in table.sets["direct4"].elements)
