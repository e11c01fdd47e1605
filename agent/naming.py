"""What this host's resolver serves, told to it: one file, written only when it changed.

The process itself is kept by another (`agent.hostprocesses`); it outlives the agent.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from aio.inotify import DirectoryBells
from model.errors import InvalidInput
from net.resolver import statefile
from net.resolver.change import Step, diff
from net.resolver.state import ResolverState
from net.supervise import drop
from net.supervise.feed import StateFeed

FOLDER = "names"
"""Below the agent's run folder."""


class Names(Protocol):
    """What the agent needs of names. Implementations: `NameService`, `FakeNames`."""

    changed: Callable[[], None]
    """Called when `troubles` are others than before."""

    @property
    def troubles(self) -> tuple[str, ...]:
        """What people should know: why names are not served, or not everywhere."""
        ...

    def update(self, state: ResolverState, step: Step | None = None) -> None:
        """Serve this from now on, which came of the last one by `step`. Cheap when little changed; never
        waits."""
        ...

    async def served(self, deadline: float = 1.0) -> bool:
        """Wait until the last state is served; False after `deadline` seconds."""
        ...

    async def run(self) -> None:
        """Listen to what it says until cancelled."""
        ...


class NameService:
    """`run_dir` is on a tmpfs."""

    def __init__(self, run_dir: Path) -> None:
        self.changed: Callable[[], None] = lambda: None
        self._feed = StateFeed(str(run_dir / FOLDER), group=drop.RESOLVER, what="names")
        self._feed.changed = self._tell
        self._state: ResolverState | None = None

    @property
    def troubles(self) -> tuple[str, ...]:
        return self._feed.troubles

    def update(self, state: ResolverState, step: Step | None = None) -> None:
        before = self._found() if self._state is None else self._state
        self._state = state
        if before is None:
            self._feed.update(statefile.whole(state))
            return
        change = step.change if step is not None and step.before is before else diff(before, state)
        if not change.empty and not self._feed.extend(statefile.line(change)):
            self._feed.update(statefile.whole(state))

    def _found(self) -> ResolverState | None:
        """What the last agent of this host told, which the resolver may be serving."""
        with contextlib.suppress(InvalidInput):
            return statefile.read(self._feed.data)
        return None

    async def served(self, deadline: float = 1.0) -> bool:
        return await self._feed.served(deadline)

    async def run(self) -> None:
        bells = DirectoryBells()
        try:
            await self._feed.run(bells)
        finally:
            bells.close()

    def _tell(self) -> None:
        self.changed()


class FakeNames:
    """The seam for the tests of everything above it: keeps what it was told."""

    def __init__(self) -> None:
        self.changed: Callable[[], None] = lambda: None
        self.troubles: tuple[str, ...] = ()
        self.states: list[ResolverState] = []

    def update(self, state: ResolverState, step: Step | None = None) -> None:
        if self.states[-1:] != [state]:
            self.states.append(state)

    async def served(self, deadline: float = 1.0) -> bool:
        return bool(self.states)

    async def run(self) -> None:
        await asyncio.Event().wait()
