"""What containers have written, in bytes, as their hosts count it: a walk, so only where it is asked for.

Invariant: a host that is away, slow or of an older release hinders nobody: its containers have no size then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from aio.together import together
from api.docker.ports import DockerPort
from api.hostcall import ask_for, target
from model.api import InstanceInfo
from model.errors import FlotaError
from model.ids import HostId
from model.image import ImageRecord

PATIENCE = 60.0
"""Seconds that hosts have to count."""


async def written(port: DockerPort, infos: Sequence[InstanceInfo]) -> dict[str, int]:
    """Bytes by container, of those whose hosts say."""
    holding = {info.instance.host for info in infos}
    hosts = [host for host, _ in port.ready_hosts() if host in holding]
    refs = (infos[0].instance.id,) if len(infos) == 1 else ()
    told = await together(_of(port, host, refs) for host in hosts)
    sizes = {ident: size for one in told for ident, size in one.items()}
    return {info.instance.id: sizes[info.instance.id] for info in infos if info.instance.id in sizes}


async def _of(port: DockerPort, host: HostId, refs: tuple[str, ...]) -> Mapping[str, int]:
    path = target("/v1/disk/containers", {"ref": refs})
    try:
        async with asyncio.timeout(PATIENCE):
            return await ask_for(port, host, "GET", path, dict[str, int])
    except (FlotaError, TimeoutError):
        return {}


def shown(image: ImageRecord, size: int) -> dict[str, Any]:
    """As Docker's objects have it."""
    return {"SizeRw": size, "SizeRootFs": image.size + size}
