"""What people do with a registry beside the specification: they see its tags, and remove what they name.

Invariant: nothing is removed but what was named; blobs that nobody holds then go as after any deletion.
"""

from __future__ import annotations

import logging

from image.registry.server.grammar import manifest_of
from image.registry.server.registry import Registry
from model.errors import NotFound
from model.registrycopies import TagInfo

log = logging.getLogger("flota.registry")


async def tags(registry: Registry, repository: str, host: str) -> list[TagInfo]:
    """`host` is the registry's own name, which may stand before a repository's. Raises NotFound."""
    index, name = registry.content.index, repository.removeprefix(f"{host}/")
    if await registry.run(index.repository, name) is None:
        raise NotFound(f"the registry has no repository {repository[:120]}", hint="flota registry ls")
    rows = await registry.run(index.tagged, name)
    return [TagInfo(name=tag, digest=digest, media_type=kind) for tag, digest, kind in rows]


async def remove(registry: Registry, ref: str, host: str) -> None:
    """A tag, or a manifest and its tags. Raises InvalidInput, NotFound."""
    target, index = manifest_of(ref, host), registry.content.index
    act = index.remove if target.by_digest else index.untag
    if not await registry.run(act, target.name, target.reference):
        raise NotFound(
            f"the registry has no {ref[:200]}", hint=f"flota registry tags {target.name} says which it has"
        )
    log.info("%s was removed by hand", ref)
