"""Who keeps a network from being removed, and what becomes of those whose network is gone."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from controller.commands import networks
from controller.snapshot import Cluster
from model.errors import InUse
from model.ids import NetworkId
from model.records import Desired, Network
from model.spec import Attachment, NetworkSpec, ServiceSpec, Subnet, UpdatePolicy
from model.status import Phase
from tests.support.servicerig import BRIDGE, Rig, host, reasons, spec

OLD, NEW = NetworkId("a" * 64), NetworkId("b" * 64)


def network(ident: NetworkId, name: str, cidr: str) -> Network:
    return Network(id=ident, spec=NetworkSpec(name=name, subnets=(Subnet(cidr=cidr),)), vni=4096)


def on(ref: str, image: str = "v1", **update: Any) -> ServiceSpec:
    made = spec(image, replicas=2)
    container = replace(made.container, networks=(Attachment(network=ref),))
    return replace(made, container=container, update=UpdatePolicy(**update))


def rig_on(ref: str, **update: Any) -> Rig:
    rig = Rig(on(ref, **update), host(1), host(2))
    rig.put(network(OLD, "old", "10.1.0.0/16"), network(NEW, "new", "10.2.0.0/16"))
    rig.step()
    rig.obey()
    return rig


def unused(cluster: Cluster) -> tuple[str, ...]:
    return networks.prune(cluster, lambda n: n.id != BRIDGE.id, 0.0)[1]


def test_network_that_outdated_replicas_run_on_is_in_use_until_they_are_gone() -> None:
    rig = rig_on("old")
    rig.now += 100
    rig.change(on("new", "v2"))
    with pytest.raises(InUse, match=r"network old is in use by container web\.1\.\S+, container web\.2\."):
        networks.remove(rig.cluster, "old", rig.now)
    assert unused(rig.cluster) == ()
    rig.settle()
    assert rig.images() == ["v2", "v2"] and unused(rig.cluster) == ("old",)


def test_network_that_a_service_names_by_a_prefix_of_its_id_is_in_use() -> None:
    rig = rig_on("aaaa")
    with pytest.raises(InUse, match=r"in use by service web\."):
        networks.remove(rig.cluster, "old", rig.now)
    assert unused(rig.cluster) == ("new",)


def test_replicas_kept_for_their_logs_use_no_network() -> None:
    rig = rig_on("old")
    [first, _] = rig.active()
    rig.says(first, Phase.EXITED, 1)
    rig.step()
    rig.now += 100
    rig.change(on("new", "v2"))
    rig.settle()
    [kept] = [i for i in rig.cluster.instances.values() if i.desired is Desired.STOPPED]
    assert kept.id == first.id and unused(rig.cluster) == ("old",)


def test_replica_whose_network_is_gone_waits_and_says_so() -> None:
    rig = rig_on("old", failure_action="pause")
    waiting = replace(rig.active()[0], host=None)
    rig.put(waiting)
    rig.cluster = rig.cluster.apply((), (rig.cluster.networks[OLD],), rig.cluster.revision + 1)[0]
    assert "no address: its network aaaaaaaaaaaa was removed" in reasons(rig.step())
    assert rig.cluster.instances[waiting.id].host is None
