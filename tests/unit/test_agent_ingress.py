"""Published ports as a host sees them: how its instances answer, and what it can open."""

from __future__ import annotations

from agent.ingress import inner_addresses, opened
from agent.record import Local
from agent.services import services_of
from model.directory import Directory, Member
from model.ids import HostId, InstanceId, NetworkId, ServiceId
from model.records import Instance, ResolvedAttachment
from model.spec import ContainerSpec, NetworkSpec, Publish, Subnet
from model.status import Endpoint
from model.view import NetworkView, ServiceView, View, service_key
from net.host import INGRESS
from net.loadbalance import ServiceMember, VirtualService

BOX = InstanceId("b" * 64)
RED, INSIDE, ENTRY = NetworkId("red"), NetworkId("inside"), NetworkId(INGRESS)
LAN = NetworkId("lan")
WEB = Publish(target=80, published=8080, mode="ingress")
DNS = Publish(target=53, published=53, protocol="udp", mode="ingress")


def view(*attached: NetworkId) -> View:
    def network(
        ident: NetworkId, *cidrs: str, internal: bool = False, driver: str = "overlay"
    ) -> NetworkView:
        subnets = tuple(Subnet(cidr=c) for c in cidrs)
        spec = NetworkSpec(name=ident, driver=driver, subnets=subnets, internal=internal)
        return NetworkView(id=ident, spec=spec, vni=1, blocks=())

    networks = {
        RED: network(RED, "10.1.0.0/16"),
        LAN: network(LAN, "192.0.2.0/24", driver="macvlan"),
        INSIDE: network(INSIDE, "10.2.0.0/16", "fd02::/64", internal=True),
        ENTRY: network(ENTRY, "10.9.0.0/16", "fd09::/64", internal=True),
    }
    box = Instance(
        id=BOX,
        name="box",
        spec=ContainerSpec(image="x"),
        attachments=tuple(ResolvedAttachment(network=n) for n in attached),
    )
    service = ServiceView(name="web", ports=(WEB, DNS))
    return View(
        networks=networks, instances={BOX: box}, services={service_key(ENTRY, ServiceId("web")): service}
    )


def record(*networks: NetworkId) -> Local:
    addresses = {
        LAN: ("192.0.2.130", ""),
        RED: ("10.1.0.5", ""),
        INSIDE: ("10.2.0.5", "fd02::5"),
        ENTRY: ("10.9.0.5", "fd09::5"),
    }
    endpoints = tuple(
        Endpoint(network=n, network_name=n, ifname="e", ipv4=addresses[n][0], ipv6=addresses[n][1])
        for n in networks
    )
    return Local(instance=BOX, endpoints=endpoints)


def inner(*networks: NetworkId) -> dict[InstanceId, tuple[str, str]]:
    return dict(inner_addresses(view(*networks), {BOX: record(*networks)}))


def test_instance_answers_by_its_way_out_of_each_family_where_it_has_one() -> None:
    assert inner(RED, ENTRY) == {BOX: ("10.1.0.5", "")}
    assert inner(LAN, ENTRY) == {BOX: ("", "")}, "answers by the site's router would not come back here"
    assert inner(INSIDE, ENTRY) == inner(ENTRY) == {BOX: ("", "")}
    assert inner(INSIDE, RED, ENTRY) == {BOX: ("10.1.0.5", "")}
    assert inner(RED) == {}, "it publishes nothing"


def test_own_members_of_published_ports_are_known_by_how_they_answer() -> None:
    told = {
        InstanceId("a"): Member(name="a", host=HostId("o"), service=ServiceId("web"), ipv4="10.9.1.1"),
    }
    own = {ENTRY: {BOX: Member(name="b", host=HostId("me"), service=ServiceId("web"), ipv4="10.9.0.5")}}
    found = services_of(
        view(RED, ENTRY), Directory(networks={ENTRY: told}), HostId("me"), own, {BOX: ("10.1.0.5", "")}
    )
    (service,) = found.values()
    assert service.members == (
        ServiceMember(ipv4="10.9.1.1"),
        ServiceMember(ipv4="10.9.0.5", inner4="10.1.0.5"),
    )
    assert service.ports == (WEB, DNS) and not service.ipv4


def test_port_of_the_proxy_is_its_own_to_open() -> None:
    """The next agent finds it held by the proxy, which goes on."""
    told = Publish(target=80, published=443, mode="ingress", proxy_protocol="v2")
    wanted = {"web": VirtualService(ports=(WEB, told))}
    made, open_, taken = opened(wanted, frozenset(), lambda protocol, port: False)
    assert made["web"].ports == (told,) and (open_, taken) == ({("tcp", 443)}, {("tcp", 8080)})


def test_port_that_somebody_has_is_not_opened_until_it_is_free_and_an_open_one_stays() -> None:
    wanted = {"web": VirtualService(ports=(WEB, DNS))}
    none: frozenset[tuple[str, int]] = frozenset()
    made, open_, taken = opened(wanted, none, lambda protocol, port: port != 8080)
    assert made["web"].ports == (DNS,) and (open_, taken) == ({("udp", 53)}, {("tcp", 8080)})
    made, open_, taken = opened(wanted, open_, lambda protocol, port: port == 8080)
    assert made == wanted and made["web"] is wanted["web"] and not taken
    made, open_, taken = opened({}, open_, lambda protocol, port: False)
    assert (made, open_, taken) == ({}, none, none)
