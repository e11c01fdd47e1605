"""Which reported addresses are kept: those that are their host's to use, on each kind of network."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from controller.directory import Memberships
from controller.owned import judged, shares_of
from controller.placing import World
from controller.policies import on_network
from controller.queries import host_info
from controller.snapshot import Cluster
from controller.statuses import Statuses
from model.ids import HostId, InstanceId, NetworkId
from model.records import Block, Host, Instance, Network, ResolvedAttachment
from model.spec import ContainerSpec, HostSpec, NetworkSpec, Subnet
from model.status import Endpoint, HostFacts, InstanceStatus, Phase

NET = NetworkId("net")
H1, H2 = HostId("h1"), HostId("h2")
A, B = InstanceId("a"), InstanceId("b")
SUBNETS = (Subnet(cidr="10.1.0.0/16"), Subnet(cidr="fd00:1::/64"))
SHARES = (("10.1.0.0/24", H1), ("10.1.1.0/24", H2), ("fd00:1::/120", H1), ("fd00:1::100/120", H2))


def box(ident: InstanceId, on: HostId, **wish: str) -> Instance:
    attachment = ResolvedAttachment(network=NET, **wish)
    return Instance(id=ident, name=ident, spec=ContainerSpec(image="x"), host=on, attachments=(attachment,))


def share(cidr: str, on: HostId, **more: Any) -> Block:
    return Block(network=NET, cidr=cidr, host=on, **more)


def cluster(*more: Any, driver: str = "overlay", shares: bool = True, **spec: Any) -> Cluster:
    """A network with shares of two hosts, and one container on each."""
    network = Network(id=NET, spec=NetworkSpec(name="blue", driver=driver, subnets=SUBNETS, **spec), vni=4097)
    hosts = (
        Host(id=h, spec=HostSpec(name=h), facts=HostFacts(hostname=h, address=f"192.0.2.{h[1:]}"))
        for h in (H1, H2)
    )
    blocks = (share(cidr, on) for cidr, on in SHARES) if shares else ()
    return Cluster().apply((network, *hosts, *blocks, box(A, H1), box(B, H2), *more), (), 1)[0]


def says(ident: InstanceId, ipv4: str = "", ipv6: str = "") -> InstanceStatus:
    foot = Endpoint(network=NET, network_name="blue", ifname="eth0", ipv4=ipv4, ipv6=ipv6)
    return InstanceStatus(instance=ident, phase=Phase.RUNNING, endpoints=(foot,))


def kept(found: Cluster, ident: InstanceId, ipv4: str = "", ipv6: str = "") -> tuple[str, str]:
    instance = found.instances[ident]
    assert instance.host is not None
    status, words = judged(found, instance, says(ident, ipv4, ipv6), shares_of(found, instance.host))
    (foot,) = status.endpoints
    assert bool(words) == ((foot.ipv4, foot.ipv6) != (ipv4, ipv6))
    return foot.ipv4, foot.ipv6


def test_addresses_of_the_hosts_own_share_are_kept() -> None:
    assert kept(cluster(), A, "10.1.0.9", "fd00:1::9") == ("10.1.0.9", "fd00:1::9")
    assert kept(cluster(), B, "10.1.1.255") == ("10.1.1.255", "")


@pytest.mark.parametrize("bad", ["oops", "0.0.0.0/0", "10.1.0.0/24", "10.1.0.9%1", "10.1.0.09", "10.1.0.9\n"])
def test_what_is_no_address_is_left_out(bad: str) -> None:
    assert kept(cluster(), A, bad, "fd00:1::9") == ("", "fd00:1::9")


@pytest.mark.parametrize("other", ["10.1.1.9", "10.1.7.7", "10.1.0.1", "8.8.8.8", "192.0.2.2", "fd00:1::9"])
def test_another_hosts_address_nobodys_the_gateway_and_the_worlds_are_left_out(other: str) -> None:
    assert kept(cluster(), A, other, "fd00:1::9") == ("", "fd00:1::9")


def test_fixed_address_is_its_hosts_wherever_it_lies_and_the_share_holders_no_more() -> None:
    lease = share("10.1.1.9/32", H1, holder="a")
    assert kept(cluster(lease), A, "10.1.1.9") == ("10.1.1.9", "")
    assert kept(cluster(lease), B, "10.1.1.9") == ("", "")
    awaiting = replace(lease, awaits=H2)
    assert kept(cluster(awaiting), B, "10.1.1.9") == ("10.1.1.9", ""), "until its host has given it up"


def test_address_that_the_record_itself_promises_is_kept_without_a_lease() -> None:
    found = cluster(box(A, H1, ipv4="10.1.9.9"))
    assert kept(found, A, "10.1.9.9") == ("10.1.9.9", "")
    assert kept(found, B, "10.1.9.9") == ("", "")


@pytest.mark.parametrize("driver", ["overlay", "host-gw", "macvlan", "ipvlan", "nic"])
def test_networks_with_shares_are_judged_alike_whatever_their_driver(driver: str) -> None:
    found = cluster(driver=driver)
    assert kept(found, A, "10.1.0.9", "fd00:1::9") == ("10.1.0.9", "fd00:1::9")
    assert kept(found, A, "10.1.1.9", "fd00:1::109") == ("", "")


@pytest.mark.parametrize(("driver", "more"), [("bridge", {}), ("macvlan", {"ipam": "dhcp"})])
def test_networks_without_shares_have_any_address_of_their_subnets(driver: str, more: dict[str, Any]) -> None:
    found = cluster(driver=driver, shares=False, **more)
    made_of_its_mac = "fd00:1::42:acff:fe11:2"
    assert kept(found, A, "10.1.200.9", made_of_its_mac) == ("10.1.200.9", made_of_its_mac)
    assert kept(found, A, "10.2.0.9", "fd00:2::9") == ("", "")


# -- what comes of it -----------------------------------------------------------------------------------
def told(found: Cluster, *words: InstanceStatus) -> Statuses:
    statuses = Statuses()
    statuses.take(found, H1, words)
    return statuses


def test_stray_address_reaches_no_directory_and_no_policy_and_its_host_is_told_of() -> None:
    found = cluster()
    for bad in ("0.0.0.0/0", "10.1.1.9", "oops"):
        statuses, members = told(found, says(A, bad, "fd00:1::9")), Memberships()
        members.refresh(found, statuses.by_id, [A])
        (member,) = members.members(NET).values()
        assert (member.ipv4, member.ipv6) == ("", "fd00:1::9")
        assert [p.addresses for p in on_network(found, statuses.by_id, NET)] == [("fd00:1::9",)]
        world = World(statuses=statuses.by_id, strays=statuses.strays)
        (condition,) = host_info(found, found.hosts[H1], world, connected=True).conditions
        assert "reports for a is left out" in condition and bad in condition
        assert not host_info(found, found.hosts[H2], world, connected=True).conditions


def test_condition_ends_with_the_stray_address_and_with_its_instance() -> None:
    found = cluster()
    statuses = told(found, says(A, "oops"))
    assert statuses.strays.keys() == {A}
    assert statuses.take(found, H1, [says(A, "oops")]) == [], "nothing new"
    assert statuses.take(found, H1, [says(A, "10.1.0.9")]) == [A] and not statuses.strays
    for end in (lambda s: s.forget(A), lambda s: s.missing(found, H1, set())):
        statuses = told(found, says(A, "oops"))
        end(statuses)
        assert not statuses.strays


def test_address_is_judged_by_what_is_leased_when_it_is_reported() -> None:
    found = cluster()
    statuses = told(found, says(A, "10.1.5.9"))
    assert statuses.by_id[A].endpoints[0].ipv4 == ""
    larger = found.apply((share("10.1.5.0/24", H1),), (), 2)[0]
    assert statuses.take(larger, H1, [says(A, "10.1.5.9")]) == [A]
    assert statuses.by_id[A].endpoints[0].ipv4 == "10.1.5.9"
