"""From Views and members to the service addresses that a host balances."""

from __future__ import annotations

from agent.services import services_of
from model.directory import Directory, Member
from model.ids import HostId, InstanceId, NetworkId, ServiceId
from model.spec import NetworkSpec, Subnet
from model.view import NetworkView, ServiceView, View, service_key
from net.loadbalance import ServiceMember, VirtualService

ME, OTHER = HostId("me"), HostId("other")
NET, WEB = NetworkId("net"), ServiceId("web")
KEY = service_key(NET, WEB)


def view(*networks: NetworkId) -> View:
    spec = NetworkSpec(name="net", subnets=(Subnet(cidr="10.1.0.0/16"),))
    return View(
        networks={n: NetworkView(id=n, spec=spec, vni=1, blocks=()) for n in networks},
        services={KEY: ServiceView(name="web", ipv4="10.2.0.1", balance="random")},
    )


def member(
    address: str, host: HostId = OTHER, *, ready: bool = True, service: ServiceId | None = WEB
) -> Member:
    return Member(name="x", host=host, service=service, ipv4=address, ready=ready)


def test_members_are_those_who_take_connections_in_the_order_of_their_ids() -> None:
    told = {
        InstanceId("c"): member("10.1.0.3"),
        InstanceId("a"): member("10.1.0.1"),
        InstanceId("b"): member("10.1.0.2", ready=False),
        InstanceId("d"): member("10.1.0.4", service=None),
        InstanceId("e"): member("10.1.0.5", service=ServiceId("db")),
    }
    found = services_of(view(NET), Directory(networks={NET: told}), ME, {})
    members = (ServiceMember(ipv4="10.1.0.1"), ServiceMember(ipv4="10.1.0.3"))
    assert found == {KEY: VirtualService(ipv4="10.2.0.1", members=members, method="random")}


def test_of_its_own_members_a_host_knows_better() -> None:
    told = {InstanceId("a"): member("10.1.0.1", ME), InstanceId("b"): member("10.1.0.2")}
    own = {NET: {InstanceId("c"): member("10.1.0.3", ME)}}
    found = services_of(view(NET), Directory(networks={NET: told}), ME, own)
    assert [m.ipv4 for m in found[KEY].members] == ["10.1.0.2", "10.1.0.3"]


def test_a_service_without_members_is_there_and_one_of_a_network_that_left_is_not() -> None:
    assert services_of(view(NET), Directory(), ME, {})[KEY].members == ()
    assert services_of(view(), Directory(), ME, {}) == {}
