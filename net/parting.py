"""Connections of published ports that changes left stale, forgotten soon and in one go.

A change of ports counts at once for new connections; what is tracked is looked through behind it, for that
takes milliseconds, whatever the number of connections, which no start or stop should wait for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from aio.mailbox import Bell
from net.endpoint import InstanceNetwork
from net.flows import Change, change
from net.kernel.base import Kernel

GATHER = 0.05
"""Seconds in which more may change."""


class Parting:
    """`instances` are those of the host by the time of the look."""

    def __init__(self, kernel: Kernel, instances: Callable[[], Sequence[InstanceNetwork]]) -> None:
        self._kernel = kernel
        self._instances = instances
        self._change = Change()
        self._bell = Bell()

    def changed(self, before: InstanceNetwork, after: InstanceNetwork) -> None:
        """One container's addresses and ports, which the packet filter knows already."""
        found = change(before, after)
        if found:
            self._change |= found
            self._bell.ring()

    async def run(self) -> None:
        """Until cancelled. What a failed look did not see to the end is looked at again."""
        while True:
            if not self._change:
                await self._bell.wait()
            await asyncio.sleep(GATHER)
            taken, self._change = self._change, Change()
            try:
                await self._kernel.forget_connections(taken, self._instances())
            except BaseException:
                self._change |= taken
                raise
