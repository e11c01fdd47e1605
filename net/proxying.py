"""This host's proxy told what to serve. The process itself is kept by the supervisor of what outlives the
agent, which starts it once there is a state for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from aio.inotify import DirectoryBells
from net.proxy.state import FOLDER, ProxyState, encode, port_in, trouble
from net.supervise import drop
from net.supervise.feed import StateFeed
from net.supervise.files import STATE

log = logging.getLogger("flota.net")

PATIENCE = 3.0
"""Seconds for the proxy to serve a new state, its own start included."""


class PortProxy(Protocol):
    """What the network code needs of the proxy. Implementations: `ProxyFeed`, `FakeProxy`."""

    def update(self, state: ProxyState) -> None:
        """Serve these ports and no others from now on. Cheap when nothing changed; never waits."""
        ...

    async def served(self) -> bool:
        """Wait until the last state is served; False after some patience."""
        ...

    def trouble(self, port: int) -> str:
        """Why a port is not served, as far as is known; empty: it is."""
        ...

    async def run(self) -> None:
        """Listen to what it says until cancelled."""
        ...


class ProxyFeed:
    """`run_dir` is on a tmpfs."""

    def __init__(self, run_dir: Path, *, patience: float = PATIENCE) -> None:
        self.changed: Callable[[], None] = lambda: None
        self._feed = StateFeed(str(run_dir / FOLDER), group=drop.PROXY, what="published ports")
        self._feed.changed = self._tell
        self._patience = patience
        self._needed = (run_dir / FOLDER / STATE).exists()
        self._state: ProxyState | None = None

    @property
    def troubles(self) -> tuple[str, ...]:
        """What people should know."""
        return self._feed.troubles

    @property
    def unserved(self) -> frozenset[tuple[str, int]]:
        """(protocol, port) of those that somebody else has."""
        return frozenset(("tcp", port_in(word)) for word in self.troubles if port_in(word))

    def update(self, state: ProxyState) -> None:
        self._needed = self._needed or bool(state.ports)
        if self._needed and state != self._state:
            self._state = state
            self._feed.update(encode(state))

    async def served(self) -> bool:
        if await self._feed.served(self._patience):
            return True
        log.warning("published ports: the proxy takes its time to serve a change")
        return False

    def trouble(self, port: int) -> str:
        return next((word for word in self.troubles if port_in(word) == port), "")

    async def run(self) -> None:
        bells = DirectoryBells()
        try:
            await self._feed.run(bells)
        finally:
            bells.close()

    def _tell(self) -> None:
        self.changed()


class FakeProxy:
    """The seam for the tests of everything above it: keeps what it was told; `foreign` ports are held by
    strangers."""

    def __init__(self) -> None:
        self.state = ProxyState()
        self.foreign: set[int] = set()

    def update(self, state: ProxyState) -> None:
        self.state = state

    async def served(self) -> bool:
        return True

    def trouble(self, port: int) -> str:
        return trouble(port, "cannot listen: Address already in use") if port in self.foreign else ""

    async def run(self) -> None:
        return
