"""What an instance is now: its record, its host's state and the last report, folded into one status. Pure.

Invariant: a report of an earlier attempt says nothing about the present one.
"""

from __future__ import annotations

import msgspec

from model.lives import made_up, present
from model.records import Host, Instance
from model.spec import RestartPolicy
from model.status import HostState, InstanceStatus, Phase


def status_of(instance: Instance, host: Host | None, reported: InstanceStatus | None) -> InstanceStatus:
    """The status to show and to decide by."""
    if instance.host is None:
        return made_up(instance, Phase.PENDING, instance.reason)
    if host is None or host.state is HostState.LOST:
        name = host.spec.name if host is not None else instance.host[:12]
        message = f"host {name} is gone" if host is None else f"host {name} is lost: {host.state_reason}"
        base = reported or made_up(instance, Phase.LOST, message)
        return msgspec.structs.replace(base, phase=Phase.LOST, message=message)
    return present(instance, reported)


def finished(policy: RestartPolicy, status: InstanceStatus) -> bool:
    """An ended instance that is as its policy wants it: not to be replaced."""
    if status.phase is not Phase.EXITED:
        return False
    if policy.condition == "no":
        return True
    return policy.condition == "on-failure" and status.exit_code == 0


def ending(status: InstanceStatus) -> str:
    """How it ended, for people."""
    if status.oom_killed:
        return "was killed for lack of memory"
    if status.phase is Phase.FAILED:
        return f"failed: {status.message}" if status.message else "failed"
    if status.exit_code is None:
        return "ended with an unknown exit code"
    return f"exited with code {status.exit_code}"
