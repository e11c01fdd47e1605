"""What is ours on this host and belongs to no instance that the journal knows: it goes at the agent's start.

Only containers under our runtime root, our namespaces, roots and folders are looked at; nothing else is.
"""

from __future__ import annotations

import logging
from collections.abc import Container

from agent.context import Context
from agent.trees import remove_tree
from aio.supervisor import in_thread

log = logging.getLogger("flota.agent")


async def clear(context: Context, known: Container[str]) -> None:
    """Processes first, then their network, then files. `known` are instance ids."""
    for container in await context.runtime.list():
        if container not in known:
            log.warning("removing container %s: nobody knows it", container[:12])
            await context.runtime.delete(container, force=True)
    for instance in context.network.namespaces():
        if instance not in known:
            await context.network.drop_namespace(instance)
    for root in context.images.roots():
        if root.container not in known:
            await context.images.remove_root(root.container)
    for folder in (context.run / "c", context.state / "containers"):
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        for entry in list(folder.iterdir()):
            if entry.name not in known:
                await in_thread(remove_tree, entry)
