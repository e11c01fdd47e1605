"""Who is sent new connections."""

from __future__ import annotations

from typing import Any

import pytest

from model.ids import InstanceId, ServiceId
from model.readiness import takes_connections
from model.records import Desired, Instance
from model.spec import ContainerSpec
from model.status import InstanceStatus, Phase

ANYBODY = [
    ({}, Desired.RUNNING, True),
    ({}, Desired.REMOVED, False),
    ({}, Desired.STOPPED, False),
    ({"phase": Phase.STOPPING}, Desired.RUNNING, False),
    ({"phase": Phase.STARTING}, Desired.RUNNING, False),
    ({"phase": Phase.EXITED}, Desired.RUNNING, False),
    ({"paused": True}, Desired.RUNNING, False),
    ({"health": "healthy"}, Desired.RUNNING, True),
]
BY_HEALTH = [{"health": "starting"}, {"health": "unhealthy"}, {"opening": True}]


def ready(status: dict[str, Any], desired: Desired = Desired.RUNNING, service: str | None = "web") -> bool:
    ident, owner = InstanceId("1" * 64), ServiceId(service) if service else None
    wish = Instance(id=ident, name="x", spec=ContainerSpec(image="x"), desired=desired, service=owner)
    return takes_connections(wish, InstanceStatus(**{"instance": ident, "phase": Phase.RUNNING, **status}))


@pytest.mark.parametrize(("status", "desired", "expected"), ANYBODY)
@pytest.mark.parametrize("service", ["web", None])
def test_readiness_needs_one_that_runs_and_is_to_go_on(
    status: dict[str, Any], desired: Desired, expected: bool, service: str | None
) -> None:
    assert ready(status, desired, service) is expected


@pytest.mark.parametrize("status", BY_HEALTH)
def test_readiness_needs_health_of_a_services_container_alone(status: dict[str, Any]) -> None:
    assert not ready(status) and ready(status, service=None)
