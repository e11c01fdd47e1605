"""Networks without a free address: who waits for one, in which words, and where else it is looked for."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from controller.addressing import Leases
from controller.commands import instances
from controller.keys import keys_of
from controller.placing import World
from controller.reconcile.network import plan_network
from model.api import CreateInstance
from model.errors import Exhausted
from model.ids import InstanceId, NetworkId
from model.records import Block, Desired, Network
from model.spec import Attachment, ContainerSpec, NetworkSpec, Reservations, ServiceSpec, Subnet
from model.status import HostState, InstanceStatus, Phase
from tests.support.servicerig import Rig, host, spec

LAN = Network(
    id=NetworkId("lan"),
    spec=NetworkSpec(name="lan", driver="bridge", subnets=(Subnet(cidr="10.9.0.0/29"),)),
)
"""Room for five on each host."""
FAR = Network(id=NetworkId("far"), spec=NetworkSpec(name="far", subnets=(Subnet(cidr="10.8.0.0/29"),)))


def on(network: Network, replicas: int) -> ServiceSpec:
    made = spec(replicas=replicas)
    attached = replace(made.container, networks=(Attachment(network=network.spec.name),))
    return replace(made, container=attached)


def rig(network: Network, replicas: int, hosts: int = 1) -> Rig:
    made = Rig(on(network, replicas), *(host(n) for n in range(1, hosts + 1)))
    made.put(network)
    return made


def pending(made: Rig) -> list[str]:
    return [i.reason for i in made.active() if i.host is None]


def test_replica_that_finds_no_address_on_its_host_waits_and_says_so() -> None:
    made = rig(LAN, 6)
    made.settle()
    reason = "no address: no address free in network lan on host h1 (5 are held)"
    assert pending(made) == [reason]
    [condition] = made.service.conditions
    assert condition.message == f"1 instance waits for a host: {reason}"
    assert made.plan().empty


def test_one_that_waits_gets_the_address_that_is_given_back() -> None:
    made = rig(LAN, 6)
    made.settle()
    gone = next(i for i in made.active() if i.host is not None)
    changed = replace(gone, desired=Desired.REMOVED)
    made.put(changed)
    assert made.plan().retry_at is None
    cluster, changes = made.cluster.apply((), (changed,), made.cluster.revision + 1)
    assert ("service", "web") in {(k.kind, k.id) for c in changes for k in keys_of(cluster, c)}
    made.cluster = cluster
    made.step()
    assert len([i for i in made.active() if i.host is not None]) == 5


def test_room_is_looked_for_on_all_hosts_and_counted_on_each() -> None:
    made = rig(LAN, 12, hosts=2)
    made.settle()
    assert pending(made) == ["no host: 2 hosts: 2 without a free address in network lan"] * 2
    assert {sum(i.host == h for i in made.active()) for h in ("h1", "h2")} == {5}


def test_those_that_ended_hold_no_address_but_for_one_that_they_asked_for() -> None:
    made = rig(LAN, 0)
    made.settle()
    world = World(statuses=made.statuses)

    def run(number: int, address: str = "") -> InstanceId:
        wish = Attachment(network="lan", ipv4=address)
        request = CreateInstance(spec=ContainerSpec(image="a", networks=(wish,)), start=True)
        ident = InstanceId(f"{number:x}" * 64)
        for item in instances.create(made.cluster, request, world, now=1.0, ident=ident).items:
            made.put(item.record)
        return ident

    for number in range(7):
        ended = run(number, "10.9.0.6" if number == 6 else "")
        made.statuses[ended] = InstanceStatus(instance=ended, phase=Phase.EXITED, attempt=9)
    for number in range(8, 12):
        run(number)
    with pytest.raises(Exhausted, match="no address free in network lan on host h1"):
        run(15)


def test_overlay_with_nothing_left_for_one_host_is_looked_for_on_another() -> None:
    made = rig(FAR, 1, hosts=2)
    for name in ("10.8.0.2/31", "10.8.0.4/31", "10.8.0.6/32"):
        made.put(Block(network=FAR.id, cidr=name, host=host(2).id, leased_at=0.0))
    made.step()
    assert [i.host for i in made.active()] == ["h2"]


def test_host_that_was_refused_for_its_addresses_keeps_what_else_it_has_free() -> None:
    made = Rig(
        replace(on(LAN, 6), placement=replace(spec().placement, reservations=Reservations(nano_cpus=10**9))),
        host(1),
    )
    made.put(LAN)
    made.settle()
    assert made.cluster.usage[host(1).id].nano_cpus == 5 * 10**9
    assert len(pending(made)) == 1


def test_hosts_that_are_out_of_the_question_are_told_beside_the_one_that_is_full() -> None:
    chosen = on(LAN, 6)
    made = Rig(
        replace(chosen, placement=replace(chosen.placement, constraints=("node.name==h1",))), host(1), host(2)
    )
    made.put(LAN)
    made.settle()
    assert pending(made) == [
        "no host: 2 hosts: 1 not matching node.name==h1, 1 without a free address in network lan; "
        "no address free in network lan on host h1 (5 are held)"
    ]


def shares(*subnets: str, last: float = 0.0) -> Rig:
    """A network of these subnets with a block of each on h1."""
    made = Rig(spec(), host(1), host(2))
    made.put(replace(FAR, spec=replace(FAR.spec, subnets=tuple(Subnet(cidr=cidr) for cidr in subnets))))
    leases = Leases(made.cluster, last)
    leases.ensure(made.cluster.networks[FAR.id], host(1).id)
    made.put(*(item.record for item in leases.items()))
    return made


@pytest.mark.parametrize("state", [HostState.UNKNOWN, HostState.LOST])
def test_host_that_fell_silent_while_it_was_short_gets_nothing(state: HostState) -> None:
    made = shares("10.8.0.0/24")
    short = frozenset({host(1).id})
    assert len(plan_network(made.cluster, FAR.id, 100.0, short).items) == 1
    made.put(host(1, state=state))
    assert plan_network(made.cluster, FAR.id, 100.0, short).empty


def test_host_that_is_short_gets_a_block_of_each_subnet_or_none() -> None:
    made = shares("10.8.0.0/24", "10.8.1.0/30")
    assert plan_network(made.cluster, FAR.id, 100.0, frozenset({host(1).id})).empty
