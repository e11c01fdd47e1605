"""Addresses of services: unique, kept, told to the hosts that carry their networks."""

from __future__ import annotations

import ipaddress
from itertools import combinations

import msgspec
import pytest

from controller.commands import networks, services
from controller.snapshot import Cluster
from controller.store.base import stamped
from controller.views import affected, view_of
from model.api import UpdateService
from model.errors import Exhausted, InvalidInput
from model.ids import HostId, NetworkId, ServiceId
from model.records import Block, FleetSettings, Host, Network, Service
from model.spec import Attachment, ContainerSpec, HostSpec, NetworkSpec, ServiceSpec, Subnet
from model.status import HostFacts, HostState
from model.view import service_key

BLUE, RED = NetworkId("blue"), NetworkId("red")


def network(ident: NetworkId, *cidrs: str) -> Network:
    spec = NetworkSpec(name=ident, subnets=tuple(Subnet(cidr=c) for c in cidrs))
    ranges = ("10.3.0.0/29", "fd00:f::/64")[: len(cidrs)]
    return Network(id=ident, spec=spec, vni=1, vip_ranges=ranges)


def fleet() -> Cluster:
    facts = HostFacts(hostname="h1", address="192.0.2.1")
    host = Host(id=HostId("h1"), spec=HostSpec(name="h1"), facts=facts, state=HostState.READY)
    records = (
        FleetSettings(fleet_id="f" * 32),
        host,
        network(BLUE, "10.1.0.0/16", "fd00:1::/64"),
        network(RED, "10.2.0.0/16"),
        Block(network=BLUE, cidr="10.1.1.0/24", host=host.id),
    )
    return Cluster().apply(stamped(records, 1), (), 1)[0]


def spec(name: str, *networks: str, **words: object) -> ServiceSpec:
    attached = tuple(Attachment(network=n) for n in networks)
    return ServiceSpec(name=name, container=ContainerSpec(image="x", networks=attached), **words)  # type: ignore[arg-type]


def create(cluster: Cluster, wanted: ServiceSpec) -> tuple[Cluster, Service]:
    plan = services.create(cluster, wanted, now=1.0, ident=ServiceId(wanted.name))
    puts = stamped([item.record for item in plan.items], cluster.revision + 1)
    after = cluster.apply(puts, (), cluster.revision + 1)[0]
    return after, after.services[ServiceId(wanted.name)]


def test_a_service_has_an_address_of_each_family_on_each_of_its_networks() -> None:
    _, web = create(fleet(), spec("web", "blue", "red"))
    assert set(web.vips) == {BLUE, RED}
    blue, red = web.vips[BLUE], web.vips[RED]
    assert ipaddress.ip_address(blue.ipv6) in ipaddress.ip_network("fd00:f::/64") and not red.ipv6
    for vip in (blue, red):
        assert ipaddress.ip_address(vip.ipv4) in ipaddress.ip_network("10.3.0.0/29")


def test_no_address_is_given_twice_and_their_end_is_said() -> None:
    cluster, seen = fleet(), set()
    for number in range(6):
        cluster, made = create(cluster, spec(f"s{number}", "red"))
        seen.add(made.vips[RED].ipv4)
    assert len(seen) == 6
    with pytest.raises(Exhausted, match=r"10\.3\.0\.0/29"):
        create(cluster, spec("s6", "red"))


def test_an_update_keeps_addresses_and_another_endpoint_mode_gives_them_back() -> None:
    cluster, web = create(fleet(), spec("web", "blue"))
    more = services.update(cluster, "web", UpdateService(spec=spec("web", "blue", "red")), 2.0)
    after = more.items[0].record
    assert isinstance(after, Service) and after.vips[BLUE] == web.vips[BLUE] and RED in after.vips
    plain = services.update(
        cluster, "web", UpdateService(spec=spec("web", "blue", endpoint_mode="dnsrr")), 2.0
    )
    none = plain.items[0].record
    assert isinstance(none, Service) and none.vips == {}


def test_hosts_that_carry_the_network_are_told() -> None:
    cluster, web = create(fleet(), spec("web", "blue", balance="random"))
    view = view_of(cluster, HostId("h1"))
    told = view.services[service_key(BLUE, web.id)]
    assert (told.name, told.ipv4, told.balance) == ("web", web.vips[BLUE].ipv4, "random")
    assert view.networks[BLUE].vip_ranges == ("10.3.0.0/29", "fd00:f::/64")
    red, changes = cluster.apply((msgspec.structs.replace(web, generation=2),), (), 9)
    assert affected(red, changes[0]) == set()
    going, changes = cluster.apply((msgspec.structs.replace(web, removed=True),), (), 9)
    assert affected(going, changes[0]) is None  # nobody keeps its image any more
    gone, changes = going.apply((), (web,), 10)
    assert affected(gone, changes[0]) == {"h1"} and not view_of(gone, HostId("h1")).services


def test_each_network_has_a_range_of_its_own_that_others_may_not_touch() -> None:
    cluster, ranges = fleet(), list[str]()
    for name in ("one", "two"):
        wanted = NetworkSpec(name=name, ipv6=True)
        plan = networks.create(cluster, wanted, now=1.0, ident=NetworkId(name))
        cluster = cluster.apply(stamped([i.record for i in plan.items], 5), (), 5)[0]
        made = cluster.networks[NetworkId(name)]
        ranges += [*made.vip_ranges, *(subnet.cidr for subnet in made.spec.subnets)]
    found = [ipaddress.ip_network(cidr) for cidr in ranges]
    assert len(found) == 8
    assert not any(a.overlaps(b) for a, b in combinations(found, 2) if a.version == b.version)
    taken = next(r for r in cluster.networks[NetworkId("two")].vip_ranges if "." in r)
    with pytest.raises(InvalidInput, match="overlaps"):
        networks.create(
            cluster,
            NetworkSpec(name="x", subnets=(Subnet(cidr=taken),)),
            now=1.0,
            ident=NetworkId("x"),
        )
