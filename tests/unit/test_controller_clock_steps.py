"""The controller's wall clock is set back: nothing waits until it is where it was."""

from __future__ import annotations

import pytest

from controller.addressing import QUARANTINE, Leases
from controller.reconcile.network import PATIENCE, plan_network
from model.ids import NetworkId
from model.records import Block, Host, Network
from model.spec import NetworkSpec, ServiceSpec, Subnet
from model.status import Phase
from tests.support.servicerig import Rig, host, reasons, spec

HOUR = 3600.0
BLUE = Network(id=NetworkId("blue"), spec=NetworkSpec(name="blue", subnets=(Subnet(cidr="10.8.0.0/16"),)))


def rig_of(service: ServiceSpec, *hosts: Host) -> Rig:
    rig = Rig(service, *hosts)
    rig.now = 1e9
    return rig


def fail(rig: Rig) -> float | None:
    """Its one instance ends; when the next one may come, if not at once."""
    [one] = rig.active()
    rig.says(one, Phase.EXITED, 1)
    return rig.step().retry_at


def test_failed_replica_is_replaced_after_the_clock_was_set_back_and_ever_more_slowly() -> None:
    rig = rig_of(spec(replicas=1), host(1))
    rig.step()
    for wait in (1.0, 4.0, 16.0):
        assert fail(rig) == rig.now + wait
        rig.now += wait
        rig.step()
    rig.now -= HOUR
    fail(rig)
    assert len(rig.active()) == 1, "what is known of the last one is no time to wait for"
    for _ in range(3):
        assert fail(rig) == rig.now + 60.0, "it has failed as often as before"
        rig.now += 60.0
        rig.step()


def test_update_goes_on_and_completes_after_the_clock_was_set_back() -> None:
    rig = rig_of(spec(replicas=2), host(1), host(2))
    rig.settle()
    rig.now += 100
    rig.change(spec("v2", replicas=2, delay=10.0, monitor=5.0))
    rig.step()
    rig.obey()
    rig.step()
    rig.obey()
    rig.now -= HOUR
    for _ in range(4):
        rig.step()
        rig.obey()
    assert rig.images() == ["v2", "v2"]
    rig.now += 10.0
    rig.settle()
    assert rig.service.rollout is not None and rig.service.rollout.state == "completed"


@pytest.mark.parametrize("step", [0.0, -HOUR])
def test_update_that_fails_is_taken_back_though_the_clock_was_set_back(step: float) -> None:
    policy = {"failure_action": "rollback", "parallelism": 1}
    rig = rig_of(spec(replicas=2, **policy), host(1))
    rig.settle()
    rig.now += 100
    rig.change(spec("v2", replicas=2, **policy))
    rig.now += step
    rig.step()
    rig.obey()
    rig.step()
    [new] = [i for i in rig.active() if i.spec.image == "v2"]
    rig.says(new, Phase.EXITED, 1)
    rig.step()
    assert rig.service.rollout is not None and rig.service.rollout.state == "rollback_started"


def test_what_failed_before_an_update_went_on_says_nothing_against_it() -> None:
    rig = rig_of(spec(replicas=1), host(1))
    rig.settle()
    rig.change(spec("v2", replicas=1))
    rig.step()
    rig.obey()
    rig.step()
    [new] = rig.active()
    rig.says(new, Phase.EXITED, 1)
    rig.step()
    assert rig.service.rollout is not None and rig.service.rollout.state == "paused"
    rig.change(spec("v2", replicas=1))
    rig.step()
    assert rig.service.rollout is not None and rig.service.rollout.state == "updating"


def short_rig() -> Rig:
    rig = rig_of(spec(), host(1))
    rig.put(BLUE)
    leases = Leases(rig.cluster, rig.now)
    leases.ensure(BLUE, host(1).id)
    rig.put(*(item.record for item in leases.items()))
    return rig


def test_host_that_is_short_gets_a_block_though_the_clock_was_set_back_and_then_has_time() -> None:
    rig, short = short_rig(), frozenset({host(1).id})
    rig.now -= HOUR
    plan = plan_network(rig.cluster, BLUE.id, rig.now, short)
    assert len(plan.items) == 1
    rig.put(*(item.record for item in plan.items))
    later = plan_network(rig.cluster, BLUE.id, rig.now + 1.0, short)
    assert later.empty and later.retry_at == rig.now + PATIENCE


def test_quarantine_ends_in_time_though_the_clock_was_set_back() -> None:
    rig = rig_of(spec(), host(1))
    rig.put(BLUE)
    until = rig.now + QUARANTINE
    rig.put(Block(network=BLUE.id, cidr="10.8.0.0/24", host=host(9).id, quarantined_until=until))
    rig.now -= HOUR
    plan = plan_network(rig.cluster, BLUE.id, rig.now)
    assert list(reasons(plan)) == ["the clock was set back since its quarantine began"]
    assert plan.retry_at == rig.now + QUARANTINE
    rig.put(*(item.record for item in plan.items))
    done = plan_network(rig.cluster, BLUE.id, rig.now + QUARANTINE)
    assert [item.delete for item in done.items] == [True]
