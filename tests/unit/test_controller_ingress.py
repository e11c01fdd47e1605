"""Published ports of services in the controller: numbers, entries, what each host is told."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import msgspec
import pytest
from msgspec.structs import replace

from controller import ingress
from controller.commands import connections, networks, services
from controller.keys import keys_of
from controller.placing import World
from controller.plan import Plan
from controller.reconcile.ingress import plan_ingress
from controller.reconcile.network import plan_network
from controller.reconcile.service import UNOPENED, UNPLACED, plan_service
from controller.schedule.fleet import fleet_of
from controller.snapshot import Change, Cluster, Key
from controller.store.base import stamped
from controller.views import affected, view_of
from model.api import UpdateService
from model.errors import Exhausted, InUse, InvalidInput, WrongState
from model.ids import HostId, InstanceId, ServiceId
from model.records import FleetSettings, Host, Instance, Network
from model.spec import (
    Attachment,
    ContainerSpec,
    HostSpec,
    NetworkSpec,
    Publish,
    Replicated,
    ServiceSpec,
    Subnet,
)
from model.status import HostFacts, HostReport, HostState
from model.view import service_key
from net.returnpath import MOST_ENTRIES

NET = ingress.NETWORK


def host(number: int, **labels: str) -> Host:
    facts = HostFacts(hostname=f"h{number}", address=f"192.0.2.{number}", nano_cpus=10**10, memory=1 << 33)
    spec = HostSpec(name=f"h{number}", labels=labels)
    return Host(id=HostId(f"{number:04}".ljust(64, "0")), spec=spec, facts=facts, state=HostState.READY)


def fleet(hosts: Iterable[Host], *more: Network) -> Cluster:
    records = (FleetSettings(fleet_id="f" * 32), *hosts, *more)
    return written(made := Cluster().apply(stamped(records, 1), (), 1)[0], networks.predefined(made, 1.0))


def port(published: int = 0, target: int = 80, **words: object) -> Publish:
    return Publish(target=target, published=published, mode="ingress", **words)  # type: ignore[arg-type]


def spec(name: str, *ports: Publish, count: int = 1, **words: object) -> ServiceSpec:
    container = ContainerSpec(image="x", ports=ports, **words)  # type: ignore[arg-type]
    return ServiceSpec(name=name, container=container, mode=Replicated(replicas=count))


def written(cluster: Cluster, plan: Plan) -> Cluster:
    puts = stamped([i.record for i in plan.items if not i.delete], cluster.revision + 1)
    deletes = [i.record for i in plan.items if i.delete]
    return cluster.apply(puts, deletes, cluster.revision + 1)[0]


def create(cluster: Cluster, wanted: ServiceSpec) -> Cluster:
    return written(cluster, services.create(cluster, wanted, now=1.0, ident=ServiceId(wanted.name)))


def settled(cluster: Cluster, now: float = 1.0) -> Cluster:
    """Once nothing is to be done about entries any more."""
    for _ in range(5):
        plan = plan_ingress(cluster, now)
        if plan.empty:
            return cluster
        cluster = written(cluster, plan)
    raise AssertionError("it does not settle")


def placed(cluster: Cluster, name: str) -> Cluster:
    ids = (f"{name}{n}".ljust(64, "0") for n in itertools.count())
    return written(cluster, plan_service(cluster, ServiceId(name), World(), 1.0, lambda: next(ids)))


def ports_told(cluster: Cluster, where: Host, name: str = "web") -> list[int]:
    found = view_of(cluster, where.id).services.get(service_key(NET, ServiceId(name)))
    return [] if found is None else [p.published for p in found.ports]


H1, H2, H3 = host(1), host(2, edge="true"), host(3)


def test_network_is_made_with_the_first_such_service_and_stays() -> None:
    cluster = fleet((H1, H2))
    assert create(cluster, spec("plain")).networks == cluster.networks
    after = create(cluster, spec("web", port(8080)))
    made = after.networks[NET]
    assert made.predefined and made.spec.internal and made.vni and not made.vip_ranges
    assert [s.cidr for s in made.spec.subnets] == ["10.128.0.0/16"], "of the pool, IPv4 alone"
    assert create(after, spec("other", port(8081))).networks[NET] == made


def test_service_that_waits_for_a_port_is_looked_at_when_another_gives_it_up() -> None:
    cluster = settled(create(fleet((H1,)), spec("web", port(8080))))
    taking = Publish(target=80, published=8080)
    cluster = placed(create(cluster, spec("taking", taking)), "taking")
    waiting = cluster.services[ServiceId("taking")]
    assert [c.type for c in waiting.conditions] == [UNPLACED]
    web = cluster.services[ServiceId("web")]
    moved = replace(web, ingress=(port(9090),))
    for change in (Change(old=web, new=replace(web, removed=True)), Change(old=web, new=moved)):
        after, (made,) = cluster.apply((change.new,), (), cluster.revision + 1)
        assert Key("service", "taking") in keys_of(after, made)
        assert placed(after, "taking").services[ServiceId("taking")].conditions == ()
    kept = Change(old=web, new=replace(web, ingress=(*web.ingress, port(9090))))
    assert Key("service", "taking") not in keys_of(cluster, kept)


def test_network_has_ipv6_if_the_fleet_has_and_gets_it_with_the_fleet() -> None:
    six = Network(
        id=ingress.NetworkId("six"), spec=NetworkSpec(name="six", subnets=(Subnet(cidr="fd00::/64"),))
    )
    before = settled(create(fleet((H1,)), spec("web", port(80))))
    assert not before.networks[NET].spec.ipv6
    after = settled(before.apply(stamped([six], 9), (), 9)[0])
    assert [":" in s.cidr for s in after.networks[NET].spec.subnets] == [False, True]
    assert len(view_of(after, H1.id).networks[NET].blocks) == 2
    assert create(fleet((H1,), six), spec("web", port(80))).networks[NET].spec.ipv6


def test_network_is_nobodys_to_make_remove_or_join() -> None:
    cluster = create(fleet((H1,)), spec("web", port(80)))
    with pytest.raises(InvalidInput, match="is taken"):
        networks.create(cluster, NetworkSpec(name="ingress"), now=1.0, ident=NET)
    with pytest.raises(WrongState, match="predefined"):
        networks.remove(cluster, "ingress", 1.0)
    with pytest.raises(InvalidInput, match="not for containers"):
        create(cluster, spec("x", networks=(Attachment(network="ingress"),)))


def test_port_of_another_service_is_refused_and_free_once_that_is_removed() -> None:
    cluster = create(fleet((H1,)), spec("web", port(8080)))
    with pytest.raises(InUse, match="8080/tcp is published by service web"):
        create(cluster, spec("other", port(8080)))
    udp = create(cluster, spec("dns", port(8080, protocol="udp")))
    assert udp.services[ServiceId("dns")].ingress[0].published == 8080
    gone = written(cluster, services.remove(cluster, "web", 2.0))
    assert create(gone, spec("other", port(8080))).services[ServiceId("other")].ingress


def test_number_that_nobody_chose_is_free_in_the_fleet_and_kept() -> None:
    cluster = create(fleet((H1,)), spec("a", port(30000), port(0, 81), port(0, 82)))
    assert [p.published for p in cluster.services[ServiceId("a")].ingress] == [30000, 30001, 30002]
    cluster = create(cluster, spec("b", port(), port(30001, published_to=30009)))
    b = cluster.services[ServiceId("b")]
    assert [p.published for p in b.ingress] == [30003, 30004] and b.spec.container.ports[0].published == 0
    request = UpdateService(spec=spec("b", port(0, 99), port()))
    after = written(cluster, services.update(cluster, "b", request, 2.0))
    kept = {p.target: p.published for p in after.services[ServiceId("b")].ingress}
    assert kept[80] == 30003 and kept[99] not in (30000, 30001, 30002, 30003)


def test_number_of_the_fleets_choice_is_no_containers_host_port() -> None:
    spec_ = ContainerSpec(image="x", ports=(Publish(target=1, published=30000),))
    box = Instance(id=InstanceId("b" * 64), name="box", spec=spec_)
    cluster = create(fleet((H1,)).apply(stamped([box], 2), (), 2)[0], spec("web", port()))
    assert [p.published for p in cluster.services[ServiceId("web")].ingress] == [30001]


def test_numbers_run_out_with_a_word() -> None:
    full = spec("full", *(port(n) for n in range(ingress.FIRST_PORT, ingress.LAST_PORT + 1)))
    with pytest.raises(Exhausted, match="no tcp port of 30000 to 32767"):
        create(create(fleet((H1,)), full), spec("more", port()))


def test_every_host_is_an_entry_with_a_number_of_its_own_that_stays() -> None:
    cluster = settled(create(fleet((H1, H2)), spec("web", port(80))))
    numbers = {h.id: ingress.entry_number(cluster, h.id) for h in (H1, H2)}
    assert sorted(numbers.values()) == [1, 2]
    first = host(0)
    more = settled(cluster.apply(stamped([first], 9), (), 9)[0])
    assert ingress.entry_number(more, first.id) == 3, "though its id comes first"
    assert {h.id: ingress.entry_number(more, h.id) for h in (H1, H2)} == numbers
    peers = {p.host: p.number for p in view_of(more, H1.id).networks[NET].peers}
    assert peers == {H2.id: numbers[H2.id], first.id: 3}


def test_entries_are_no_more_than_rules_may_be_and_that_is_said() -> None:
    cluster = settled(create(fleet(host(n) for n in range(1, MOST_ENTRIES + 6)), spec("web", port(80))))
    numbers = [b.number for b in cluster.blocks_of(NET).values()]
    assert sorted(numbers) == list(range(1, MOST_ENTRIES + 1))
    (words,) = ingress.unopened(cluster, cluster.services[ServiceId("web")], {})
    assert words == "port 80/tcp is open on 64 of 69 hosts: choose by on="


def test_port_is_open_on_chosen_hosts_and_follows_their_labels() -> None:
    chosen = port(80, on=("node.labels.edge==true",))
    cluster = settled(create(fleet((H1, H2, H3)), spec("web", chosen)))
    assert [ports_told(cluster, h) for h in (H1, H2, H3)] == [[], [80], []]
    assert {b.host for b in cluster.blocks_of(NET).values()} == {H2.id}
    labelled = msgspec.structs.replace(H1, spec=HostSpec(name="h1", labels={"edge": "true"}))
    after, changes = cluster.apply(stamped([labelled], 9), (), 9)
    assert H1.id in (affected(after, changes[0]) or set())
    assert [ports_told(settled(after), h) for h in (H1, H2, H3)] == [[80], [80], []]
    nowhere = create(cluster, spec("lost", port(81, on=("node.labels.edge==no",))))
    assert list(ingress.unopened(nowhere, nowhere.services[ServiceId("lost")], {})) == [
        "port 81/tcp is open nowhere: no host has node.labels.edge==no"
    ]


def test_hosts_leave_the_network_when_nothing_is_published_there() -> None:
    cluster = settled(create(fleet((H1, H2)), spec("web", port(80))))
    gone = settled(written(cluster, services.remove(cluster, "web", 2.0)), 5.0)
    assert NET not in view_of(gone, H1.id).networks
    assert all(b.quarantined_until == 65.0 and b.number for b in gone.blocks_of(NET).values())
    back = settled(create(gone, spec("again", port(80))), 6.0)
    assert all(not b.quarantined_until for b in back.blocks_of(NET).values())


def test_host_with_an_instance_stays_in_the_network_without_a_number() -> None:
    cluster = placed(settled(create(fleet((H1,)), spec("web", port(80)))), "web")
    edge = UpdateService(spec=spec("web", port(80, on=("node.labels.edge==true",))))
    after = settled(written(cluster, services.update(cluster, "web", edge, 2.0)))
    (block,) = after.blocks_of(NET).values()
    assert (block.number, block.quarantined_until) == (0, 0.0)


def test_instances_stand_on_the_network_last_and_know_nothing_of_the_ports() -> None:
    mixed = spec("web", port(80), Publish(target=81, published=8081))
    cluster = placed(settled(create(fleet((H1,)), mixed)), "web")
    (instance,) = cluster.instances.values()
    assert [a.network for a in instance.attachments] == ["bridge", NET]
    assert [p.target for p in instance.spec.ports] == [81]


def test_changed_ports_replace_nobody_and_move_feet_only_when_the_first_comes_or_the_last_goes() -> None:
    cluster = fleet((H1,))
    cluster = placed(create(cluster, spec("web")), "web")
    (before,) = cluster.instances.values()
    for ports, feet in (((port(80),), 2), ((port(81), port(82)), 2), ((), 1)):
        request = UpdateService(spec=spec("web", *ports))
        cluster = settled(written(cluster, services.update(cluster, "web", request, 2.0)))
        cluster = placed(cluster, "web")
        (instance,) = cluster.instances.values()
        assert (instance.id, len(instance.attachments)) == (before.id, feet)
        assert [p.published for p in cluster.services[ServiceId("web")].ingress] == [
            p.published for p in ports
        ]


def test_network_and_foot_of_a_service_without_networks() -> None:
    lone = spec("web", port(80), networks=(Attachment(network="none"),))
    cluster = placed(settled(create(fleet((H1,)), lone)), "web")
    assert [[a.network for a in i.attachments] for i in cluster.instances.values()] == [[NET]]
    for wrong in (
        spec("x", port(80), networks=(Attachment(network="host"),)),
        spec("x", Publish(target=80), networks=(Attachment(network="none"),)),
    ):
        with pytest.raises(InvalidInput, match="can't be published with network mode"):
            create(cluster, wrong)


def test_scheduler_counts_them_as_taken_for_others_and_not_for_replicas() -> None:
    cluster = fleet((H1,))
    cluster = settled(create(cluster, spec("web", port(80), count=3)))
    assert [i.host for i in placed(cluster, "web").instances.values()] == [H1.id] * 3
    taken = fleet_of(cluster)[H1.id].taken_port([("tcp", 80, "")])
    assert taken == ("tcp", 80, "") and fleet_of(cluster)[H1.id].taken_port([("udp", 80, "")]) is None


def test_what_a_host_cannot_open_stands_against_the_service_by_name() -> None:
    cluster = settled(create(fleet((H1, H2)), spec("web", port(8080), count=0)))
    world = World(reports={H2.id: HostReport(host=H2.id, unpublished=(("tcp", 8080), ("udp", 1)))})
    after = written(cluster, plan_service(cluster, ServiceId("web"), world, 3.0, lambda: "i" * 64))
    (condition,) = after.services[ServiceId("web")].conditions
    assert condition.type == UNOPENED
    assert condition.message == "port 8080/tcp is not open on h2: somebody else has it there"
    well = written(after, plan_service(after, ServiceId("web"), World(), 4.0, lambda: "i" * 64))
    assert well.services[ServiceId("web")].conditions == ()


def test_change_of_ports_is_told_to_all_entries() -> None:
    cluster = settled(create(fleet((H1, H2)), spec("web", port(80))))
    plan = services.update(cluster, "web", UpdateService(spec=spec("web", port(81))), 2.0)
    after, changes = cluster.apply(stamped([i.record for i in plan.items], 9), (), 9)
    assert affected(after, changes[0]) == {H1.id, H2.id}
    assert [ports_told(after, h) for h in (H1, H2)] == [[81], [81]]
    assert ports_told(written(after, services.remove(after, "web", 3.0)), H1) == []


def test_plain_container_publishes_on_its_own_host_only() -> None:
    instance = Instance(id=InstanceId("i" * 64), name="box", spec=ContainerSpec(image="x"))
    cluster = fleet((H1,)).apply(stamped([instance], 2), (), 2)[0]
    request = connections.UpdatePorts(add=(port(80),))
    with pytest.raises(InvalidInput, match="only services publish on every host"):
        connections.update_ports(cluster, "box", request, World(), 1.0)


def test_blocks_come_before_entries_and_both_are_looked_at_until_nothing_is_left() -> None:
    cluster = settled(create(fleet((H1,)), spec("web", port(80))))
    (block,) = cluster.blocks_of(NET).values()
    over = msgspec.structs.replace(block, quarantined_until=5.0)
    cluster = cluster.apply(stamped([over], 9), (), 9)[0]
    blocks = plan_network(cluster, NET, 6.0)
    first = plan_ingress(cluster, 6.0, blocks)
    assert (first.items, first.retry_at) == (blocks.items, 6.0) and first.items[0].delete
    cluster = written(cluster, first)
    second = plan_ingress(cluster, 6.0, plan_network(cluster, NET, 6.0))
    assert second.retry_at == 6.0 and ingress.entry_number(written(cluster, second), H1.id) == 1
    assert plan_ingress(settled(cluster), 6.0, Plan(retry_at=9.0)) == Plan(retry_at=9.0)


def test_number_of_a_resting_block_is_nobody_elses() -> None:
    cluster = settled(create(fleet((H1,)), spec("web", port(80))))
    (block,) = cluster.blocks_of(NET).values()
    rests = msgspec.structs.replace(block, quarantined_until=99.0)
    cluster = cluster.apply(stamped([rests, H2], 9), [H1], 9)[0]
    after = settled(cluster, 9.0)
    assert ingress.entry_number(after, H2.id) == 2
