"""Rollouts by readiness: who waits for whom, what pauses them, and the way back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from controller.commands.services import rollback, update
from model.api import UpdateService
from model.errors import WrongState
from model.ids import HostId
from model.records import Desired
from model.spec import ContainerSpec, Global, Replicated, ServiceSpec, UpdatePolicy
from model.status import HostState, Phase
from tests.support.servicerig import ALWAYS, WEB, Rig, host, reasons, spec


def rolling(replicas: int = 3, health: Any = "healthy", **policy: Any) -> Rig:
    """A service of so many ready replicas that has just been changed to v2."""
    rig = Rig(spec(replicas=replicas, **policy), host(1), host(2))
    rig.step()
    rig.obey(health)
    rig.now += 100
    rig.change(spec("v2", replicas=replicas, **policy))
    return rig


def fresh(rig: Rig) -> list[Any]:
    return [i for i in rig.active() if i.spec.image == "v2"]


def messages(rig: Rig) -> list[str]:
    return [c.message for c in rig.service.conditions]


def back(rig: Rig) -> None:
    [item] = rollback(rig.cluster, WEB, rig.now).items
    rig.put(item.record)


def test_next_replica_waits_until_the_new_one_is_healthy_not_only_running() -> None:
    rig = rolling()
    for _ in range(4):
        rig.step()
        rig.obey("starting")
    assert rig.images() == ["v2", "v1", "v1"]
    assert len(rig.ready()) == 2 and rig.plan().empty
    rig.says(fresh(rig)[0], Phase.RUNNING, health="healthy")
    rig.step()
    assert rig.images() == ["v2", "v1"], "the next is on its way out"


def test_start_first_keeps_the_old_one_until_its_successor_is_healthy() -> None:
    rig = rolling(replicas=2, order="start-first")
    rig.step()
    rig.obey("starting")
    assert rig.plan().empty and sorted(rig.images()) == ["v1", "v1", "v2"]
    rig.says(fresh(rig)[0], Phase.RUNNING, health="healthy")
    plan = rig.step()
    assert "its successor is ready" in reasons(plan) and len(rig.ready()) == 2


def test_one_whose_ports_are_still_closed_does_not_count() -> None:
    rig = rolling(replicas=1, order="start-first")
    rig.step()
    [new] = fresh(rig)
    rig.says(new, Phase.RUNNING, opening=True)
    assert rig.plan().empty
    rig.says(new, Phase.RUNNING)
    assert "its successor is ready" in reasons(rig.plan())


def test_unhealthy_instance_is_replaced_ever_more_slowly_and_the_condition_says_why() -> None:
    rig = Rig(spec(replicas=1), host(1))
    rig.step()
    rig.obey("healthy")
    [first] = rig.active()
    rig.says(first, Phase.RUNNING, health="unhealthy", health_message="no answer")
    plan = rig.step()
    assert plan.items[0].reason == "it is unhealthy: no answer"
    assert messages(rig) == ["an instance does not stay up: it is unhealthy: no answer"]
    assert not rig.active(), "the old one goes first, by stop-first"
    rig.says(first, Phase.EXITED, 143)
    rig.now += 1
    assert list(reasons(rig.step())) == ["the last one is unhealthy: no answer"]
    [second] = rig.active()
    rig.says(second, Phase.RUNNING, health="unhealthy", health_message="no answer")
    rig.step()
    rig.says(second, Phase.EXITED, 143)
    assert rig.step().retry_at == second.created_at + 4.0


def test_condition_of_an_unhealthy_service_stays_until_it_is_healthy_again() -> None:
    rig = Rig(spec(replicas=1), host(1))
    rig.step()
    [first] = rig.active()
    rig.says(first, Phase.RUNNING, health="unhealthy")
    rig.step()
    rig.says(first, Phase.EXITED, 143)
    rig.now += 1
    rig.step()
    rig.obey("starting")
    rig.now += 100
    rig.step()
    assert rig.service.conditions, "it has not proven itself yet"
    rig.says(rig.active()[0], Phase.RUNNING, health="healthy")
    rig.step()
    assert not rig.service.conditions


def test_unhealthy_instance_whose_policy_wants_no_start_is_left() -> None:
    rig = Rig(spec(replicas=1, condition="on-failure"), host(1))
    rig.put(replace(rig.service, spec=spec(replicas=1, condition="no")))
    rig.step()
    rig.says(rig.active()[0], Phase.RUNNING, health="unhealthy")
    assert rig.plan().empty


@pytest.mark.parametrize(
    ("status", "why"),
    [
        ({"phase": Phase.FAILED, "message": "no such image"}, "it failed: no such image"),
        ({"phase": Phase.EXITED, "code": 3}, "it exited with code 3"),
        (
            {"phase": Phase.RESTARTING, "restarts": 1, "message": "exited with code 3"},
            "it did not stay up: exited with code 3",
        ),
        ({"phase": Phase.RUNNING, "restarts": 2}, "it did not stay up"),
        (
            {"phase": Phase.RUNNING, "health": "unhealthy", "health_message": "refused"},
            "it is unhealthy: refused",
        ),
    ],
)
@pytest.mark.parametrize("order", ["stop-first", "start-first"])
def test_update_is_paused_by_the_first_new_instance_that_fails(
    order: str, status: dict[str, Any], why: str
) -> None:
    rig = rolling(order=order)
    for _ in range(3):
        rig.step()
        rig.obey("healthy") if not fresh(rig) else None
    rig.says(fresh(rig)[0], **status)
    rig.step()
    assert rig.service.rollout is not None
    assert (rig.service.rollout.state, rig.service.rollout.message) == (
        "paused",
        f"1 of 3 new instances failed: {why}",
    )
    assert any("the update is paused" in m and "flota service rollback web" in m for m in messages(rig))
    for _ in range(20):
        rig.now += 30
        rig.obey("healthy")
        rig.step()
    given_up = order == "stop-first" or (status["phase"] is Phase.RUNNING and "health" not in status)
    assert rig.images().count("v1") == (2 if given_up else 3), "the others are left alone"


def test_update_that_may_fail_in_part_goes_on_and_completes_after_its_monitor() -> None:
    rig = rolling(replicas=4, max_failure_ratio=0.25)
    failed = False
    for _ in range(40):
        rig.step()
        if fresh(rig) and not failed:
            failed = True
            rig.says(fresh(rig)[0], Phase.EXITED, 1)
        rig.obey("healthy")
        rig.now += 1
    assert rig.images() == ["v2"] * 4
    assert rig.service.rollout is not None and rig.service.rollout.state == "completed"
    assert rig.service.rollout.completed_at >= rig.active()[-1].created_at + 5.0
    assert rig.plan().empty and not messages(rig)


def test_failure_within_the_monitor_still_pauses() -> None:
    rig = rolling(replicas=1)
    rig.step()
    rig.obey("healthy")
    rig.step()
    rig.obey("healthy")
    assert rig.step().retry_at == rig.now + 5
    rig.says(fresh(rig)[0], Phase.EXITED, 1)
    rig.step()
    assert rig.service.rollout is not None and rig.service.rollout.state == "paused"


def test_update_that_fails_is_taken_back_where_its_policy_says_so() -> None:
    rig = rolling(failure_action="rollback")
    rig.step()
    rig.obey("healthy")
    rig.step()
    rig.says(fresh(rig)[0], Phase.RUNNING, health="unhealthy", health_message="refused")
    rig.step()
    assert rig.service.spec.container.image == "v1" and rig.service.generation == 3
    assert messages(rig) == [
        "the update is being taken back: 1 of 3 new instances failed: it is unhealthy: refused"
    ]
    for _ in range(20):
        rig.step()
        rig.obey("healthy")
        rig.now += 1
    assert rig.images() == ["v1"] * 3
    assert rig.service.rollout is not None and rig.service.rollout.state == "rollback_completed"
    assert messages(rig)[0].startswith("the last update was taken back: ")
    with pytest.raises(WrongState):
        rollback(rig.cluster, WEB, rig.now)


def test_rollback_that_fails_is_paused() -> None:
    rig = rolling(replicas=2)
    for _ in range(20):
        rig.step()
        rig.obey("healthy")
        rig.now += 1
    back(rig)
    assert rig.service.spec.container.image == "v1" and rig.service.previous is not None
    rig.step()
    rig.obey("healthy")
    rig.step()
    rig.says(next(i for i in rig.active() if i.spec.image == "v1"), Phase.FAILED)
    rig.step()
    assert rig.service.rollout is not None and rig.service.rollout.state == "rollback_paused"
    assert any(m.startswith("taking the update back is paused") for m in messages(rig))


def test_rollback_twice_is_the_last_change_again_and_follows_its_own_policy() -> None:
    policy = UpdatePolicy(parallelism=2)
    rig = rolling()
    rig.put(replace(rig.service, previous=replace(spec(replicas=3), rollback=policy)))
    for _ in range(20):
        rig.step()
        rig.obey("healthy")
        rig.now += 1
    back(rig)
    rig.step()
    assert len(rig.active()) == 1, "two at a time"
    back(rig)
    assert rig.service.spec.container.image == "v2"


def test_request_resumes_a_paused_update_even_if_it_changes_nothing() -> None:
    rig = rolling(replicas=2)
    rig.step()
    rig.obey("healthy")
    rig.step()
    rig.says(fresh(rig)[0], Phase.FAILED)
    rig.step()
    rig.now += 100
    plan = update(rig.cluster, WEB, UpdateService(spec=rig.service.spec), rig.now)
    rig.put(*(item.record for item in plan.items))
    assert rig.service.rollout is not None and rig.service.rollout.state == "updating"
    assert rig.service.previous is not None and rig.service.previous.container.image == "v1", "the way back"
    for _ in range(20):
        rig.step()
        rig.obey("healthy")
        rig.now += 1
    assert rig.images() == ["v2"] * 2 and not messages(rig)


def test_change_of_replicas_alone_is_no_rollout() -> None:
    rig = Rig(spec(replicas=1), host(1))
    rig.settle()
    rig.change(spec(replicas=3))
    assert rig.service.rollout is None
    rig.settle()
    assert len(rig.active()) == 3


def test_update_that_fails_after_a_change_of_replicas_is_taken_back_with_their_number_kept() -> None:
    rig = rolling(replicas=2, failure_action="rollback")
    rig.change(spec("v2", replicas=4, failure_action="rollback"))
    rig.step()
    rig.says(fresh(rig)[0], Phase.FAILED)
    rig.step()
    assert rig.service.spec.container.image == "v1" and rig.service.spec.mode == Replicated(replicas=4)


def test_failing_start_first_update_is_tried_ever_more_slowly_where_it_goes_on() -> None:
    rig = rolling(replicas=1, order="start-first", failure_action="continue")
    made = []
    for _ in range(200):
        rig.step()
        if new := [i for i in fresh(rig) if i.id not in rig.statuses]:
            made.append(rig.now)
            rig.says(new[0], Phase.FAILED)
        rig.now += 1
    assert len(made) <= 7 and rig.images() == ["v1"]


def test_global_service_is_rolled_out_past_a_host_that_is_away() -> None:
    everywhere = ServiceSpec(name="web", container=ContainerSpec(image="v1", restart=ALWAYS), mode=Global())
    rig = Rig(everywhere, host(1), host(2), host(3))
    rig.settle()
    rig.put(replace(rig.cluster.hosts[HostId("h1")], state=HostState.LOST))
    rig.change(replace(everywhere, container=ContainerSpec(image="v2", restart=ALWAYS)))
    for _ in range(20):
        for instance in rig.active():
            if instance.host != "h1" and instance.id not in rig.statuses:
                rig.says(instance, Phase.RUNNING)
        for instance in list(rig.cluster.instances.values()):
            if instance.desired is Desired.REMOVED and instance.host != "h1":
                rig.cluster = rig.cluster.apply((), (instance,), rig.cluster.revision + 1)[0]
        rig.step()
        rig.now += 1
    assert {i.spec.image for i in rig.active() if i.host != "h1"} == {"v2"}
    assert rig.service.rollout is not None and rig.service.rollout.state == "completed"


ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("step"), st.none()),
        st.tuples(st.just("start"), st.none()),
        st.tuples(st.just("well"), st.integers(0, 5)),
        st.tuples(st.just("ill"), st.integers(0, 5)),
        st.tuples(st.just("gone"), st.none()),
        st.tuples(st.just("change"), st.integers(2, 4)),
    ),
    max_size=60,
)


@given(
    ACTS,
    st.sampled_from(["stop-first", "start-first"]),
    st.integers(1, 3),
    st.sampled_from(["pause", "continue", "rollback"]),
)
@settings(max_examples=200, deadline=None)
def test_rollout_takes_no_more_seats_than_it_may_and_no_ready_one_before_its_successor(
    acts: list[tuple[str, Any]], order: str, parallelism: int, action: str
) -> None:
    policy = {"order": order, "parallelism": parallelism, "failure_action": action}
    back = UpdatePolicy(order=order, parallelism=parallelism)  # type: ignore[arg-type]
    rig = Rig(replace(spec(replicas=4, **policy), rollback=back), host(1), host(2))
    rig.step()
    rig.obey("healthy")
    for verb, value in acts:
        alive = rig.active()
        if verb == "change":
            rig.change(replace(spec(f"v{value}", replicas=4, **policy), rollback=back))
        elif verb == "start":
            for instance in alive:
                if instance.id not in rig.statuses:
                    rig.says(instance, Phase.RUNNING, health="starting")
        elif verb in ("well", "ill") and value < len(alive) and alive[value].id in rig.statuses:
            rig.says(alive[value], Phase.RUNNING, health="healthy" if verb == "well" else "unhealthy")
        elif verb == "gone":
            rig.obey("starting")
        rig.now += 1
        ready = {i.id: i for i in rig.ready()}
        rig.step()
        lost = [i for ident, i in ready.items() if ident not in {n.id for n in rig.active()}]
        serving = {i.slot for i in rig.ready()}
        if order == "start-first":
            assert all(i.slot in serving for i in lost), "its successor was not ready"
        elif lost:
            assert 4 - len(serving) <= max(parallelism, 4 - len({i.slot for i in ready.values()}))


def test_a_service_keeps_its_instances_up_unless_it_says_that_they_may_end() -> None:
    rig = Rig(spec(replicas=1), host(1))
    silent = replace(spec(replicas=1), container=ContainerSpec(image="v1"))
    for wanted, condition in ((silent, "always"), (replace(silent, may_end=True), "no")):
        [item] = update(rig.cluster, WEB, UpdateService(spec=wanted), rig.now).items or (None,)
        stored = item.record.spec if item is not None else rig.service.spec  # type: ignore[attr-defined]
        assert stored.container.restart.condition == condition
        again = replace(stored, container=replace(stored.container, image="v2"))
        [item] = update(rig.cluster, WEB, UpdateService(spec=again), rig.now).items
        assert item.record.spec.container.restart.condition == condition  # type: ignore[attr-defined]


def test_pause_between_batches_begins_when_the_last_one_is_ready() -> None:
    rig = rolling(replicas=2, delay=10.0)
    rig.step()
    rig.obey()
    rig.step()
    [first] = fresh(rig)
    rig.now += 30
    rig.says(first, Phase.RUNNING, started_at=rig.now - 30, ready_since=rig.now)
    assert rig.plan().retry_at == rig.now + 10.0
    rig.now += 10
    assert "the service changed (generation 2)" in reasons(rig.step())
