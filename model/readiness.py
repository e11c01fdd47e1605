"""Who takes new connections: names and addresses of services lead there. Pure.

Controller and agents ask the same question, so that a host's word of its own containers and what it is told
of others agree.
"""

from __future__ import annotations

from model.records import Desired, Instance
from model.status import InstanceStatus, Phase


def takes_connections(instance: Instance, status: InstanceStatus) -> bool:
    """It runs and is not about to stop. A service's must be well too; one without a service is found by its
    names whatever its health, as in Docker: its check may well ask for them."""
    if instance.desired is not Desired.RUNNING:
        return False
    if instance.service is None:
        return status.phase is Phase.RUNNING and not status.paused
    return status.ready
