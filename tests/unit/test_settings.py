"""The fleet's settings: what can be changed, what is refused, and how hosts hear of it."""

from __future__ import annotations

from typing import Any

import pytest

from controller.addressing import free_vni
from controller.commands.settings import update
from controller.snapshot import Cluster
from controller.views import view_of
from model.api import UpdateSettings
from model.errors import InUse, InvalidInput
from model.ids import HostId, InstanceId
from model.records import FleetSettings, Instance
from model.spec import ContainerSpec, Publish
from model.view import View, apply, diff
from net.backend.vxlan import VxlanBackend
from net.kernel.tunnel import words
from net.naming import vxlan_name
from net.plan import scene_of
from tests.support.netplans import NETWORK, plan


def cluster_of(*records: Any) -> Cluster:
    return Cluster().apply((FleetSettings(fleet_id="f", revision=1), *records), (), 1)[0]


def test_what_is_given_is_changed_and_nothing_else() -> None:
    (item,) = update(cluster_of(), UpdateSettings(vni_range=(5000, 5001)), 1.0).items
    assert item.record == FleetSettings(fleet_id="f", revision=1, vni_first=5000, vni_last=5001)
    assert update(cluster_of(), UpdateSettings(vxlan_port=4789), 1.0).empty


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        (UpdateSettings(vxlan_port=0), "is no port"),
        (UpdateSettings(vxlan_port=65536), "is no port"),
        (UpdateSettings(vni_range=(0, 9)), "no range of VNIs"),
        (UpdateSettings(vni_range=(1, 1 << 24)), "no range of VNIs"),
        (UpdateSettings(vni_range=(9, 8)), "no range of VNIs"),
        (UpdateSettings(source_ports=(0, 9)), "no range of source ports"),
        (UpdateSettings(source_ports=(2000, 1999)), "no range of source ports"),
        (UpdateSettings(source_ports=(2000, 65536)), "no range of source ports"),
    ],
)
def test_settings_that_can_not_be(request_: UpdateSettings, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        update(cluster_of(), request_, 1.0)


def test_a_port_that_somebody_publishes_is_not_for_tunnels() -> None:
    spec = ContainerSpec(image="x", ports=(Publish(target=53, published=8472, protocol="udp"),))
    box = Instance(id=InstanceId("a"), name="dns", spec=spec)
    with pytest.raises(InUse, match="8472/udp is published by container dns"):
        update(cluster_of(box), UpdateSettings(vxlan_port=8472), 1.0)
    assert update(cluster_of(box), UpdateSettings(vxlan_port=53), 1.0).items


def test_new_networks_get_numbers_of_the_range() -> None:
    cluster = cluster_of(FleetSettings(fleet_id="f", vni_first=77, vni_last=78, revision=2))
    assert free_vni(cluster) == 77


def test_hosts_hear_of_ports_by_difference() -> None:
    before = view_of(cluster_of(), HostId("h"))
    changed = FleetSettings(fleet_id="f", vxlan_port=8472, source_ports=(40000, 40009), revision=2)
    after = view_of(cluster_of(changed), HostId("h"))
    delta = diff(before, after)
    assert (delta.vxlan_port, delta.source_ports) == (8472, (40000, 40009))
    assert apply(delta, before) == after and diff(after, after).source_ports is None
    assert View().source_ports == (0, 0)


def test_source_ports_are_the_tunnels() -> None:
    from msgspec.structs import replace

    whole = replace(plan(), source_ports=(40000, 40009))
    state = VxlanBackend().fragment(whole.networks[NETWORK], scene_of(whole))
    vxlan = state.links[vxlan_name(NETWORK)].vxlan
    assert vxlan is not None and vxlan.source_ports == (40000, 40009)
    assert words(vxlan)["vxlan_port_range"] == {"low": 40000, "high": 40009}
    assert "vxlan_port_range" not in words(replace(vxlan, source_ports=(0, 0)))
