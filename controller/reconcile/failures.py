"""What counts as the failure of a service's instance: it is to be replaced, and said so. Pure."""

from __future__ import annotations

from controller.condition import ending, finished
from model.records import Instance
from model.status import InstanceStatus, Phase


def failure(instance: Instance, status: InstanceStatus) -> str:
    """Why it can't stay, in words that begin with `it`; empty if it can. Its host's death is another matter.
    One that is unhealthy goes on where its policy wants nothing to be started again."""
    if status.phase.ended and status.phase is not Phase.LOST:
        return "" if finished(instance.spec.restart, status) else f"it {ending(status)}"
    if status.phase is Phase.RUNNING and status.health == "unhealthy":
        if instance.spec.restart.condition == "no":
            return ""
        return f"it is unhealthy: {status.health_message}"
    return ""
