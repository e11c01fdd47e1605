"""Which containers count as running: every report that a host makes between two runs is put to the rule."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from agent import lifecycle
from agent.record import Local, status_of
from agent.runtime.base import Created, Exit
from agent.steps import Outcome, Step
from api.docker.containers.states import state
from model.api import InstanceInfo
from model.ids import InstanceId
from model.records import Desired, Instance
from model.running import may_run
from model.spec import ContainerSpec, RestartPolicy
from model.status import InstanceStatus, Phase

BOX = InstanceId("1" * 64)
ALWAYS = Instance(
    id=BOX,
    name="box",
    spec=ContainerSpec(image="x", restart=RestartPolicy(condition="always", delay=1.0)),
    desired=Desired.RUNNING,
    attempt=1,
)
RUNNING = Local(
    instance=BOX,
    attempt=1,
    rooted=True,
    making=True,
    prepared=True,
    started=True,
    phase=Phase.RUNNING,
    started_at=50.0,
    created=Created(pid=10, conmon_pid=9, conmon_started=5),
    boot_id="b",
    attached=(),
    published=(),
)
DONE = Outcome(created=RUNNING.created, boot_id="b", attached=(), published=())


def reports(want: Instance, over: Local) -> list[InstanceStatus]:
    """Of all that a host says from the end of a run until the next one runs, or nothing more is to do."""
    said, record, now = [status_of(over)], over, 60.0
    for _ in range(12):
        action = lifecycle.next_action(record, want, hold=False, now=now)
        if action is None:
            break
        if action.step is Step.WAIT:
            now = action.until
            continue
        record = lifecycle.begun(record, action)
        said.append(status_of(record))
        record = lifecycle.after(record, want, action, DONE, now)
        said.append(status_of(record))
    return said


def test_container_between_two_runs_of_its_policy_counts_as_running() -> None:
    said = reports(ALWAYS, lifecycle.exited(RUNNING, Exit(code=0, at=60.0), 60.0))
    assert {Phase.RESTARTING, Phase.PREPARING, Phase.CREATED} <= {status.phase for status in said}
    assert said[-1].phase is Phase.RUNNING and said[-1].restarts == 1
    assert [status.phase for status in said if not may_run(ALWAYS, status)] == []


def test_container_between_two_runs_is_shown_as_restarting() -> None:
    said = reports(ALWAYS, lifecycle.exited(RUNNING, Exit(code=0, at=60.0), 60.0))
    words = {state(InstanceInfo(instance=ALWAYS, status=status)) for status in said}
    assert words == {"running", "restarting"}


def test_container_that_a_person_killed_does_not_count_once_it_has_ended() -> None:
    said = reports(ALWAYS, lifecycle.exited(lifecycle.killed(RUNNING), Exit(code=137, at=60.0), 60.0))
    assert said[-1].phase is Phase.EXITED
    assert not may_run(ALWAYS, said[-1])


@pytest.mark.parametrize(
    ("desired", "phase", "attempt", "counts"),
    [
        (Desired.CREATED, Phase.CREATED, 1, False),
        (Desired.RUNNING, Phase.CREATED, 1, True),
        (Desired.RUNNING, Phase.ASSIGNED, 0, True),
        (Desired.RUNNING, Phase.EXITED, 0, True),
        (Desired.RUNNING, Phase.EXITED, 1, False),
        (Desired.RUNNING, Phase.FAILED, 1, False),
        (Desired.PAUSED, Phase.RUNNING, 1, True),
        (Desired.STOPPED, Phase.STOPPING, 1, True),
        (Desired.STOPPED, Phase.EXITED, 1, False),
        (Desired.STOPPED, Phase.PREPARING, 1, False),
    ],
)
def test_container_counts_as_running_by_wish_and_report(
    desired: Desired, phase: Phase, attempt: int, counts: bool
) -> None:
    status = InstanceStatus(instance=BOX, attempt=attempt, phase=phase)
    assert may_run(replace(ALWAYS, desired=desired), status) is counts
