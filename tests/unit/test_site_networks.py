"""Networks on the site's own (macvlan, ipvlan) as values: what a host should have of them."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from controller import fixed
from controller.addressing import Leases
from controller.attachments import attachment_of, check_published
from controller.commands import networks
from controller.schedule.fleet import demand_of, fleet_of
from controller.schedule.place import place
from controller.snapshot import Cluster
from controller.views import view_of
from model.errors import InUse, InvalidInput
from model.ids import HostId, InstanceId, NetworkId
from model.records import Block, Host, Instance, Network, ResolvedAttachment
from model.spec import (
    Attachment,
    ContainerSpec,
    EndpointWish,
    HostSpec,
    NetworkSpec,
    Placement,
    Publish,
    Subnet,
)
from model.status import HostFacts, HostState, Nic
from model.view import NetworkPeer, NetworkView
from net.diff import Op, diff
from net.endpoint import InstanceNetwork, endpoint_status
from net.host import EndpointRequest, NetworkPlan, predefined_bridge
from net.naming import bridge_name, shim_name, veth_name, vlan_name
from net.plan import check, desired
from net.state import Address, Link, Route
from net.subnets import host_address, resolvers

ME = HostId("1" * 64)
LAN, OTHER = NetworkId("a" * 64), NetworkId("b" * 64)
ONE = InstanceId("c" * 64)
SUBNETS = (
    Subnet(cidr="192.0.2.0/24", gateway="192.0.2.1", ip_range="192.0.2.128/25", exclude=("192.0.2.128",)),
    Subnet(cidr="2001:db8::/64", gateway="2001:db8::1"),
)


def spec(driver: str = "macvlan", name: str = "lan", **options: str) -> NetworkSpec:
    return NetworkSpec(name=name, driver=driver, subnets=SUBNETS, options={"parent": "eth0", **options})


def lan(driver: str = "macvlan", parent: str = "eth0", **options: str) -> NetworkView:
    blocks = ("192.0.2.128/28", "2001:db8::100/120")
    return NetworkView(id=LAN, spec=spec(driver, **options), vni=0, blocks=blocks, parent=parent)


def plan(*views: NetworkView, nics: tuple[Nic, ...] = (Nic(name="eth0", mtu=9000),)) -> NetworkPlan:
    return NetworkPlan(
        host=ME,
        address="192.0.2.11",
        mtu=1500,
        vxlan_port=4789,
        networks={view.id: view for view in views},
        peers={},
        nics=nics,
    )


def foot(network: NetworkId = LAN) -> InstanceNetwork:
    request = EndpointRequest(
        instance=ONE, network=network, ifname="eth0", ipv4="192.0.2.130", ipv6="2001:db8::109"
    )
    return InstanceNetwork(namespace="/run/ns", endpoints=(request,))


def test_host_gets_a_shim_with_an_address_of_its_own_and_ways_to_its_blocks() -> None:
    whole = plan(lan())
    check(whole)
    state = desired(whole, ())
    shim = shim_name(LAN)
    link = state.links[shim]
    assert (link.kind, link.below, link.mode, link.mtu) == ("macvlan", "eth0", "bridge", 9000)
    assert state.addresses == {
        Address(link=shim, cidr="192.0.2.129/32"),
        Address(link=shim, cidr="2001:db8::100/128"),
    }, "the first of its blocks that is not set aside"
    assert state.routes == {
        Route(destination="192.0.2.128/28", link=shim, source="192.0.2.129"),
        Route(destination="2001:db8::100/120", link=shim, source="2001:db8::100"),
    }
    assert state.sysctls[f"net/ipv4/conf/{shim}/arp_ignore"] == "1"


def test_containers_of_other_hosts_are_reached_by_the_shim_where_the_host_is_not_on_the_network() -> None:
    peer = NetworkPeer(host=HostId("2" * 64), blocks=("192.0.2.144/28", "2001:db8::200/120"))
    view = replace(lan(), peers=(peer,))
    away = {"192.0.2.144/28", "2001:db8::200/120"}
    for own, found in (
        (("192.0.2.11",), {"2001:db8::200/120"}),
        (("192.0.2.11", "2001:db8::11"), set()),
        (("198.18.0.11",), away),
    ):
        state = desired(replace(plan(view), address=own[0], addresses=own), ())
        assert {route.destination for route in state.routes} & away == found, own


def test_endpoint_stands_on_the_parent_and_reaches_its_host_by_the_shim() -> None:
    link = desired(plan(lan()), (foot(),)).links[veth_name(ONE, LAN)]
    assert (link.kind, link.below, link.master, link.mtu) == ("macvlan", "eth0", "", 9000)
    assert link.foot is not None
    assert link.foot.addresses == ("192.0.2.130/24", "2001:db8::109/64")
    assert link.foot.gateways == ("192.0.2.1", "2001:db8::1") and link.foot.defaults == ()
    assert link.foot.beside == {"192.0.2.11": "192.0.2.129"} and link.foot.table > 0xFFFF
    assert endpoint_status(foot().endpoints[0], lan()).resolver == "192.0.2.129"


def test_nothing_of_the_sites_addresses_is_filtered_or_translated_here() -> None:
    tables = desired(plan(lan()), (foot(),)).tables
    inet = tables["inet"]
    assert not inet.sets["out4"].elements and not inet.sets["inside4"].elements
    assert set(inet.sets["own"].elements) == {shim_name(LAN)}
    assert set(inet.sets["names4"].elements) == {"192.0.2.129"}, "the router's own 53 is left alone"
    assert not tables["bridge"].sets["macs"].elements


@pytest.mark.parametrize("mode", ["private", "passthru"])
def test_modes_that_keep_endpoints_apart_have_no_shim_and_no_names(mode: str) -> None:
    view = lan(mode=mode)
    state = desired(plan(view), (foot(),))
    assert set(state.links) == {veth_name(ONE, LAN)} and resolvers(view) == ()
    assert endpoint_status(foot().endpoints[0], view).resolver == ""


def test_internal_network_leads_nowhere() -> None:
    view = replace(lan(), spec=replace(spec(), internal=True))
    link = desired(plan(view), (foot(),)).links[veth_name(ONE, LAN)]
    assert link.foot is not None and link.foot.gateways == ()


def test_ipvlan_has_its_mode_with_its_flag_and_in_l3_no_router_on_the_link() -> None:
    link = desired(plan(lan("ipvlan", flag="vepa")), (foot(),)).links[veth_name(ONE, LAN)]
    assert (link.kind, link.mode) == ("ipvlan", "l2 vepa")
    way = msgspec.structs.replace(foot().endpoints[0], default_route=True)
    routed = desired(plan(lan("ipvlan", mode="l3")), (replace(foot(), endpoints=(way,)),))
    inside = routed.links[veth_name(ONE, LAN)].foot
    assert inside is not None and inside.gateways == () and inside.defaults == ("0.0.0.0/0",)


def test_vlan_of_ours_is_made_once_for_all_networks_on_it_and_goes_with_the_last() -> None:
    other = replace(
        lan(parent="eth0.20"),
        id=OTHER,
        spec=replace(spec(name="other"), subnets=(Subnet(cidr="198.51.100.0/24"),)),
        blocks=("198.51.100.0/28",),
    )
    name = vlan_name("eth0.20")
    both = desired(plan(lan(parent="eth0.20"), other), ())
    assert both.links[name] == Link(
        name=name, kind="vlan", alias="flota:vlan:eth0.20", mtu=9000, below="eth0", vlan=20
    )
    assert {both.links[shim_name(n)].below for n in (LAN, OTHER)} == {name}
    gone = [op.item for op in diff(desired(plan(), ()), both) if isinstance(op, Op) and op.verb == "remove"]
    links = [item.name for item in gone if isinstance(item, Link)]
    assert links[-1] == name and set(links[:-1]) == {shim_name(LAN), shim_name(OTHER)}
    left = diff(desired(plan(other), ()), both)
    assert not any(isinstance(op, Op) and op.verb == "remove" and op.item == both.links[name] for op in left)


def test_vlan_that_somebody_made_is_used_and_left_alone() -> None:
    nics = (Nic(name="eth0"), Nic(name="eth0.20", mtu=1400))
    state = desired(plan(lan(parent="eth0.20"), nics=nics), ())
    assert set(state.links) == {shim_name(LAN)}
    assert (state.links[shim_name(LAN)].below, state.links[shim_name(LAN)].mtu) == ("eth0.20", 1400)


def test_mode_that_changed_makes_the_links_anew() -> None:
    before, after = desired(plan(lan()), (foot(),)), desired(plan(lan(mode="vepa")), (foot(),))
    links = [(op.verb, op.item.name) for op in diff(after, before) if isinstance(op.item, Link)]  # type: ignore[union-attr]
    names = (shim_name(LAN), veth_name(ONE, LAN))
    assert sorted(links) == sorted((verb, name) for verb in ("add", "remove") for name in names)


def test_host_without_the_link_has_nothing_of_the_network_and_keeps_its_others() -> None:
    bridge = NetworkView(id=NetworkId("bridge"), spec=predefined_bridge(), vni=0, blocks=("172.29.0.0/16",))
    for parent, nics in (("", (Nic(name="eth0"),)), ("eth1", (Nic(name="eth0"),))):
        whole = plan(lan(parent=parent), bridge, nics=nics)
        check(whole)
        assert set(desired(whole, (foot(),)).links) == {bridge_name("bridge")}


def test_hosts_own_address_is_never_one_that_is_set_aside() -> None:
    subnet = Subnet(cidr="192.0.2.0/24", exclude=("192.0.2.16-192.0.2.18", "192.0.2.20/31"))
    assert host_address(subnet, ("192.0.2.16/28",)) == "192.0.2.19"
    assert host_address(Subnet(cidr="192.0.2.0/24", exclude=("192.0.2.16/28",)), ("192.0.2.16/28",)) == ""


# -- the controller's part ------------------------------------------------------------------------------
def host(number: int, nics: tuple[Nic, ...] = (Nic(name="eth0"),), **labels: str) -> Host:
    facts = HostFacts(
        hostname=f"h{number}",
        address=f"192.0.2.{10 + number}",
        addresses=(f"192.0.2.{10 + number}",),
        links=("192.0.2.0/24",),
        nics=nics,
        link_kinds=("macvlan", "vlan"),
    )
    spec = HostSpec(name=f"h{number}", labels=labels)
    return Host(id=HostId(f"h{number}"), spec=spec, facts=facts, state=HostState.READY)


def cluster_of(*records: object) -> Cluster:
    return Cluster().apply(records, (), 1)[0]  # type: ignore[arg-type]


def record(**options: str) -> Network:
    return Network(id=LAN, spec=spec(**options))


def test_network_may_be_where_the_hosts_are_and_has_no_addresses_for_services() -> None:
    plan = networks.create(cluster_of(host(1)), spec(), now=1.0, ident=LAN)
    made = plan.items[0].record
    assert isinstance(made, Network) and (made.vni, made.vip_ranges) == (0, ())
    assert made.spec.subnets == SUBNETS


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (spec(parent=""), "needs the hosts' link"),
        (spec(parent="a b"), "is not a link's name"),
        (spec(mode="l2"), "is not bridge, private, vepa or passthru"),
        (spec("ipvlan", mode="bridge"), "is not l2, l3 or l3s"),
        (spec("ipvlan", flag="x"), "is not bridge, private or vepa"),
        (spec(vni="7"), "unknown option"),
        (replace(spec(), subnets=()), "needs the site's subnet"),
        (replace(spec(), subnets=SUBNETS[:1], ipv6=True), "IPv6 subnet"),
    ],
)
def test_network_that_can_not_be_is_refused_in_words(wrong: NetworkSpec, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        networks.create(cluster_of(host(1)), wrong, now=1.0, ident=LAN)


def test_dockers_options_are_understood() -> None:
    asked = replace(spec("ipvlan"), options={"parent": "eth0", "ipvlan_mode": "l2", "ipvlan_flag": "vepa"})
    made = networks.create(cluster_of(host(1)), asked, now=1.0, ident=LAN).items[0].record
    assert isinstance(made, Network)
    assert made.spec.options == {"parent": "eth0", "mode": "l2", "flag": "vepa"}


def test_hosts_without_the_link_are_passed_over_and_say_why() -> None:
    cluster = cluster_of(host(1, ()), host(2), record())
    demand = demand_of(ContainerSpec(image="x", networks=(Attachment(network="lan"),)), Placement())
    placed = place(demand, 1, fleet_of(cluster))
    assert placed.hosts == ("h2",)
    nowhere = place(demand, 1, {"h1": fleet_of(cluster)[HostId("h1")]})  # type: ignore[dict-item]
    assert nowhere.explanation is not None
    assert nowhere.explanation.text == "1 host: 1 without link eth0 (network lan)"


def test_view_names_each_hosts_own_link() -> None:
    cluster = cluster_of(
        host(1, (Nic(name="enp1s0"),), lan="enp1s0"),
        host(2, (Nic(name="eth7"),), lan="eth7.20"),
        record(parent="label:lan"),
        Block(network=LAN, cidr="192.0.2.128/28", host=HostId("h1")),
        Block(network=LAN, cidr="192.0.2.144/28", host=HostId("h2")),
    )
    assert view_of(cluster, HostId("h1")).networks[LAN].parent == "enp1s0"
    assert view_of(cluster, HostId("h2")).networks[LAN].parent == "eth7.20"


def test_blocks_come_out_of_the_range_and_never_twice() -> None:
    cluster = cluster_of(host(1), host(2), record())
    leases = Leases(cluster, 1.0)
    for name in ("h1", "h2"):
        leases.ensure(cluster.networks[LAN], HostId(name))
    found = [item.record.cidr for item in leases.items() if isinstance(item.record, Block)]
    assert sorted(c for c in found if ":" not in c) == ["192.0.2.128/28", "192.0.2.144/28"]


def test_address_of_a_host_is_nobody_elses() -> None:
    cluster = cluster_of(host(1), host(2), record())
    box = Instance(id=ONE, name="box", spec=ContainerSpec(image="x"), host=HostId("h1"))
    wish = ResolvedAttachment(network=LAN, ipv4="192.0.2.12")
    with pytest.raises(InUse, match="host h2's own"):
        fixed.hold(Leases(cluster, 1.0), wish, box, HostId("h1"))
    with pytest.raises(InvalidInput, match="reserved"):
        attachment_of(cluster.networks[LAN], EndpointWish(ipv4="192.0.2.1"))


def test_what_the_host_can_not_do_there_is_refused() -> None:
    cluster = cluster_of(host(1), record())
    with pytest.raises(InvalidInput, match="bandwidth"):
        attachment_of(cluster.networks[LAN], EndpointWish(bandwidth_in=8000))
    ports = (Publish(target=80, published=80, mode="host"),)
    foot = ResolvedAttachment(network=LAN)
    with pytest.raises(InvalidInput, match="published"):
        check_published(cluster, (foot,), ports)
    check_published(cluster, (foot,), ())
    check_published(cluster, (foot,), (Publish(target=80, published=80, mode="ingress"),))
