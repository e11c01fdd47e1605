"""Fixed addresses: to whom they are leased, when they move, and when they are free again."""

from __future__ import annotations

import ipaddress
import sys
from types import FrameType
from typing import Any

import pytest
from msgspec.structs import replace

from controller import fixed
from controller.addressing import Leases
from controller.attachments import attachment_of
from controller.fixed import address_of, hold, token
from controller.keys import keys_of
from controller.placing import World
from controller.plan import Plan
from controller.queries import block_usage
from controller.reconcile.network import plan_network
from controller.snapshot import Change, Cluster, Key
from controller.views import affected, view_of
from model.errors import Exhausted, InUse, InvalidInput
from model.ids import HostId, InstanceId, NetworkId, ServiceId
from model.records import Block, Desired, Host, Instance, Network, ResolvedAttachment, Service
from model.spec import Attachment, ContainerSpec, HostSpec, NetworkSpec, Replicated, ServiceSpec, Subnet
from model.status import Endpoint, HostFacts, HostReport, HostState, InstanceStatus, Phase

BLUE, WEB = NetworkId("blue"), ServiceId("web")
H1, H2, H3 = HostId("h1"), HostId("h2"), HostId("h3")


def host(ident: HostId, state: HostState = HostState.READY) -> Host:
    facts = HostFacts(hostname=ident, address=f"192.0.2.{ident[1:]}")
    return Host(id=ident, spec=HostSpec(name=ident), facts=facts, state=state)


NETWORK = Network(id=BLUE, spec=NetworkSpec(name="blue", subnets=(Subnet(cidr="10.1.0.0/16"),)), vni=4096)


def box(name: str, on: HostId | None, address: str = "", **more: Any) -> Instance:
    attachment = ResolvedAttachment(network=BLUE, ipv4=address)
    made = Instance(id=InstanceId(name), name=name, spec=ContainerSpec(image="x"), host=on)
    return replace(made, **{"attachments": (attachment,), **more})


def replica(number: int, on: HostId | None, address: str = "", **more: Any) -> Instance:
    return box(f"web.{number}.{on}", on, address, service=WEB, service_name="web", slot=number, **more)


def service(wish: Attachment, replicas: int = 2) -> Service:
    container = ContainerSpec(image="x", networks=(wish,))
    return Service(
        id=WEB, spec=ServiceSpec(name="web", container=container, mode=Replicated(replicas=replicas))
    )


def cluster_of(*records: Any) -> Cluster:
    stamped = [replace(record, revision=1) for record in (NETWORK, host(H1), host(H2), host(H3), *records)]
    return Cluster().apply(stamped, (), 1)[0]


def applied(cluster: Cluster, plan: Plan) -> Cluster:
    revision = cluster.revision + 1
    puts = [replace(item.record, revision=revision) for item in plan.items if not item.delete]
    return cluster.apply(puts, [item.record for item in plan.items if item.delete], revision)[0]


def share(cidr: str, on: HostId, **more: Any) -> Block:
    return Block(network=BLUE, cidr=cidr, host=on, revision=1, **more)


def lease(address: str, on: HostId, holder: str, **more: Any) -> Block:
    return share(f"{address}/32", on, holder=holder, **more)


def held(
    cluster: Cluster, instance: Instance, on: HostId, now: float = 10.0, **statuses: InstanceStatus
) -> Block | None:
    """The lease that the instance gets on that host; None where nothing is to be written."""
    leases = Leases(cluster, now, {InstanceId(name): status for name, status in statuses.items()})
    hold(leases, instance.attachments[0], instance, on)
    records = [item.record for item in leases.items()]
    assert len(records) < 2 and all(isinstance(r, Block) for r in records)
    return records[0] if records else None  # type: ignore[return-value]


def stands(name: str, address: str, phase: Phase = Phase.RUNNING) -> InstanceStatus:
    foot = Endpoint(network=BLUE, network_name="blue", ifname="eth0", ipv4=address)
    return InstanceStatus(instance=InstanceId(name), phase=phase, endpoints=(foot,))


def test_an_address_in_nobodys_share_is_its_hosts_at_once() -> None:
    found = held(cluster_of(share("10.1.0.0/24", H1)), box("a", None, "10.1.9.9"), H2)
    assert found is not None and (found.host, found.holder, found.awaits) == (H2, "a", None)


def test_an_address_in_another_hosts_share_awaits_its_word() -> None:
    cluster = cluster_of(share("10.1.0.0/24", H1), box("a", H2, "10.1.0.9"))
    found = held(cluster, box("a", None, "10.1.0.9"), H2)
    assert found is not None and found.awaits == H1
    cluster = cluster.apply((replace(found, revision=2),), (), 2)[0]
    here, there = view_of(cluster, H2).networks[BLUE], view_of(cluster, H1).networks[BLUE]
    assert here.awaited == ("10.1.0.9",) and here.singles == () and here.fixed == {}
    assert there.set_aside == {"10.1.0.9": "10.000000"}
    assert all("10.1.0.9/32" not in peer.blocks for peer in there.peers), "it is led nowhere yet"
    assert plan_network(cluster, BLUE, 11.0).empty
    old = HostReport(host=H1, vacated=("blue/10.1.0.9/3.000000",))
    assert plan_network(cluster, BLUE, 11.0, (), {H1: old}).empty, "the word is of an earlier lease"
    word = HostReport(host=H1, vacated=(token(found),))
    cluster = applied(cluster, plan_network(cluster, BLUE, 11.0, (), {H1: word}))
    here, there = view_of(cluster, H2).networks[BLUE], view_of(cluster, H1).networks[BLUE]
    assert here.awaited == () and here.singles == ("10.1.0.9/32",) and here.fixed == {"a": "10.1.0.9"}
    assert [p.blocks for p in there.peers] == [("10.1.0.9/32",)]
    assert set(there.set_aside) == {"10.1.0.9"}, "for as long as it is fixed"


@pytest.mark.parametrize("away", [host(H1, HostState.LOST), None])
def test_a_host_that_is_gone_is_not_waited_for(away: Host | None) -> None:
    found = replace(lease("10.1.0.9", H2, "a"), awaits=H1)
    cluster = cluster_of(share("10.1.0.0/24", H1), box("a", H2, "10.1.0.9"), found)
    assert plan_network(cluster, BLUE, 11.0).empty
    puts, deletes = ((away,), ()) if away is not None else ((), (host(H1),))
    cluster = cluster.apply(puts, deletes, 2)[0]
    made = [i.record for i in plan_network(cluster, BLUE, 11.0).items]
    assert replace(found, awaits=None) in made


def test_who_has_an_address_unasked_is_named() -> None:
    cluster = cluster_of(share("10.1.0.0/24", H1), box("b", H1))
    with pytest.raises(InUse, match="belongs to b"):
        held(cluster, box("a", None, "10.1.0.9"), H2, b=stands("b", "10.1.0.9"))
    with pytest.raises(InUse, match="h1's own"):
        held(cluster, box("a", None, "10.1.0.2"), H2)


def test_an_address_moves_once_its_replica_is_gone() -> None:
    old = replica(1, H1, "10.1.9.9", desired=Desired.REMOVED)
    before = lease("10.1.9.9", H1, "web/1")
    cluster = cluster_of(service(Attachment(network="blue", ipv4="10.1.9.9-10.1.9.10")), old, before)
    fresh = replica(1, None, "10.1.9.9")
    with pytest.raises(Exhausted, match=r"still held by web\.1\.h1 on h1"):
        held(cluster, fresh, H2)
    assert held(cluster.apply((), (old,), 2)[0], fresh, H2) == replace(before, host=H2, leased_at=10.0)
    lost = cluster.apply((host(H1, HostState.LOST),), (), 2)[0]
    assert held(lost, fresh, H2) == replace(before, host=H2, leased_at=10.0), "lost is gone"


def test_a_plain_containers_address_is_kept_for_it_while_its_host_is_lost() -> None:
    old = box("a", H1, "10.1.9.9")
    cluster = cluster_of(old, lease("10.1.9.9", H1, "a"), host(H1, HostState.LOST))
    with pytest.raises(InUse, match="belongs to a"):
        held(cluster, box("b", None, "10.1.9.9"), H2)
    removed = cluster.apply((replace(old, desired=Desired.REMOVED),), (), 2)[0]
    for cluster in (removed, removed.apply((), (old,), 3)[0]):
        found = held(cluster, box("b", None, "10.1.9.9"), H2)
        assert found is not None and (found.holder, found.host) == ("b", H2)


def test_an_ended_replica_that_is_kept_for_its_logs_holds_nothing() -> None:
    old = replica(1, H1, "10.1.9.9", desired=Desired.STOPPED)
    cluster = cluster_of(service(Attachment(network="blue", keep_address=True)), old)
    ended = InstanceStatus(instance=old.id, phase=Phase.EXITED)
    assert held(cluster, replica(1, None, "10.1.9.9"), H2, **{old.id: ended}) is not None
    with pytest.raises(Exhausted, match="still held"):
        held(cluster, replica(1, None, "10.1.9.9"), H2, **{old.id: stands(old.id, "10.1.9.9")})


def test_a_replica_keeps_the_address_chosen_first() -> None:
    wish = ResolvedAttachment(network=BLUE, keep_address=True)
    cluster = cluster_of(service(Attachment(network="blue", keep_address=True)), share("10.1.0.0/24", H1))
    leases = Leases(cluster, 0.0)
    first = hold(leases, wish, replica(1, None), H1)
    second = hold(leases, wish, replica(2, None), H1)
    assert (first.ipv4, second.ipv4) == ("10.1.1.0", "10.1.1.1"), "in nobody's share"
    cluster = applied(cluster, Plan(items=leases.items()))
    later = Leases(cluster, 5.0)
    assert hold(later, wish, replica(1, None), H3) == first
    (moved,) = later.items()
    assert isinstance(moved.record, Block) and moved.record.host == H3


def test_an_address_that_nobody_needs_rests_unless_it_is_asked_for_by_name() -> None:
    wish = Attachment(network="blue", keep_address=True)
    cluster = cluster_of(service(wish, 2), lease("10.1.9.1", H1, "web/1"), lease("10.1.9.2", H1, "web/2"))
    assert plan_network(cluster, BLUE, 0.0).empty, "replicas come back to theirs"
    cluster = cluster.apply((replace(service(wish, 1), revision=2),), (), 2)[0]
    plan = plan_network(cluster, BLUE, 0.0)
    assert plan.retry_at == fixed.REST
    cluster = applied(cluster, plan)
    assert [b.cidr for b in cluster.blocks_of(BLUE).values() if b.quarantined_until] == ["10.1.9.2/32"]
    found = held(cluster, box("a", None, "10.1.9.2"), H2)
    assert found is not None and (found.holder, found.quarantined_until) == ("a", 0.0)
    assert len(applied(cluster, plan_network(cluster, BLUE, fixed.REST)).blocks_of(BLUE)) == 1


def test_a_share_has_no_room_for_addresses_fixed_in_it() -> None:
    cluster = cluster_of(share("10.1.0.0/29", H1), *(box(f"b{n}", H1) for n in range(3)))
    taken = cluster.apply((lease("10.1.0.5", H2, "x"), lease("10.1.0.6", H2, "y")), (), 2)[0]
    for state, more in ((cluster, 0), (taken, 1)):
        leases = Leases(state, 0.0)
        leases.ensure(NETWORK, H1)
        assert len(leases.items()) == more, "a /29 has 5 but for the host's own, the edge and the gateway"


def test_a_container_with_fixed_addresses_needs_no_room() -> None:
    full = cluster_of(*(share(f"10.1.{n}.0/24", H1) for n in range(256)))
    leases = Leases(full, 0.0)
    leases.ensure(NETWORK, H2, ResolvedAttachment(network=BLUE, ipv4="10.1.9.9"))
    with pytest.raises(Exhausted, match=r"no address free in network blue \(10\.1\.0\.0/16: 0 of 65533"):
        leases.ensure(NETWORK, H2, ResolvedAttachment(network=BLUE))


def test_leases_wake_who_is_concerned() -> None:
    found = lease("10.1.0.9", H2, "a", awaits=H3)
    cluster = cluster_of(share("10.1.0.0/24", H1))
    change = Change(old=None, new=found)
    assert affected(cluster, change) == {H1, H2, H3}
    assert Key("network", BLUE) in keys_of(cluster, change)


def test_usage_tells_fixed_addresses_apart_from_shares() -> None:
    cluster = cluster_of(share("10.1.0.0/24", H1), lease("10.1.0.9", H2, "a"), box("a", H2, "10.1.0.9"))
    world = World(statuses={InstanceId("a"): stands("a", "10.1.0.9")}, reports={})
    found = [(u.cidr, u.host, u.used, u.free, u.fixed) for u in block_usage(cluster, NETWORK, world)]
    assert found == [("10.1.0.0/24", "h1", 0, 252, False), ("10.1.0.9/32", "h2", 1, 0, True)]


@pytest.mark.parametrize(
    ("text", "number", "address"),
    [
        ("10.1.2.3", 1, "10.1.2.3"),
        ("10.1.2.3,10.1.2.8-10.1.2.9", 3, "10.1.2.9"),
        ("10.1.0.0/29", 1, "10.1.0.2"),
        ("10.1.2.0/30", 4, "10.1.2.3"),
    ],
)
def test_replica_gets_its_place_in_the_list(text: str, number: int, address: str) -> None:
    assert address_of(NETWORK.spec, text, 4, number) == address


@pytest.mark.parametrize("text", ["fd00:0:0:0::9", "FD00::9", "fd00::0009"])
def test_address_of_any_spelling_is_leased_once_and_given_once(text: str) -> None:
    six = replace(NETWORK, spec=replace(NETWORK.spec, subnets=(Subnet(cidr="fd00::/64"),)))
    wish = attachment_of(six, Attachment(network="blue", ipv6=text))
    found = box("a", H1, attachments=(wish,))
    cluster = cluster_of(six, found)
    leases = Leases(cluster, 10.0)
    hold(leases, wish, found, H1)
    cluster = applied(cluster, Plan(items=leases.items()))
    assert [(b.cidr, b.holder) for b in cluster.blocks_of(BLUE).values()] == [("fd00::9/128", "a")]
    assert plan_network(cluster, BLUE, 11.0).empty, "it is needed"
    again = attachment_of(six, Attachment(network="blue", ipv6="fd00::9"))
    with pytest.raises(InUse, match="belongs to a"):
        hold(Leases(cluster, 12.0), again, box("b", None, attachments=(again,)), H2)


def test_list_that_is_too_short_is_told() -> None:
    with pytest.raises(InvalidInput, match="no address for replica 3"):
        address_of(NETWORK.spec, "10.1.0.0/30", 4, 3)
    excluding = NetworkSpec(
        name="six", subnets=(Subnet(cidr="fd00::/64", exclude=("fd00::-fd00::ffff:ffff:ffff",)),)
    )
    with pytest.raises(InvalidInput, match="no address for replica 1"):
        address_of(excluding, "fd00::-fd00::ffff:ffff:ffff", 6, 1)
    assert address_of(excluding, "fd00::/64", 6, 2) == "fd00::1:0:0:1", "however many are skipped"


class Counting(dict[InstanceId, InstanceStatus]):
    asked = 0

    def get(self, *args: Any) -> Any:
        self.asked += 1
        return super().get(*args)


@pytest.mark.parametrize("wish", [{"ipv4": "10.1.9.0-10.1.9.255"}, {"keep_address": True}])
def test_each_container_and_each_list_is_looked_at_once_for_all_replicas(wish: dict[str, Any]) -> None:
    others = [box(f"b{n}", H1) for n in range(200)]
    cluster = cluster_of(service(Attachment(network="blue", **wish), 50), *others)
    statuses = Counting({i.id: stands(i.id, f"10.1.1.{n}") for n, i in enumerate(others)})
    leases = Leases(cluster, 0.0, statuses)
    fixed._usable.cache_clear()
    given = set()
    for number in range(1, 51):
        attached = ResolvedAttachment(network=BLUE, **wish)
        (foot,) = fixed.of_replica(cluster, (attached,), number)
        given.add(hold(leases, foot, replica(number, None), H1).ipv4)
    assert len(given) == 50
    assert statuses.asked <= len(others)
    assert fixed._usable.cache_info().misses <= 1


def test_view_beside_many_fixed_addresses_reads_none_of_them_again() -> None:
    shares = (share("10.1.0.0/24", H1), share("10.1.1.0/24", H2))
    leases = [lease(f"10.1.{number // 200}.{number % 200 + 9}", H2, f"web/{number}") for number in range(600)]
    cluster = cluster_of(*shares, *leases)
    first, reads = view_of(cluster, H1), 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal reads
        reads += event == "call" and frame.f_code.co_filename == ipaddress.__file__

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        again = view_of(cluster, H1)
    finally:
        sys.setprofile(before)
    assert again == first and len(again.networks[BLUE].peers[0].blocks) == 401
    assert reads == 0
