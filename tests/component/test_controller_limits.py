"""Limits of plain containers, changed through the controller's port; bad wishes change nothing."""

from __future__ import annotations

import pytest

from model.api import CreateInstance
from model.errors import InvalidInput, WrongState
from model.limits import UpdateLimits
from model.spec import ContainerSpec, Resources, RestartPolicy, ServiceSpec
from tests.support.agents import make_host
from tests.support.fleet import fleet
from tests.support.waiting import until

BOX = ContainerSpec(image="busybox", resources=Resources(memory=64 << 20, pids=9), auto_remove=True)


async def test_limits_that_are_named_change_and_the_rest_stays() -> None:
    async with fleet(make_host(1)) as f:
        await f.controller.create_instance(CreateInstance(spec=BOX, name="box", start=False))
        await f.controller.update_limits("box", UpdateLimits(memory=32 << 20, cpuset_cpus="0"))
        await f.controller.update_limits("box", UpdateLimits(pids=0))
        spec = f.controller.get_instance("box").instance.spec
        assert spec.resources == Resources(memory=32 << 20, cpuset_cpus="0")


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (UpdateLimits(memory=1), "6MiB"),
        (UpdateLimits(memory_swap=1 << 20), "memory plus swap"),
        (UpdateLimits(restart=RestartPolicy(condition="always")), "removed when it ends"),
    ],
    ids=str,
)
async def test_limits_that_are_wrong_change_nothing(request_: UpdateLimits, words: str) -> None:
    async with fleet(make_host(1)) as f:
        await f.controller.create_instance(CreateInstance(spec=BOX, name="box", start=False))
        with pytest.raises(InvalidInput, match=words):
            await f.controller.update_limits("box", request_)
        assert f.controller.get_instance("box").instance.spec == BOX


async def test_limits_of_a_services_task_are_the_services() -> None:
    async with fleet(make_host(1)) as f:
        await f.controller.create_service(ServiceSpec(name="web", container=ContainerSpec(image="busybox")))
        await until(lambda: f.controller.list_instances(), deadline=20)
        [task] = f.controller.list_instances()
        with pytest.raises(WrongState, match="belongs to service web") as refused:
            await f.controller.update_limits(task.instance.id, UpdateLimits(pids=5))
        assert "flota service update web" in refused.value.hint
