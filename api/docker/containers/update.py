"""`POST /containers/{id}/update`: other limits, or another restart policy, of a container that may run.

What its host can't do is taken back, so that a container never has a wish that is refused for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec.structs import asdict, fields

from api.docker.bodies import Body, Docker
from api.docker.containers.body import HOST_CONFIG, HostConfig, RestartWish
from api.docker.containers.hostconfig import cpus_of, restart_of
from api.docker.fields import Field, Table, refused
from api.docker.route import Call
from model.api import InstanceInfo
from model.errors import DeadlineExceeded, WrongState
from model.limits import UpdateLimits

WITHIN = 60.0
"""Seconds for a host to do it; one that is lost says nothing."""
_DONE = frozenset({
    "Memory", "MemorySwap", "NanoCpus", "CpuPeriod", "CpuQuota", "CpuShares", "CpusetCpus", "CpusetMems",
    "BlkioWeight", "PidsLimit", "RestartPolicy",
})  # fmt: skip
_OTHERS = frozenset({
    "MemoryReservation", "MemorySwappiness", "OomKillDisable", "KernelMemory", "KernelMemoryTCP", "Devices",
    "DeviceCgroupRules", "DeviceRequests", "BlkioWeightDevice", "BlkioDeviceReadBps", "BlkioDeviceWriteBps",
    "BlkioDeviceReadIOps", "BlkioDeviceWriteIOps", "CgroupParent", "CpuRealtimePeriod", "CpuRealtimeRuntime",
    "CpuCount", "CpuPercent", "IOMaximumIOps", "IOMaximumBandwidth", "Ulimits", "Init",
})  # fmt: skip
_AT_START = "is of a container's start: make it anew"


class UpdateBody(Docker):
    """Zero means: as it is."""

    memory: int = 0
    memory_swap: int = 0
    nano_cpus: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_shares: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    blkio_weight: int = 0
    pids_limit: int | None = None
    restart_policy: RestartWish = RestartWish()


def _field(field: Field) -> Field:
    if field.name in _DONE:
        return Field(field.name)
    if field.state in ("refused", "idle"):
        return field
    nothing = (-1,) if field.name == "MemorySwappiness" else ()
    return refused(field.name, _AT_START, *nothing)


UPDATE_FIELDS: Table = tuple(_field(field) for field in HOST_CONFIG if field.name in _DONE | _OTHERS)
UPDATE = Body(UpdateBody, UPDATE_FIELDS)


async def update(call: Call) -> dict[str, Any]:
    request = limits_of(call.body_as(UpdateBody))
    before = call.port.get_instance(call.ref())
    info = await call.port.update_limits(before.instance.id, request)
    try:
        async with asyncio.timeout(WITHIN):
            result = await call.port.wait_instance(info.instance.id, "limited")
    except TimeoutError:
        raise DeadlineExceeded(
            f"host {info.host_name} has not changed the limits within {WITHIN:g} s",
            hint="They are recorded; it does so when it can",
        ) from None
    if result.message and result.phase == "running":
        await call.port.update_limits(info.instance.id, restored(before))
        raise WrongState(f"Cannot update container {info.instance.name}: {result.message}")
    return {"Warnings": None}


def limits_of(body: UpdateBody) -> UpdateLimits:
    """Raises InvalidInput."""
    host = HostConfig(
        nano_cpus=body.nano_cpus,
        cpu_period=body.cpu_period,
        cpu_quota=body.cpu_quota,
        restart_policy=body.restart_policy,
    )
    asked: dict[str, Any] = {
        name: value
        for name in ("memory", "memory_swap", "cpu_shares", "cpuset_cpus", "cpuset_mems", "blkio_weight")
        if (value := getattr(body, name))
    }
    if nano := cpus_of(host):
        asked["nano_cpus"] = nano
    elif body.cpu_quota < 0:
        asked["nano_cpus"] = 0
    if body.pids_limit is not None:
        asked["pids"] = max(0, body.pids_limit)
    if body.restart_policy.name:
        asked["restart"] = restart_of(host)
    return UpdateLimits(**asked)


def restored(before: InstanceInfo) -> UpdateLimits:
    """What sets all that `update` changes to what it was."""
    spec = before.instance.spec
    known = {field.name for field in fields(UpdateLimits)}
    limits = {name: value for name, value in asdict(spec.resources).items() if name in known}
    return UpdateLimits(**limits, restart=spec.restart)
