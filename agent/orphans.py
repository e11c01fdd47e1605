"""What is ours on this host and belongs to no instance that the journal knows: it goes at the agent's start.

Only containers under our runtime root, our namespaces, roots and folders are looked at; nothing else is.
Invariant: what can't be removed is told and holds up nothing; a process that lives on keeps its files.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Container

from agent.context import Context
from agent.trees import remove_tree
from aio.supervisor import in_thread
from model.errors import FlotaError
from model.ids import short

log = logging.getLogger("flota.agent")


async def clear(context: Context, known: Container[str]) -> tuple[str, ...]:
    """Processes first, then their network, then files. `known` are instance ids. Gives what could not be
    removed, for people."""
    left: list[str] = []
    alive: set[str] = set()
    for container in await context.runtime.list():
        if container not in known:
            log.warning("removing container %s: nobody knows it", container[:12])
            if not await _removed(
                f"container {short(container)}", context.runtime.delete(container, force=True), left
            ):
                alive.add(container)
    for instance in context.network.namespaces():
        if instance not in known:
            name = f"network namespace of container {short(instance)}"
            await _removed(name, context.network.drop_namespace(instance), left)
    for root in context.images.roots():
        if root.container not in known and root.container not in alive:
            name = f"root of container {short(root.container)}"
            await _removed(name, context.images.remove_root(root.container), left)
    for folder in (context.run / "c", context.state / "containers"):
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        for entry in list(folder.iterdir()):
            if entry.name not in known and entry.name not in alive:
                await _removed(f"folder {entry}", in_thread(remove_tree, entry), left)
    return tuple(left)


async def _removed(name: str, removal: Awaitable[None], left: list[str]) -> bool:
    try:
        await removal
    except (FlotaError, OSError) as error:
        left.append(
            f"{name}, which nobody knows, can't be removed: {error}; the agent's next start tries again"
        )
        log.error("%s", left[-1])
        return False
    return True
