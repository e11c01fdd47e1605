"""What builds keep on this host's disk, as people see it, and what of it goes.

That is results of steps, folders that RUN steps share, and files that clients have sent.

Invariant: what a build uses stays.
"""

from __future__ import annotations

from agent.builds import Builds
from aio.supervisor import in_thread
from image.build.keeping import pruned
from image.build.stored import BuildCache
from model.buildcache import CacheEntry, CacheFreed, CachePrune, HostCache
from model.disk import DiskUse

CONTEXTS = "contexts"


class BuildRoom:
    def __init__(self, builds: Builds, cache: BuildCache) -> None:
        self._builds = builds
        self._cache = cache

    async def cached(self) -> HostCache:
        entries = [*self._cache.entries(), *await self._builds.executor.caches.entries(), *self._contexts()]
        return HostCache(
            entries=tuple(sorted(entries, key=lambda entry: entry.used)),
            host=self._builds.context.facts.hostname,
        )

    async def prune(self, wish: CachePrune) -> CacheFreed:
        """By one measure for all kinds: the longest unused goes first."""
        context = self._builds.context
        there = (await self.cached()).entries
        going = set(pruned(there, wish, context.clock.now()))
        mounts = [e.id for e in there if e.id in going and e.kind == "mount"]
        freed = self._cache.remove(
            [e.id for e in there if e.id in going and e.kind not in ("mount", "context")]
        )
        gone, size = [*freed.entries], freed.freed
        folders = await self._builds.executor.caches.remove(mounts)
        gone += folders.entries
        size += folders.freed
        if CONTEXTS in going:
            gone.append(CONTEXTS)
            size += await in_thread(self._builds.objects.prune)
        return CacheFreed(entries=tuple(gone), freed=size, host=context.facts.hostname)

    async def usage(self) -> DiskUse:
        entries = (await self.cached()).entries
        free = [e for e in entries if not e.in_use and not e.shared]
        return DiskUse(
            kind="build cache",
            total=len(entries),
            active=sum(e.in_use for e in entries),
            size=sum(e.size for e in entries),
            reclaimable=sum(e.size for e in free),
        )

    def _contexts(self) -> list[CacheEntry]:
        builds = self._builds
        size = builds.objects.size
        if not size:
            return []
        return [
            CacheEntry(
                id=CONTEXTS, kind="context", source="files of build contexts", size=size, used=builds.last,
                in_use=builds.running > 0,
            )
        ]  # fmt: skip
