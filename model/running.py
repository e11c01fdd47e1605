"""Whether a container counts as running, for those who would stop or remove it. Pure.

Invariant: it counts between the end of a run and the start of the next that a policy or a person asked for.
"""

from __future__ import annotations

from model.records import Desired, Instance
from model.status import InstanceStatus, Phase


def may_run(instance: Instance, status: InstanceStatus | None) -> bool:
    """A process of it may exist, or one is sure to come. A host that lets a container run again tells of
    every step towards it (restarting, preparing, created, starting): only an ended phase is the end."""
    wanted = instance.desired in (Desired.RUNNING, Desired.PAUSED)
    if status is None:
        return wanted
    if status.phase.live:
        return True
    if status.attempt >= instance.attempt and status.phase.ended:
        return False
    return wanted or (status.phase is Phase.RESTARTING and instance.desired is not Desired.CREATED)
