"""Replicas on drained hosts: who leaves when, where the successor starts first."""

from __future__ import annotations

from msgspec.structs import replace

from model.ids import HostId
from model.spec import Availability
from model.status import Phase
from tests.support.servicerig import Rig, host, reasons, spec


def drained(rig: Rig, ident: str, availability: Availability = Availability.DRAIN) -> None:
    node = rig.cluster.hosts[HostId(ident)]
    rig.put(replace(node, spec=replace(node.spec, availability=availability)))


def test_start_first_leaves_a_drained_host_only_once_the_successor_serves_elsewhere() -> None:
    rig = Rig(spec(replicas=2, order="start-first"), host(1), host(2))
    rig.step()
    rig.obey("healthy")
    [old] = [i for i in rig.active() if i.host == "h1"]
    drained(rig, "h1")
    assert set(reasons(rig.step())) == {"host h1 is drained"}
    [new] = [i for i in rig.active() if i.id not in rig.statuses]
    assert new.host == "h2" and new.slot == old.slot and len(rig.active()) == 3
    rig.obey("starting")
    assert rig.plan().empty
    rig.says(new, Phase.RUNNING, health="healthy")
    assert list(reasons(rig.step())) == ["host h1 is drained"]
    rig.obey("healthy")
    assert rig.plan().empty and {i.host for i in rig.active()} == {"h2"}


def test_start_first_stays_on_a_drained_host_while_no_other_takes_it_and_says_so() -> None:
    rig = Rig(spec(replicas=1, order="start-first"), host(1))
    rig.step()
    rig.obey("healthy")
    [old] = rig.active()
    drained(rig, "h1")
    rig.step()
    assert old in rig.active() and "1 drained" in _messages(rig)[0]
    drained(rig, "h1", Availability.ACTIVE)
    rig.settle()
    assert [i.id for i in rig.ready()] == [old.id] and not _messages(rig), "the one that serves has the seat"


def test_one_that_serves_nobody_leaves_a_drained_host_at_once() -> None:
    rig = Rig(spec(replicas=1, order="start-first"), host(1), host(2))
    rig.step()
    rig.obey("starting")
    [old] = rig.active()
    assert old.host is not None
    drained(rig, old.host)
    rig.step()
    assert old.id not in {i.id for i in rig.active()}


def _messages(rig: Rig) -> list[str]:
    return [c.message for c in rig.service.conditions]
