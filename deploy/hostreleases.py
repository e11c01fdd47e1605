"""The releases on one host, by its installer, over a transport."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from deploy import releases
from deploy.bundles import BundleSource
from deploy.hostfacts import Facts
from deploy.hostlock import changing
from deploy.releases import Installed
from deploy.transport import Transport

DEADLINE = 300.0


class HostReleases:
    """`python`: the host's own, that releases are run by."""

    def __init__(self, to: Transport, python: str, source: BundleSource) -> None:
        self._to = to
        self._python = python
        self._source = source

    async def facts(self, release: str = "") -> Installed:
        return await self._run(releases.facts(release, python=self._python))

    async def ship(self, facts: Facts) -> Installed:
        """Our release is there, and nothing runs from it that didn't. Does nothing twice."""
        name = self._source.release
        found = await self.facts(name)
        if found.present:
            return found
        bundle = await self._source.bundle(facts, self._python)
        await self._to.put(Path(bundle.path), releases.incoming(name), 0o600)
        return await self._run(releases.install(name, bundle.sha256, python=self._python))

    async def switch(self, release: str, daemons: Sequence[str]) -> Installed:
        """These are started from it from now on."""
        return await self._run(releases.switch(release, daemons, python=self._python))

    async def prune(self, daemons: Sequence[str]) -> Installed:
        return await self._run(releases.prune(daemons, python=self._python))

    async def _run(self, words: Sequence[str]) -> Installed:
        script = await asyncio.to_thread(self._source.installer)
        done = await self._to.run(changing(words), stdin=script, timeout=DEADLINE)
        return releases.answer(self._to.host, done.code, done.out, done.err)
