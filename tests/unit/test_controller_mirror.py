"""What hosts tell of containers of their own, as the controller keeps it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from controller.mirror import Mirror
from controller.schedule.fleet import fleet_of
from controller.snapshot import Cluster
from model.errors import Ambiguous, NotFound
from model.factrules import MOST_WORDS
from model.ids import HostId, InstanceId, ServiceId
from model.own import MOST, OwnContainer, own_problems
from model.records import Desired, Instance
from model.reportrules import report_problems
from model.spec import ContainerSpec
from model.status import InstanceStatus, Phase
from model.wire import Report

A, B = HostId("a" * 64), HostId("b" * 64)


def _own(number: int, name: str = "", **words: Any) -> OwnContainer:
    ident = InstanceId(f"{number:064x}")
    spec = ContainerSpec(image="app:1")
    instance = Instance(id=ident, name=name or f"box{number}", spec=spec, **words)
    return OwnContainer(instance=instance, status=InstanceStatus(instance=ident, phase=Phase.RUNNING))


def _names(mirror: Mirror) -> set[str]:
    return {one.instance.name for one in mirror.all()}


def test_mirror_has_what_hosts_told_under_the_host_that_told() -> None:
    mirror = Mirror()
    mirror.greet(A, (_own(1), _own(2)))
    mirror.greet(B, (_own(3, host=A, service=ServiceId("s"), service_name="web", slot=3),))
    theirs = mirror.find("box3").instance
    assert (theirs.host, theirs.service, theirs.service_name, theirs.slot) == (B, None, "", 0)
    assert {host: len(own) for host, own in mirror.by_host.items()} == {A: 2, B: 1}


def test_mirror_follows_changes_and_forgets_what_is_gone() -> None:
    mirror = Mirror()
    mirror.greet(A, (_own(1), _own(2)))
    mirror.take(A, (_own(1, "crate"),), (_own(2).instance.id,))
    assert _names(mirror) == {"crate"}
    last = mirror.waits.last(_own(2).instance.id)
    assert last is not None and last.phase is Phase.REMOVED


def test_mirror_is_told_all_by_each_hello() -> None:
    mirror = Mirror()
    mirror.greet(A, (_own(1), _own(2)))
    mirror.greet(A, (_own(2), _own(3)))
    assert _names(mirror) == {"box2", "box3"}
    mirror.greet(A, ())
    assert not mirror.by_host


def test_mirror_of_a_host_that_left_is_empty() -> None:
    mirror = Mirror()
    mirror.greet(A, (_own(1),))
    mirror.greet(B, (_own(2),))
    mirror.forget(A)
    mirror.forget(A)
    assert _names(mirror) == {"box2"}


def test_mirror_takes_no_id_from_the_host_that_told_it_first() -> None:
    mirror = Mirror()
    mirror.greet(A, (_own(1, "mine"),))
    mirror.greet(B, (_own(1, "theirs"), _own(2)))
    mirror.take(B, (), (_own(1).instance.id,))
    assert mirror.find(_own(1).instance.id).instance.host == A
    mirror.forget(A)
    mirror.greet(B, (_own(1, "theirs"),))
    found = mirror.get(_own(1).instance.id)
    assert found is not None and found.instance.host == B


def test_mirror_finds_by_name_and_prefix_and_says_when_several_fit() -> None:
    mirror = Mirror()
    mirror.greet(A, (_own(1, "web"),))
    mirror.greet(B, (_own(2, "web"),))
    with pytest.raises(Ambiguous):
        mirror.find("web")
    with pytest.raises(NotFound):
        mirror.find("nobody")
    assert mirror.find(_own(2).instance.id).instance.host == B


def test_mirror_is_bounded_and_cuts_words() -> None:
    mirror = Mirror()
    many = tuple(_own(number) for number in range(MOST + 5))
    mirror.take(A, many[:MOST])
    mirror.take(A, many[MOST:])
    assert len(mirror.all()) == MOST
    long = _own(1)
    mirror.take(A, (replace(long, status=replace(long.status, message="x" * 10 * MOST_WORDS)),))
    told = mirror.get(long.instance.id)
    assert told is not None and len(told.status.message) == MOST_WORDS


@pytest.mark.parametrize(
    "told",
    [
        (_own(1, "a b"),),
        (_own(1, host=A, created_at=float("nan")),),
        (replace(_own(1), status=InstanceStatus(instance=InstanceId("c" * 64))),),
        (replace(_own(1), instance=replace(_own(1).instance, id=InstanceId("short"))),),
        (_own(1),) * (MOST + 1),
    ],
    ids=["name", "number", "another's status", "id", "too many"],
)
def test_what_a_host_tells_that_cannot_be_is_a_problem(told: tuple[OwnContainer, ...]) -> None:
    assert len(list(own_problems(told))) == 1


def test_time_that_no_date_has_is_a_problem_of_what_a_host_tells() -> None:
    report = Report(sequence=1, own=(_own(1, created_at=1e300),))
    assert [problem.path for problem in report_problems(report)] == ["times"]


def test_what_a_host_tells_that_can_be_is_none() -> None:
    assert not list(own_problems((_own(1, desired=Desired.STOPPED), _own(2))))


def test_scheduler_knows_no_host_by_what_only_its_own_containers_tell() -> None:
    assert not fleet_of(Cluster(), own={A: (_own(1).instance,)})
