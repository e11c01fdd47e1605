"""Paused hosts in updates of global services: they keep what they have, and nobody waits for them."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from model.ids import HostId
from model.records import Desired
from model.spec import Availability, ContainerSpec, Global, ServiceSpec, UpdatePolicy
from model.status import Phase
from tests.support.servicerig import ALWAYS, Rig, host


def everywhere(image: str, order: str) -> ServiceSpec:
    container = ContainerSpec(image=image, restart=ALWAYS)
    policy = UpdatePolicy(parallelism=1, order=order)  # type: ignore[arg-type]
    return ServiceSpec(name="web", container=container, mode=Global(), update=policy)


def turned(rig: Rig, number: int, availability: Availability) -> None:
    record = rig.cluster.hosts[HostId(f"h{number}")]
    rig.put(replace(record, spec=replace(record.spec, availability=availability)))


def there(rig: Rig) -> dict[str | None, str]:
    return {i.host: i.spec.image for i in rig.ready()}


@pytest.mark.parametrize("order", ["stop-first", "start-first"])
def test_paused_host_keeps_its_instance_in_an_update_and_gets_the_new_one_later(order: str) -> None:
    rig = Rig(everywhere("v1", order), host(1), host(2), host(3))
    rig.settle()
    turned(rig, 1, Availability.PAUSE)
    rig.change(everywhere("v2", order))
    for _ in range(9):
        rig.step()
        rig.obey()
        rig.now += 5
    assert there(rig) == {"h1": "v1", "h2": "v2", "h3": "v2"} and len(rig.active()) == 3
    assert rig.service.rollout is not None and rig.service.rollout.state == "completed"
    assert rig.plan().empty
    turned(rig, 1, Availability.ACTIVE)
    rig.settle()
    assert set(there(rig).values()) == {"v2"} and len(rig.active()) == 3


@pytest.mark.parametrize("order", ["stop-first", "start-first"])
def test_host_that_is_paused_in_the_middle_of_an_update_delays_no_other(order: str) -> None:
    rig = Rig(everywhere("v1", order), host(1), host(2), host(3))
    rig.settle()
    rig.change(everywhere("v2", order))
    rig.step()
    every = rig.cluster.instances.values()
    [first] = {i.host for i in every if i.spec.image == "v2" or i.desired is Desired.REMOVED}
    turned(rig, int(str(first)[1:]), Availability.PAUSE)
    for _ in range(9):
        rig.step()
        for instance in rig.active():
            if instance.id not in rig.statuses and instance.host == first:
                rig.says(instance, Phase.PREPARING)
        rig.obey()
        rig.now += 5
    assert [there(rig)[h] for h in ("h1", "h2", "h3") if h != first] == ["v2", "v2"]
