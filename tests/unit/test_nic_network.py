"""What a network by a bridge over a link of the host is on one host, and by DHCP: pure parts."""

from __future__ import annotations

import pytest

from model.ids import HostId, InstanceId, NetworkId
from model.netoptions import problems
from model.networkrules import validate_network
from model.spec import NetworkSpec, Subnet
from model.status import Nic
from model.view import NetworkView
from net.backend.nic import LAST_METRIC
from net.endpoint import InstanceNetwork, endpoint_status
from net.host import EndpointRequest, NetworkPlan
from net.naming import site_bridge_name, speaker_name, speaker_port_name, vlan_name
from net.nic.state import Wish
from net.plan import desired, wishes
from net.state import Address, Route
from net.subnets import interface_address

LAN = NetworkId("1a" * 32)
BRIDGE, SPEAKER = site_bridge_name(LAN), speaker_name(LAN)
SUBNETS = (
    Subnet(cidr="192.0.2.0/24", gateway="192.0.2.1", ip_range="192.0.2.128/25"),
    Subnet(cidr="2001:db8::/64", gateway="2001:db8::1"),
)
SPEC = NetworkSpec(name="lan", driver="nic", subnets=SUBNETS, options={"parent": "eth1"})
FOOT = EndpointRequest(
    instance=InstanceId("c" * 64), network=LAN, ifname="eth0", ipv4="192.0.2.130", default_route=True
)


def plan(spec: NetworkSpec = SPEC, parent: str = "eth1", *nics: Nic) -> NetworkPlan:
    view = NetworkView(
        id=LAN, spec=spec, vni=0, blocks=("192.0.2.128/28", "2001:db8::1:0/120"), parent=parent
    )
    return NetworkPlan(
        host=HostId("a" * 64),
        address="192.0.2.11",
        mtu=1500,
        vxlan_port=4789,
        networks={LAN: view},
        peers={},
        nics=nics or (Nic(name="eth1", mtu=9000),),
    )


def test_a_bridge_a_foot_of_the_hosts_and_veths_are_made_and_the_link_is_wished_for() -> None:
    state = desired(plan(), [InstanceNetwork(namespace="/run/ns/c", endpoints=(FOOT,))])
    bridge = state.links[BRIDGE]
    assert (bridge.kind, bridge.mtu, bridge.mac, bridge.master) == ("bridge", 9000, "", "")
    assert state.links[speaker_port_name(LAN)].master == BRIDGE
    (veth,) = (link for link in state.links.values() if link.foot is not None)
    assert (veth.kind, veth.master, veth.mtu) == ("veth", BRIDGE, 9000)
    assert veth.foot is not None and veth.foot.addresses == ("192.0.2.130/24",)
    assert veth.foot.defaults == ("192.0.2.1",) and veth.foot.table
    assert wishes(plan(), ["192.0.2.9:7420"]) == (
        Wish(network="lan", parent="eth1", bridge=BRIDGE, mtu=9000, controllers=("192.0.2.9:7420",)),
    )


def test_the_hosts_own_addresses_are_not_among_what_is_ours() -> None:
    state = desired(plan(), [])
    assert state.addresses and {address.link for address in state.addresses} == {SPEAKER}
    own = _own(state.addresses, "192")
    route = Route(destination="192.0.2.0/24", link=SPEAKER, source=own, metric=LAST_METRIC)
    assert route in state.routes
    assert not any(BRIDGE in path for path in state.sysctls)
    assert "net/ipv6/conf/all/forwarding" not in state.sysctls


def test_a_host_without_the_link_has_nothing_of_it() -> None:
    state = desired(plan(SPEC, ""), [])
    assert BRIDGE not in state.links and wishes(plan(SPEC, "")) == ()


def test_a_vlan_of_the_link_is_made_and_becomes_the_port() -> None:
    state = desired(plan(SPEC, "eth1.20"), [])
    assert state.links[vlan_name("eth1.20")].below == "eth1"
    assert wishes(plan(SPEC, "eth1.20"))[0].parent == vlan_name("eth1.20")


def test_its_guard_and_policies_are_those_of_bridged_endpoints() -> None:
    tables = desired(plan(), [InstanceNetwork(namespace="/run/ns/c", endpoints=(FOOT,))]).tables
    assert any("192.0.2.130" in element for element in tables["bridge"].sets["feet4"].elements)
    assert tables["inet"].sets["out4"].elements == {}


def test_names_are_asked_for_at_the_hosts_foot() -> None:
    status = endpoint_status(FOOT, plan().networks[LAN])
    assert status.resolver and status.resolver != "192.0.2.1" and status.gateway == "192.0.2.1"


def test_options_that_do_nothing_are_refused() -> None:
    told = problems("nic", {"mode": "bridge"}, "spec.options", ipv6=False)
    assert [p.path for p in told] == ["spec.options.mode", "spec.options.parent"]


@pytest.mark.parametrize("driver", ["overlay", "bridge", "ipvlan"])
def test_dhcp_needs_a_network_with_macs_of_its_own(driver: str) -> None:
    options = {"parent": "eth1"} if driver == "ipvlan" else {}
    spec = NetworkSpec(name="lan", driver=driver, ipam="dhcp", options=options)
    assert [p.path for p in validate_network(spec)] == ["spec.ipam"]


def test_dhcp_leaves_no_range_to_give_out_of() -> None:
    spec = NetworkSpec(name="lan", driver="nic", ipam="dhcp", subnets=SUBNETS[:1], options={"parent": "eth1"})
    assert [p.path for p in validate_network(spec)] == ["spec.subnets[0].ip_range"]


def test_an_ipv6_address_is_made_of_the_mac_in_a_subnet_of_64_bits() -> None:
    assert interface_address(SPEC, "02:00:5e:10:00:01") == "2001:db8::5eff:fe10:1"
    assert interface_address(NetworkSpec(name="x", subnets=SUBNETS[:1]), "02:00:5e:10:00:01") == ""


def _own(addresses: frozenset[Address], begin: str) -> str:
    return next(a.cidr.split("/")[0] for a in addresses if a.cidr.startswith(begin))
