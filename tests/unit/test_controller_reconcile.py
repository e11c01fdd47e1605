"""The reconcilers: what to make and retire, and in which order."""

from __future__ import annotations

from itertools import pairwise

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.reconcile.seats import HISTORY
from model.ids import HostId
from model.records import Desired
from model.spec import Availability, ContainerSpec, Global, HostSpec, ServiceSpec
from model.status import HostState, Phase
from tests.support.servicerig import ALWAYS, WEB, Rig, host, reasons, spec


def test_service_gets_its_replicas_and_then_rests() -> None:
    rig = Rig(spec(replicas=3), host(1), host(2))
    plan = rig.step()
    assert list(reasons(plan)) == ["3 replicas are wanted"] * 3
    assert [i.slot for i in rig.active()] == [1, 2, 3]
    assert rig.plan().empty, "a second pass has nothing to do"


def test_scaling_down_retires_the_highest_places() -> None:
    rig = Rig(spec(replicas=3), host(1))
    rig.settle()
    rig.change(spec(replicas=1))
    plan = rig.step()
    assert sorted(reasons(plan)) == ["the service has no place 2", "the service has no place 3"]
    assert [i.slot for i in rig.active()] == [1]


def test_stop_first_update_takes_one_down_before_it_makes_one() -> None:
    rig = Rig(spec(replicas=3), host(1), host(2))
    rig.settle()
    rig.change(spec("v2", replicas=3))
    least = 3
    for _ in range(20):
        rig.step()
        serving = [i for i in rig.active() if i.id in rig.statuses]
        least = min(least, len(serving))
        assert len(rig.active()) <= 3
        rig.obey()
    assert rig.images() == ["v2"] * 3 and least == 2


def test_start_first_update_never_serves_with_fewer() -> None:
    rig = Rig(spec(replicas=3, order="start-first"), host(1), host(2))
    rig.settle()
    rig.change(spec("v2", replicas=3, order="start-first"))
    for _ in range(20):
        rig.step()
        assert len([i for i in rig.active() if i.id in rig.statuses]) >= 3
        assert len(rig.active()) <= 4
        rig.obey()
    assert rig.images() == ["v2"] * 3


def test_parallel_update_replaces_so_many_at_a_time() -> None:
    rig = Rig(spec(replicas=6, parallelism=2), host(1))
    rig.settle()
    rig.change(spec("v2", replicas=6, parallelism=2))
    rig.step()
    assert len(rig.active()) == 4
    rig.settle()
    assert rig.images() == ["v2"] * 6


def test_update_waits_for_its_delay_between_batches() -> None:
    rig = Rig(spec(replicas=2, delay=10.0), host(1))
    rig.settle()
    rig.now += 100
    rig.change(spec("v2", replicas=2, delay=10.0))
    rig.settle()
    assert rig.images() == ["v2", "v1"] or rig.images() == ["v1", "v2"]
    plan = rig.plan()
    assert plan.empty and plan.retry_at == rig.now + 10
    rig.now += 10
    rig.settle()
    assert rig.images() == ["v2", "v2"]


def test_update_stops_at_the_first_that_does_not_run() -> None:
    rig = Rig(spec(replicas=3), host(1))
    rig.settle()
    rig.change(spec("bad", replicas=3))
    for _ in range(10):
        rig.step()
        for instance in rig.active():
            if instance.spec.image == "bad":
                rig.says(instance, Phase.FAILED)
        rig.obey()
    assert rig.images().count("v1") == 2, "the healthy ones are left alone"


def test_failing_instance_is_replaced_ever_more_slowly_with_bounded_history() -> None:
    rig = Rig(spec(replicas=1), host(1))
    rig.step()
    made: list[float] = []
    for _ in range(12):
        [instance] = rig.active()
        made.append(rig.now)
        rig.says(instance, Phase.EXITED, 1)
        plan = rig.step()
        assert not rig.active(), "not at once"
        assert plan.retry_at is not None
        rig.now = plan.retry_at
        rig.obey()
        rig.step()
    waits = [b - a for a, b in pairwise(made)]
    assert waits[:4] == [1.0, 4.0, 16.0, 60.0] and set(waits[4:]) == {60.0}
    history = [i for i in rig.cluster.instances.values() if i.desired is Desired.STOPPED]
    assert len(history) <= HISTORY + 1
    [condition] = rig.cluster.services[WEB].conditions
    assert condition.message == "an instance does not stay up: it exited with code 1"
    rig.obey()
    rig.now += 10
    rig.step()
    assert rig.cluster.services[WEB].conditions == (), "the last one has proven itself"


def test_instance_that_ended_as_its_policy_wants_is_left() -> None:
    rig = Rig(spec(replicas=1, condition="on-failure"), host(1))
    rig.step()
    [instance] = rig.active()
    rig.says(instance, Phase.EXITED, 0)
    assert rig.plan().empty
    rig.says(instance, Phase.EXITED, 3)
    assert "it exited with code 3" in reasons(rig.plan())


def test_instance_on_a_lost_host_is_replaced_elsewhere_and_kept_on_record() -> None:
    rig = Rig(spec(replicas=2), host(1), host(2))
    rig.settle()
    lost = msgspec.structs.replace(rig.cluster.hosts[HostId("h1")], state=HostState.LOST)
    rig.put(msgspec.structs.replace(lost, state_reason="no answer for 3 s"))
    plan = rig.step()
    assert "host h1 is lost: no answer for 3 s" in reasons(plan)
    assert [i.host for i in rig.active()] == ["h2", "h2"]
    leaving = [i for i in rig.cluster.instances.values() if i.desired is Desired.REMOVED]
    assert [i.host for i in leaving] == ["h1"], "its addresses are still held there"


def test_silent_host_keeps_its_instances() -> None:
    rig = Rig(spec(replicas=2), host(1), host(2))
    rig.settle()
    rig.put(msgspec.structs.replace(rig.cluster.hosts[HostId("h1")], state=HostState.UNKNOWN))
    assert rig.plan().empty


def test_drained_host_is_emptied_and_told_why() -> None:
    rig = Rig(spec(replicas=2), host(1), host(2))
    rig.settle()
    drained = HostSpec(name="h1", availability=Availability.DRAIN)
    rig.put(msgspec.structs.replace(rig.cluster.hosts[HostId("h1")], spec=drained))
    assert "host h1 is drained" in reasons(rig.step())
    rig.settle()
    assert [i.host for i in rig.active()] == ["h2", "h2"]


def test_service_without_room_waits_with_the_reason_and_one_record_per_seat() -> None:
    rig = Rig(spec(replicas=2), host(1, state=HostState.LOST))
    rig.step()
    assert rig.plan().empty
    assert [i.host for i in rig.active()] == [None, None]
    [condition] = rig.cluster.services[WEB].conditions
    assert condition.message == "2 instances wait for a host: 1 host: 1 lost"
    rig.put(host(2))
    rig.step()
    assert [i.host for i in rig.active()] == ["h2", "h2"]
    assert rig.cluster.services[WEB].conditions == ()


def test_global_service_has_one_on_each_fitting_host_and_survives_silence_and_loss() -> None:
    everywhere = ServiceSpec(name="web", container=ContainerSpec(image="v1", restart=ALWAYS), mode=Global())
    rig = Rig(everywhere, host(1), host(2), host(3, state=HostState.JOINING))
    rig.settle()
    assert sorted(str(i.host) for i in rig.active()) == ["h1", "h2"]
    rig.put(msgspec.structs.replace(rig.cluster.hosts[HostId("h1")], state=HostState.LOST))
    assert rig.plan().empty, "what belongs to a host is not moved"
    rig.put(msgspec.structs.replace(rig.cluster.hosts[HostId("h3")], state=HostState.READY))
    rig.settle()
    assert sorted(str(i.host) for i in rig.active()) == ["h1", "h2", "h3"]


def test_global_service_that_does_not_fit_waits_without_a_record() -> None:
    everywhere = ServiceSpec(name="web", container=ContainerSpec(image="v1", restart=ALWAYS), mode=Global())
    everywhere = msgspec.structs.replace(
        everywhere,
        placement=msgspec.structs.replace(
            everywhere.placement,
            reservations=msgspec.structs.replace(everywhere.placement.reservations, memory=1 << 40),
        ),
    )
    rig = Rig(everywhere, host(1))
    rig.step()
    assert rig.plan().empty and not rig.cluster.instances
    assert "lacks memory" in rig.cluster.services[WEB].conditions[0].message


def test_removed_service_goes_after_its_last_instance() -> None:
    rig = Rig(spec(replicas=2), host(1))
    rig.settle()
    rig.put(msgspec.structs.replace(rig.cluster.services[WEB], removed=True))
    rig.step()
    assert WEB in rig.cluster.services and not rig.active()
    rig.settle()
    assert WEB not in rig.cluster.services


PHASES = st.sampled_from([Phase.RUNNING, Phase.EXITED, Phase.FAILED, Phase.PULLING])
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("scale"), st.integers(0, 6)),
        st.tuples(st.just("image"), st.integers(1, 3)),
        st.tuples(st.just("phase"), PHASES),
        st.tuples(st.just("host"), st.sampled_from(list(HostState))),
        st.tuples(st.just("wait"), st.integers(0, 70)),
    ),
    max_size=14,
)


@given(ACTS, st.sampled_from(["stop-first", "start-first"]), st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_plans_never_exceed_the_count_and_always_come_to_rest(
    acts: list[tuple[str, object]], order: str, parallelism: int
) -> None:
    policy = {"order": order, "parallelism": parallelism, "failure_action": "continue"}
    rig = Rig(spec(replicas=2, **policy), host(1), host(2), host(3))
    replicas, image = 2, "v1"
    for verb, value in acts:
        if verb in ("scale", "image"):
            replicas = int(str(value)) if verb == "scale" else replicas
            image = f"v{value}" if verb == "image" else image
            rig.change(spec(image, replicas, **policy))
        elif verb == "phase" and rig.active():
            rig.says(rig.active()[-1], value, 1)  # type: ignore[arg-type]
        elif verb == "host":
            rig.put(msgspec.structs.replace(rig.cluster.hosts[HostId("h1")], state=value))
        elif verb == "wait":
            rig.now += float(str(value))
        rig.step()
        extra = replicas if order == "start-first" else 0
        assert len(rig.active()) <= replicas + extra
        rig.obey()
    for _ in range(8):
        rig.now += 61
        for instance in rig.active():
            if rig.statuses.get(instance.id, None) and rig.statuses[instance.id].phase is Phase.PULLING:
                rig.says(instance, Phase.RUNNING)
        rig.settle()
    assert len(rig.active()) == replicas
    assert set(rig.images()) <= {image}
    assert rig.plan().empty
