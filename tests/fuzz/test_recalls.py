"""What a host recalls comes from a machine that may have been taken over: others keep what is theirs."""

from __future__ import annotations

import ipaddress
import os
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from controller.recall import plan_recall
from controller.snapshot import Cluster, key_of
from model.codec import decode_wire, encode_wire
from model.ids import HostId, InstanceId, NetworkId, ServiceId
from model.records import Block, Desired, Instance, ResolvedAttachment, Service
from model.spec import ContainerSpec, NetworkSpec, ServiceSpec, Subnet
from model.status import InstanceStatus, Phase
from model.view import NetworkView, View
from model.wire import Recall, decode_agent
from tests.unit.test_controller_recall import WEB, A, B, N, container, fleet

EXAMPLES = 5000 if os.environ.get("FLOTA_FULL") == "1" else 300
cidrs = st.builds(
    lambda third, prefix: str(ipaddress.ip_network(f"10.128.{third}.0/{prefix}", strict=False)),
    st.integers(0, 8),
    st.integers(20, 32),
) | st.sampled_from(["", "x", "0.0.0.0/0", "::/0", "10.128.0.5/24", "fd00::/64", "10.200.0.0/24"])
idents = st.sampled_from([f"{n:064x}" for n in range(1, 6)]) | st.just("../x")
networks = st.sampled_from([N, NetworkId("7" * 64), NetworkId("")])
names = st.sampled_from(["c3", "c3", "c1", "net", "", "a" * 200, "../x"])
specs = st.builds(
    lambda name, cidr: NetworkSpec(name=name, subnets=(Subnet(cidr=cidr),) if cidr else ()), names, cidrs
)
instances = st.builds(
    lambda ident, name, host, desired, revision, network, service, fixed: Instance(
        id=InstanceId(ident),
        name=name,
        spec=ContainerSpec(image="box:1"),
        host=host,
        desired=desired,
        revision=revision,
        service=service,
        attachments=(ResolvedAttachment(network=network, ipv4=fixed),),
    ),
    idents,
    names,
    st.sampled_from([A, B, None, HostId("c" * 64)]),
    st.sampled_from(list(Desired)),
    st.integers(-1, 1 << 40),
    networks,
    st.sampled_from([None, WEB, ServiceId("9" * 64)]),
    st.sampled_from(["", "10.128.0.9", "10.128.3.9", "x"]),
)
views = st.builds(
    lambda ident, spec, vni, blocks, singles, fixed, vips: NetworkView(
        id=ident,
        spec=spec,
        vni=vni,
        blocks=tuple(blocks),
        singles=tuple(singles),
        fixed={InstanceId(who): address for who, address in fixed.items()},
        vip_ranges=tuple(vips),
    ),
    networks,
    specs,
    st.sampled_from([0, 4096, 4100, -1]),
    st.lists(cidrs, max_size=4),
    st.lists(st.sampled_from(["10.128.0.9/32", "10.128.3.9/32", "x", "10.128.0.0/16"]), max_size=3),
    st.dictionaries(idents, st.sampled_from(["10.128.0.9", "10.128.3.9"]), max_size=2),
    st.lists(cidrs, max_size=1),
)
recalls = st.builds(
    lambda every, known, revision, there, fleet_id: Recall(
        view=View(
            revision=revision,
            fleet_id=fleet_id,
            instances={i.id: i for i in every},
            networks={n.id: n for n in known},
        ),
        statuses=tuple(InstanceStatus(instance=InstanceId(i), phase=Phase.RUNNING) for i in there),
    ),
    st.lists(instances, max_size=5),
    st.lists(views, max_size=3),
    st.integers(-1, 1 << 40),
    st.lists(idents, max_size=3),
    st.sampled_from(["", "f", "g"]),
)


def before() -> Cluster:
    service = Service(id=WEB, spec=ServiceSpec(name="web", container=ContainerSpec(image="x")), revision=5)
    fixed = Block(network=N, cidr="10.128.0.9/32", host=B, holder=f"{3:064x}", revision=6)
    replica = replace(container(4), service=WEB, slot=1)
    return fleet(service, fixed, container(1), container(2), container(3, host=B), replica)


@settings(max_examples=EXAMPLES, deadline=None)
@given(recalls)
def test_host_that_recalls_anything_changes_nothing_of_others(recall: Recall) -> None:
    message = decode_agent(encode_wire(recall))
    assert isinstance(message, Recall)
    cluster = before()
    plan, _ = plan_recall(cluster, A, {A: message}, 9.0)
    for item in plan.items:
        old = cluster.get(key_of(item.record))
        assert item.record.revision == (old.revision if old is not None else 0)
        for record in filter(None, (old, None if item.delete else item.record)):
            if isinstance(record, Instance | Block):
                assert record.host == A, f"{item} is about another host"
        decode_wire(encode_wire(item.record), type(item.record))
    after, _ = cluster.apply(
        (i.record for i in plan.items if not i.delete),
        (i.record for i in plan.items if i.delete),
        cluster.revision + 1,
    )
    assert after.services == cluster.services and after.hosts == cluster.hosts
    assert after.settings.recovery is not None and after.settings.recovery.awaited == (B,)
    for network, blocks in after.blocks_by_network.items():
        subnets = [ipaddress.ip_network(s.cidr) for s in after.networks[network].spec.subnets]
        for fixed in (False, True):
            ranges = [ipaddress.ip_network(b.cidr) for b in blocks.values() if bool(b.holder) is fixed]
            assert not any(a.overlaps(b) for a, b in combinations(ranges, 2))
            assert all(any(r.version == s.version and r.subnet_of(s) for s in subnets) for r in ranges)
    held = [i.name for i in after.instances.values() if i.desired is not Desired.REMOVED]
    assert len(held) == len(set(held)), "two have one name"
