"""Which packets between hosts pass most of a host's network stack by."""

from __future__ import annotations

from itertools import pairwise

import pytest
from msgspec.structs import replace

from model.ids import InstanceId
from model.spec import NetworkSpec, Subnet
from model.view import Peer
from net.diff import NftOp, diff, nft_operations
from net.endpoint import InstanceNetwork
from net.homing import home_changes
from net.host import EndpointRequest, NetworkPlan
from net.hostfirewall import NO_FIREWALL, HostFirewall
from net.loadbalance import pack
from net.naming import bridge_name, vxlan_name
from net.nftscript import comment, parse_listing, table_script
from net.peerdiff import peer_changes
from net.plan import desired, service_frame
from net.policy import HostPolicies, Policed, endpoint_key
from net.state import NftTable
from net.subnets import ends
from tests.unit.test_direct_routes import DIRECT, FAR, HOST_GW, NEAR, NETWORK, PEERS, SUBNETS, plan

ALONE = HostFirewall(alone=True)
INSTANCE = InstanceId("c" * 64)
BRIDGE, VXLAN = bridge_name(NETWORK), vxlan_name(NETWORK)
ROUTED = NetworkSpec(name="lan", subnets=SUBNETS)


def shortcuts(found: NetworkPlan) -> NftTable | None:
    return desired(found, (), ALONE).tables.get("netdev")


def elements(table: NftTable, name: str) -> dict[str, str]:
    return dict(table.sets[name].elements)


def test_packets_to_a_peers_block_leave_by_its_link_and_its_own_come_in_there() -> None:
    table = shortcuts(plan(HOST_GW))
    assert table is not None
    assert {name: chain.device for name, chain in table.chains.items() if chain.hook} == {
        f"leave-{BRIDGE}": BRIDGE, "enter-eth0": "eth0",
    }  # fmt: skip
    assert elements(table, f"gates4-{BRIDGE}-eth0") == {"10.1.2.0/24": "198.18.0.12"}
    assert elements(table, f"gates6-{BRIDGE}-eth0") == {"fd00:1::200/120": "fe80::12"}
    way = f"{BRIDGE}-eth0"
    assert elements(table, "homes4-eth0") == elements(table, "homes6-eth0") == {}, "nobody is here"
    assert set(elements(table, f"from4-{way}")) == {"10.1.2.0/24"}
    arriving = table.chains[f"in-{way}"].rules[2:]
    assert [f'device "{BRIDGE}"' in rule.text for rule in arriving] == [True, True]


def test_members_of_services_are_asked_for_in_both_directions_before_any_shortcut() -> None:
    table = desired(plan(HOST_GW), (), ALONE, [pack("10.1.2.9"), pack("fd00:1::209")]).tables["netdev"]
    assert (elements(table, "served4"), elements(table, "served6")) == ({"10.1.2.9": ""}, {"fd00:1::209": ""})
    shortened = [rule.text for chain in table.chains.values() for rule in chain.rules if " fwd " in rule.text]
    assert len(shortened) == 4
    for text in shortened:
        family, digit = ("ip6", "6") if " fwd ip6 " in text else ("ip", "4")
        asked = f"{family} saddr != @served{digit} {family} daddr != @served{digit} fwd"
        assert asked in text


def test_member_more_or_less_is_an_element_more_or_less() -> None:
    one, two = (desired(plan(HOST_GW), (), ALONE, [pack(a)]) for a in ("10.1.2.9", "fd00:1::209"))
    (op,) = diff(one, two)
    assert isinstance(op, NftOp) and op.family == "netdev" and not op.whole
    assert op.script.splitlines() == [
        "add element netdev flota served4 { 10.1.2.9 }",
        "delete element netdev flota served6 { fd00:1::209 }",
    ]


def test_where_nobody_knows_who_is_served_there_are_none() -> None:
    assert "netdev" not in desired(plan(HOST_GW), (), ALONE, None).tables


def test_only_what_is_sent_to_this_host_as_a_router_takes_one() -> None:
    table = shortcuts(plan(HOST_GW))
    assert table is not None
    for chain in table.chains.values():
        passing = [rule.text for rule in chain.rules if " accept" not in rule.text]
        assert not chain.hook or all(text.startswith("meta pkttype host ") for text in passing)
    four, six = (rule.text for rule in table.chains[f"leave-{BRIDGE}"].rules[1:])
    assert " ip saddr != 0.0.0.0 " in four
    assert " ip6 saddr != :: " in six and " ip6 saddr != fe80::/10 " in six


def test_gateway_in_a_peers_block_is_this_hosts_own() -> None:
    subnets = (
        Subnet(cidr="10.1.0.0/16", gateway="10.1.2.1"),
        Subnet(cidr="fd00:1::/64", gateway="fd00:1::2ff"),
    )
    table = shortcuts(plan(replace(HOST_GW, subnets=subnets)))
    assert table is not None
    wanted = {"10.1.2.0": "198.18.0.12", "10.1.2.2-10.1.2.255": "198.18.0.12"}
    assert elements(table, f"gates4-{BRIDGE}-eth0") == wanted
    assert set(elements(table, f"from4-{BRIDGE}-eth0")) == set(wanted)
    assert set(elements(table, f"gates6-{BRIDGE}-eth0")) == {"fd00:1::200-fd00:1::2fe"}


def following(spec: NetworkSpec, mine: tuple[str, ...] = (), **singles: tuple[str, ...]) -> NetworkPlan:
    """With these single addresses of this host's, and of its peers `near` and `far`."""
    found = plan(spec)
    view = found.networks[NETWORK]
    extra = {NEAR: singles.get("near", ()), FAR: singles.get("far", ())}
    peers = tuple(replace(p, blocks=(*p.blocks, *extra[p.host])) for p in view.peers)
    return replace(found, networks={NETWORK: replace(view, peers=peers, singles=mine)})


def test_address_that_followed_its_container_is_cut_out_of_the_block_it_lies_in() -> None:
    far = ("10.1.1.5/32", "10.1.2.0/32", "fd00:1::2ff/128")
    table = shortcuts(following(ROUTED, ("10.1.2.99/32",), far=far))
    assert table is not None
    way = f"{BRIDGE}-{VXLAN}"
    near = {"10.1.2.1-10.1.2.98": "198.18.0.12", "10.1.2.100-10.1.2.255": "198.18.0.12"}
    beyond = dict.fromkeys(("10.1.3.0/24", "10.1.1.5", "10.1.2.0"), "198.18.4.14")
    assert elements(table, f"gates4-{way}") == near | beyond
    assert set(elements(table, f"from4-{way}")) == {*near, *beyond}, "nor may the old host send by it"
    six = {"fd00:1::200-fd00:1::2fe", "fd00:1::2ff", "fd00:1::300/120"}
    assert set(elements(table, f"gates6-{way}")) == six


def test_address_of_a_peer_that_is_not_known_here_goes_where_its_block_goes() -> None:
    found = following(ROUTED, far=("10.1.2.99/32",))
    table = shortcuts(replace(found, peers={NEAR: PEERS[NEAR]}))
    assert table is not None
    assert set(elements(table, f"gates4-{BRIDGE}-{VXLAN}")) == {"10.1.2.0/24"}


@pytest.mark.parametrize("spec", [HOST_GW, DIRECT, ROUTED], ids=["host-gw", "direct", "routed"])
def test_ranges_of_a_set_never_overlap_wherever_addresses_went(spec: NetworkSpec) -> None:
    mine = ("10.1.2.255/32", "10.1.3.7/32", "fd00:1::200/128", "10.1.9.9/32")
    near, far = ("10.1.1.0/32", "10.1.3.8/32"), ("10.1.1.77/32", "10.1.2.1/32")
    table = shortcuts(following(spec, mine, near=near, far=far))
    assert table is not None
    for name, found in table.sets.items():
        spans = sorted((ends(key) for key in found.elements), key=lambda span: int(span[0]))
        assert all(int(one[1]) < int(two[0]) for one, two in pairwise(spans)), name


def foot(ipv4: str, ipv6: str = "") -> InstanceNetwork:
    request = EndpointRequest(instance=INSTANCE, network=NETWORK, ifname="eth0", ipv4=ipv4, ipv6=ipv6)
    return InstanceNetwork(namespace="/run/netns/one", endpoints=(request,))


def test_containers_of_this_host_are_reached_by_their_addresses_and_nobody_else_is() -> None:
    found = following(ROUTED, ("10.1.2.99/32",), far=("10.1.1.5/32",))
    here = ("10.1.1.7", "10.1.2.99")
    gone = ("10.1.1.5", "10.1.1.0", "10.1.2.7", "10.1.0.1")
    state = desired(found, [foot(a, "fd00:1::107") for a in (*here, *gone)], ALONE)
    jump = f"jump in-{BRIDGE}-{VXLAN}"
    assert elements(state.tables["netdev"], f"homes4-{VXLAN}") == dict.fromkeys(here, jump)
    assert elements(state.tables["netdev"], f"homes6-{VXLAN}") == {"fd00:1::107": jump}


@pytest.mark.parametrize("spec", [HOST_GW, DIRECT, ROUTED], ids=["host-gw", "direct", "routed"])
def test_endpoint_more_or_less_is_an_element_more_or_less(spec: NetworkSpec) -> None:
    found, one, other = plan(spec), foot("10.1.1.7", "fd00:1::107"), foot("10.1.1.8")
    nobody = replace(one, endpoints=())
    for before, after in ((nobody, one), (one, other), (other, nobody)):
        then, now = (desired(found, [known], ALONE).tables["netdev"] for known in (before, after))
        changes = home_changes(found, before, after, ALONE)
        assert changes == nft_operations({"netdev": now}, {"netdev": then}) and len(changes) == 1
        assert home_changes(found, before, after, NO_FIREWALL) == ()
    assert home_changes(found, one, replace(one, published=None), ALONE) == ()


def test_endpoint_of_a_network_that_has_none_changes_none() -> None:
    found, one = plan(replace(HOST_GW, options={"icc": "off"})), foot("10.1.1.7")
    assert home_changes(found, replace(one, endpoints=()), one, ALONE) == ()


def test_packet_that_may_be_too_large_for_its_way_is_routed_and_so_are_datagrams_that_arrive() -> None:
    """Of fragments, or by a link that carries more; what TCP sends at once is cut again."""
    for mtu, larger in ((1500, ["meta length 1451-9216 accept"]), (65535, [])):
        table = shortcuts(plan(ROUTED, mtu=mtu))
        assert table is not None
        leave, enter = table.chains[f"leave-{BRIDGE}"], table.chains[f"in-{BRIDGE}-{VXLAN}"]
        assert leave.rules[0].text == f"meta length > {mtu - 50} meta l4proto != tcp accept"
        assert [r.text for r in enter.rules[:-2]] == ["meta l4proto != tcp accept", *larger]


def test_peer_whose_address_lies_in_this_hosts_blocks_takes_a_whole_comparison() -> None:
    """An endpoint here had it, maybe."""
    before, after = following(ROUTED), following(ROUTED, far=("10.1.1.5/32",))
    assert peer_changes(before, after, ALONE) is None
    assert peer_changes(before, after) is not None, "without shortcuts routes alone differ"


def test_tunnels_have_ways_of_their_own() -> None:
    table = shortcuts(plan(DIRECT))
    assert table is not None
    hooked = {name for name, chain in table.chains.items() if chain.hook}
    assert hooked == {f"leave-{BRIDGE}", "enter-eth0", f"enter-{VXLAN}"}
    assert elements(table, f"gates4-{BRIDGE}-eth0") == {"10.1.2.0/24": "198.18.0.12"}
    assert elements(table, f"gates4-{BRIDGE}-{VXLAN}") == {"10.1.3.0/24": "198.18.4.14"}
    assert set(elements(table, f"from4-{BRIDGE}-eth0")) == {"10.1.2.0/24"}
    assert set(elements(table, f"from4-{BRIDGE}-{VXLAN}")) == {"10.1.3.0/24"}


@pytest.mark.parametrize(
    "spec",
    [
        replace(HOST_GW, options={"icc": "off"}),
        replace(HOST_GW, options={"shortcuts": "off"}),
        replace(ROUTED, options={"mode": "bridged"}),
        replace(ROUTED, options={"encrypted": "on"}),
        replace(ROUTED, driver="bridge"),
    ],
    ids=["icc off", "switched off", "bridged", "encrypted", "one host's"],
)
def test_networks_whose_packets_are_judged_or_changed_on_the_way_have_none(spec: NetworkSpec) -> None:
    assert shortcuts(plan(spec)) is None


def test_network_with_a_policy_on_this_host_has_none() -> None:
    policies = HostPolicies(endpoints={endpoint_key("c" * 64, NETWORK): Policed(ingress="in-1")})
    assert shortcuts(plan(HOST_GW, policies=policies)) is None
    other = HostPolicies(endpoints={endpoint_key("c" * 64, "b" * 64): Policed(ingress="in-1")})
    assert shortcuts(plan(HOST_GW, policies=other)) is not None


def test_where_others_filter_what_passes_there_are_none() -> None:
    assert "netdev" not in desired(plan(HOST_GW), ()).tables
    assert service_frame(plan(HOST_GW), ALONE) == service_frame(plan(HOST_GW))


@pytest.mark.parametrize("spec", [HOST_GW, DIRECT, ROUTED], ids=["host-gw", "direct", "routed"])
def test_peer_more_or_less_is_elements_more_or_less(spec: NetworkSpec) -> None:
    for before, after in ((PEERS, {FAR: PEERS[FAR]}), ({}, PEERS), (PEERS, {})):
        found = peer_changes(plan(spec, before), plan(spec, after), ALONE)
        assert found is not None
        whole = diff(desired(plan(spec, after), (), ALONE), desired(plan(spec, before), (), ALONE))
        assert sorted(found, key=repr) == sorted(whole, key=repr)
        (op,) = [op for op in found if isinstance(op, NftOp) and op.family == "netdev"]
        assert not op.whole and op.script.count("\n") >= 1


def test_shortcuts_come_last_for_they_name_links_and_next_hops() -> None:
    operations = diff(desired(plan(HOST_GW), (), ALONE), desired(plan(HOST_GW, {}), ()))
    last = operations[-1]
    assert isinstance(last, NftOp) and last.family == "netdev" and last.whole
    assert f'device "{BRIDGE}" priority' in last.script and "ether type ip ip ttl > 1" in last.script


def test_listing_of_the_table_says_whether_it_is_as_it_should_be() -> None:
    table = shortcuts(plan(HOST_GW))
    assert table is not None
    listing = {
        "nftables": [
            {"chain": {"name": name, "type": chain.type, "hook": chain.hook, "prio": 0, "policy": "accept"}}
            for name, chain in table.chains.items()
        ]
        + [
            {"rule": {"chain": name, "comment": comment(rule)}}
            for name, chain in table.chains.items()
            for rule in chain.rules
        ]
    }
    seen = replace(parse_listing(listing), sets=table.sets)
    assert table_script("netdev", table, seen) == ("", False)


def test_link_whose_name_is_no_word_has_chains_all_the_same() -> None:
    table = shortcuts(plan(HOST_GW, link="eth0.100"))
    assert table is not None and "enter-eth0_100" in table.chains
    script, _ = table_script("netdev", table, None)
    assert 'device "eth0.100"' in script


def test_peer_with_an_address_of_the_other_family_takes_the_usual_way() -> None:
    peers = {NEAR: Peer(host=NEAR, name="near", address="2001:db8::12")}
    found = plan(HOST_GW, peers, address="2001:db8::11", onlink=("2001:db8::/64",))
    table = shortcuts(found)
    assert table is not None
    assert elements(table, f"gates4-{BRIDGE}-eth0") == {}
    assert elements(table, f"gates6-{BRIDGE}-eth0") == {"fd00:1::200/120": "2001:db8::12"}


def test_host_that_is_not_there_has_no_way_in() -> None:
    table = shortcuts(plan(HOST_GW, {FAR: PEERS[FAR]}))
    assert table is not None and elements(table, f"from4-{BRIDGE}-eth0") == {}


def test_link_that_is_made_anew_has_its_shortcuts_made_anew() -> None:
    want = desired(plan(ROUTED), (), ALONE)
    for lost in (VXLAN, BRIDGE):
        left = replace(want, links={name: link for name, link in want.links.items() if name != lost})
        last = diff(want, left)[-1]
        assert isinstance(last, NftOp) and last.family == "netdev" and last.whole
    assert diff(want, want) == ()


def test_rule_that_leads_to_a_link_by_a_number_nobody_has_is_no_rule_of_ours() -> None:
    def listing(dev: object) -> dict[str, object]:
        rule = {"chain": "c", "comment": "why", "expr": [{"fwd": {"dev": dev, "family": "ip"}}]}
        return {"nftables": [{"chain": {"name": "c"}}, {"rule": rule}]}

    (kept,) = parse_listing(listing("eth0")).chains["c"].rules
    assert kept.why == "why"
    for number in (17, "17"):
        (lost,) = parse_listing(listing(number)).chains["c"].rules
        assert lost.why != "why"
    assert shortcuts(plan(HOST_GW, link="17")) is None
