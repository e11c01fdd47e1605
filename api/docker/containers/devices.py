"""Devices and limits on them, between Docker's words and a spec's. Pure."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from api.docker.containers.body import HostConfig
from model.spec import BlkioDevice, ContainerSpec, DeviceWish, Resources

_RATES = {
    "BlkioDeviceReadBps": "read_bps",
    "BlkioDeviceWriteBps": "write_bps",
    "BlkioDeviceReadIOps": "read_iops",
    "BlkioDeviceWriteIOps": "write_iops",
}


def devices_of(host: HostConfig) -> tuple[DeviceWish, ...]:
    return tuple(
        DeviceWish(source=d.on_host, target=d.in_container or d.on_host, permissions=d.permissions or "rwm")
        for d in host.devices
    )


def block_devices_of(host: HostConfig) -> tuple[BlkioDevice, ...]:
    """One per path, with all that is said of it."""
    found: dict[str, BlkioDevice] = {}
    for weight in host.blkio_weight_device:
        known = found.get(weight.path) or BlkioDevice(path=weight.path)
        found[weight.path] = replace(known, weight=weight.weight)
    for field in _RATES.values():
        for rate in getattr(host, f"blkio_device_{field}"):
            known = found.get(rate.path) or BlkioDevice(path=rate.path)
            found[rate.path] = replace(known, **{field: rate.rate})
    return tuple(found.values())


def shown(spec: ContainerSpec) -> dict[str, Any]:
    """Of HostConfig."""
    resources = spec.resources
    return {
        "BlkioWeight": resources.blkio_weight,
        "BlkioWeightDevice": [
            {"Path": d.path, "Weight": d.weight} for d in resources.blkio_devices if d.weight
        ],
        **{name: _rates(resources, field) for name, field in _RATES.items()},
        "Devices": [
            {"PathOnHost": d.source, "PathInContainer": d.target, "CgroupPermissions": d.permissions}
            for d in spec.devices
        ],
        "DeviceCgroupRules": list(spec.device_rules) or None,
        "OomScoreAdj": spec.oom_score_adj,
        "OomKillDisable": resources.oom_kill_disable,
        "MemorySwappiness": None if resources.memory_swappiness < 0 else resources.memory_swappiness,
        "CpusetMems": resources.cpuset_mems,
    }


def _rates(resources: Resources, field: str) -> list[dict[str, Any]]:
    return [{"Path": d.path, "Rate": getattr(d, field)} for d in resources.blkio_devices if getattr(d, field)]
