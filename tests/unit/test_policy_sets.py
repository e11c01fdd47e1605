"""Policies compiled to sets: what is allowed, by an oracle that looks at every address and port."""

from __future__ import annotations

import ipaddress
import random
from itertools import pairwise

import pytest
from msgspec.structs import replace

from model.ids import HostId, InstanceId, NetworkId
from model.policy import Party, PolicyPeer, PolicyPort, PolicyProtocol, PolicyRule, PolicySpec, Selector
from net import firewall, policychains
from net.backend.base import Scene
from net.host import EndpointRequest
from net.naming import bridge_name, site_bridge_name, speaker_name, veth_name
from net.policy import (
    HostPolicies,
    Place,
    allowances,
    allows,
    class_name,
    endpoint_key,
    host_policies,
)
from net.spans import Allowance, Span, pieces, ports_of, span_text
from net.state import NftTable

NET = NetworkId("a" * 64)
SCENE = Scene(host=HostId("1" * 64), address="198.18.0.1", mtu=1500, vxlan_port=4789, peers={})


def party(name: str, ipv4: str, service: str = "", **labels: str) -> Party:
    return Party(name=name, network=NET, network_name="back", service=service, labels=labels, ipv4=ipv4)


WEB, API, DB = (
    party("web", "10.1.0.2", "web"),
    party("api.1.x", "10.1.0.3", "api"),
    party("db", "10.1.0.4", tier="data"),
)
PLACE = Place(
    network=NET, name="back", subnets=("10.1.0.0/16",), fleet=("10.1.0.0/16",), parties=(WEB, API, DB)
)
TO_WEB = PolicySpec(
    name="web-in",
    selects=Selector(service="web"),
    ingress=(PolicyRule(peers=(PolicyPeer(service="api"),), ports=(PolicyPort(port=80),)),),
)


def random_allowance(rng: random.Random) -> Allowance:
    spans = []
    for _ in range(rng.randint(1, 3)):
        low = rng.randrange(40)
        spans.append((low, low if rng.random() < 0.5 else rng.randrange(low, 40)))
    protocols: tuple[PolicyProtocol, ...] = ("tcp", "udp")
    ports = []
    for _ in range(rng.randint(0, 2)):
        port = rng.choice((0, 1, 2, 5))
        ports.append(
            PolicyPort(port=port, to=rng.choice((0, port + 2)) if port else 0, protocol=rng.choice(protocols))
        )
    return Allowance(spans={4: tuple(spans)}, ports=tuple(ports))


def allowed_by(
    found: list[tuple[Span, dict[str, tuple[Span, ...]]]], address: int, protocol: str, port: int
) -> int:
    """How many pieces let it through."""
    count = 0
    for (low, high), ports in found:
        if low <= address <= high:
            spans = (*ports.get("", ()), *ports.get(protocol, ()))
            count += any(a <= port <= b for a, b in spans)
    return count


@pytest.mark.parametrize("seed", range(60))
def test_pieces_of_any_ranges_allow_the_same_and_never_overlap(seed: int) -> None:
    rng = random.Random(seed)
    given = [random_allowance(rng) for _ in range(rng.randint(1, 5))]
    found = [(span, dict(ports)) for span, ports in pieces(4, given)]
    taken = sorted(span for span, _ in found)
    assert all(a[1] < b[0] for a, b in pairwise(taken)), taken
    for address in range(42):
        for protocol in ("tcp", "udp", "icmp"):
            for port in range(9):
                wanted = any(allows(a, str(ipaddress.IPv4Address(address)), protocol, port) for a in given)
                assert allowed_by(found, address, protocol, port) == wanted, (address, protocol, port)


def test_pieces_single_address_within_its_range_is_no_element_of_its_own() -> None:
    given = [Allowance(spans={4: ((0, 99),)}), Allowance(spans={4: ((7, 7),)}, ports=(PolicyPort(port=80),))]
    assert [span for span, _ in pieces(4, given)] == [(0, 99)]


def test_pieces_neighbours_stay_elements_of_their_own() -> None:
    given = [Allowance(spans={4: ((7, 7), (8, 8))})]
    assert [span for span, _ in pieces(4, given)] == [(7, 7), (8, 8)]


@pytest.mark.parametrize(
    ("version", "span", "text"),
    [
        (4, (1, 1), "0.0.0.1"),
        (4, (256, 511), "0.0.1.0/24"),
        (4, (1, 2), "0.0.0.1-0.0.0.2"),
        (4, (0, (1 << 32) - 1), "0.0.0.0/0"),
        (6, (0, (1 << 128) - 1), "::/0"),
        (6, (2, 3), "::2/127"),
    ],
)
def test_span_text_is_as_nft_lists_it(version: int, span: Span, text: str) -> None:
    assert span_text(version, span) == text


def test_ports_that_touch_are_one_range() -> None:
    assert ports_of([PolicyPort(port=80, to=89), PolicyPort(port=90), PolicyPort(protocol="udp")]) == {
        "tcp": ((80, 90),),
        "udp": ((0, 65535),),
    }


def feet(*parties: Party) -> dict[str, Party]:
    return {endpoint_key(p.name, NET): p for p in parties}


def test_host_policies_select_only_whom_they_mean_and_in_their_direction() -> None:
    found = host_policies([TO_WEB], feet(WEB, API, DB), {NET: PLACE})
    name = class_name("ingress", NET, [TO_WEB])
    assert {key: (p.ingress, p.egress) for key, p in found.endpoints.items()} == {
        endpoint_key("web", NET): (name, "")
    }
    assert dict(found.classes[name][f"{name}-p4"].elements) == {"10.1.0.3 . tcp . 80": ""}
    assert not found.classes[name][f"{name}-a4"].elements


def test_host_policies_another_replica_is_one_more_element() -> None:
    more = Place(
        network=NET,
        name="back",
        subnets=PLACE.subnets,
        parties=(*PLACE.parties, party("api.2.x", "10.1.9.9", "api")),
    )
    before = host_policies([TO_WEB], feet(WEB), {NET: PLACE})
    after = host_policies([TO_WEB], feet(WEB), {NET: more})
    assert before.endpoints == after.endpoints
    name = class_name("ingress", NET, [TO_WEB])
    gained = (
        after.classes[name][f"{name}-p4"].elements.keys() - before.classes[name][f"{name}-p4"].elements.keys()
    )
    assert gained == {"10.1.9.9 . tcp . 80"}


def test_host_policies_rules_of_all_that_select_are_added_up() -> None:
    also = PolicySpec(
        name="data",
        selects=Selector(network="back"),
        ingress=(PolicyRule(peers=(PolicyPeer(labels={"tier": "data"}),)),),
    )
    allowed = allowances("ingress", [also, TO_WEB], PLACE)
    assert any(allows(a, DB.ipv4, "udp", 9) for a in allowed)
    assert any(allows(a, API.ipv4, "tcp", 80) for a in allowed)
    assert not any(allows(a, API.ipv4, "tcp", 81) for a in allowed)


@pytest.mark.parametrize(
    ("peer", "address", "passes"),
    [
        (PolicyPeer(container="db"), DB.ipv4, True),
        (PolicyPeer(container="db"), API.ipv4, False),
        (PolicyPeer(labels={"tier": ""}), DB.ipv4, True),
        (PolicyPeer(labels={"tier": "front"}), DB.ipv4, False),
        (PolicyPeer(network="back"), "10.1.200.1", True),
        (PolicyPeer(network="other"), "10.1.200.1", False),
        (PolicyPeer(network="other", service="api"), API.ipv4, False),
        (PolicyPeer(cidr="192.0.2.0/24", without=("192.0.2.8/29",)), "192.0.2.1", True),
        (PolicyPeer(cidr="192.0.2.0/24", without=("192.0.2.8/29",)), "192.0.2.9", False),
        (PolicyPeer(outside=True), "192.0.2.9", True),
        (PolicyPeer(outside=True), "2001:db8::1", True),
        (PolicyPeer(outside=True), "10.1.0.3", False),
        (PolicyPeer(outside=True), "fe80::1", False),
        (PolicyPeer(outside=True), "255.255.255.255", False),
    ],
)
def test_rule_peer_means_these_addresses(peer: PolicyPeer, address: str, passes: bool) -> None:
    spec = PolicySpec(name="p", egress=(PolicyRule(peers=(peer,)),))
    assert any(allows(a, address, "tcp", 1) for a in allowances("egress", [spec], PLACE)) is passes


def test_class_name_differs_by_direction_network_and_policies() -> None:
    other = PolicySpec(name="other", ingress=())
    names = {
        class_name("ingress", NET, [TO_WEB]),
        class_name("egress", NET, [TO_WEB]),
        class_name("ingress", "b" * 64, [TO_WEB]),
        class_name("ingress", NET, [TO_WEB, other]),
    }
    assert len(names) == 4
    assert class_name("ingress", NET, [TO_WEB, other]) == class_name("ingress", NET, [other, TO_WEB])


def test_host_without_policies_has_no_rule_for_them() -> None:
    assert policychains.inet(HostPolicies(), ()) == NftTable()
    assert policychains.bridge(HostPolicies(), ()) == NftTable()
    assert policychains.tracking(HostPolicies()) == ()


def test_tables_of_policies_take_no_name_of_the_others() -> None:
    instance = InstanceId("e" * 64)
    foot = EndpointRequest(instance=instance, network=NET, ifname="eth0", ipv4="10.1.0.2", ipv6="fd00::2")
    policies = host_policies([TO_WEB], {endpoint_key(instance, NET): WEB}, {NET: PLACE})
    plain = firewall.tables((), SCENE, (foot,), ())
    whole = firewall.tables((), SCENE, (foot,), (), policies=policies)
    for family, own in (("inet", policychains.inet), ("bridge", policychains.bridge)):
        added = own(policies, (foot,))
        assert not added.sets.keys() & plain[family].sets.keys()  # type: ignore[index]
        assert not added.chains.keys() & plain[family].chains.keys()  # type: ignore[index]
        assert added.sets.keys() <= whole[family].sets.keys()  # type: ignore[index]


def test_endpoint_selected_one_way_is_open_the_other() -> None:
    instance = InstanceId("e" * 64)
    foot = EndpointRequest(instance=instance, network=NET, ifname="eth0", ipv4="10.1.0.2", ipv6="fd00::2")
    policies = host_policies([TO_WEB], {endpoint_key(instance, NET): WEB}, {NET: PLACE})
    name = class_name("ingress", NET, [TO_WEB])
    routed, switched = policychains.inet(policies, (foot,)), policychains.bridge(policies, (foot,))
    assert routed.sets["gets4"].elements == {"10.1.0.2": f"jump {name}"}
    assert routed.sets["sends4"].elements == {}
    port = veth_name(instance, NET)
    assert switched.sets["sends"].elements == {port: "jump open"}
    assert switched.sets["gets"].elements == {port: f"jump {name}"}
    assert set(routed.sets["policed4"].elements) == {"10.1.0.2"}
    assert routed.sets["local6"].elements == {}


def test_endpoint_is_judged_by_its_link_local_address_on_its_own_links_alone() -> None:
    """Another endpoint may have the same MAC, on a network of its own."""
    instance, other = InstanceId("e" * 64), NetworkId("b" * 64)
    foot = EndpointRequest(
        instance=instance, network=NET, ifname="eth0", ipv6="fd00::2", mac="02:00:00:00:00:07"
    )
    beside = replace(foot, network=other, ifname="eth1", ipv6="fd01::2")
    shut = PolicySpec(name="shut", selects=Selector(network="back"), egress=())
    policies = host_policies([shut], {endpoint_key(instance, NET): WEB}, {NET: PLACE})
    (name,) = policies.classes
    found = policychains.inet(policies, (foot, beside)).sets["local6"].elements
    assert found == {
        f"{link} . fe80::ff:fe00:7": f"jump {name}"
        for link in (bridge_name(NET), speaker_name(NET), site_bridge_name(NET))
    }


def test_port_is_judged_before_its_endpoint_has_an_address() -> None:
    instance = InstanceId("e" * 64)
    foot = EndpointRequest(instance=instance, network=NET, ifname="eth0", dhcp=True)
    policies = host_policies([TO_WEB], {endpoint_key(instance, NET): WEB}, {NET: PLACE})
    assert policychains.bridge(policies, (foot,)).sets["gets"].elements.keys() == {veth_name(instance, NET)}


def test_routed_packets_of_the_sites_bridges_are_judged_where_there_are_any() -> None:
    policies = host_policies([TO_WEB], feet(WEB), {NET: PLACE})
    texts = {
        sited: [rule.text for rule in policychains.inet(policies, (), sited=sited).chains["judge"].rules]
        for sited in (False, True)
    }
    assert 'oifname "fln*" ip daddr vmap @gets4' in texts[True]
    assert texts[False] == [text for text in texts[True] if "fln" not in text]


def test_party_with_a_range_for_an_address_opens_nothing() -> None:
    rule = PolicyRule(peers=(PolicyPeer(container="evil"),))
    for text in ("0.0.0.0/0", "10.1.0.0/16", "oops"):
        place = Place(network=NET, name="back", subnets=PLACE.subnets, parties=(party("evil", text),))
        with pytest.raises(ValueError, match="does not appear to be an IPv4 or IPv6 address"):
            allowances("ingress", [PolicySpec(name="p", ingress=(rule,))], place)
