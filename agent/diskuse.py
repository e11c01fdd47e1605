"""What this host's images, containers and volumes take of its disk. What they wrote is walked: it takes a
while."""

from __future__ import annotations

from collections.abc import Collection

from agent.context import Context
from model.disk import DiskUse, HostDisk
from model.errors import NotFound


async def measure(context: Context, *more: DiskUse) -> HostDisk:
    """A container's writable layer is reclaimable when it does not run, a volume when nobody uses it. `more`:
    what others keep."""
    disk = context.images.disk()
    uses = context.room.usage(), await _containers(context), await context.volumes.disk_use(), *more
    return HostDisk(uses=uses, capacity=disk.capacity, free=disk.free, host=context.facts.hostname)


async def written(context: Context, wanted: Collection[str] = ()) -> dict[str, int]:
    """What these containers, or all, have in their writable layers, by id."""
    found: dict[str, int] = {}
    for root in context.images.roots():
        if wanted and root.container not in wanted:
            continue
        try:
            found[root.container] = await context.images.root_usage(root.container)
        except NotFound:
            continue  # it went meanwhile
    return found


async def _containers(context: Context) -> DiskUse:
    total = active = size = reclaimable = 0
    for ident, used in (await written(context)).items():
        running = any(r.instance == ident and r.running for r in context.records.values())
        total, size, active = total + 1, size + used, active + running
        reclaimable += 0 if running else used
    return DiskUse(kind="containers", total=total, active=active, size=size, reclaimable=reclaimable)
