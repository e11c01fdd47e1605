"""Whether the addresses of a new endpoint on a site's network are free, asked of the machines there.

Invariant: others' changes need not wait for the answers: the host's lock is not held meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from model.view import NetworkView
from net.convergence import Convergence
from net.diff import Op
from net.endpoint import InstanceNetwork, same_but_ways
from net.host import AddressTaken, EndpointRequest
from net.kernel.base import Kernel
from net.naming import SITE_BRIDGE
from net.nics import Nics
from net.state import UPPER, Foot, Link

HERE = "/proc/thread-self/ns/net"


class Asking:
    """`fence` brings a container's policies inside, before it has an address that they are for."""

    def __init__(
        self,
        kernel: Kernel,
        convergence: Convergence,
        nics: Nics,
        lock: asyncio.Lock,
        fence: Callable[[InstanceNetwork], Awaitable[None]],
    ) -> None:
        self._kernel, self._convergence, self._nics, self._lock = kernel, convergence, nics, lock
        self._fence = fence

    async def ask(
        self, meant: Callable[[], tuple[NetworkView, InstanceNetwork, Link]], request: EndpointRequest
    ) -> None:
        """Raises AddressTaken; and CommandFailed where the network's link is no port of its bridge."""
        async with self._lock:
            view, known, link = meant()
            before = known.endpoint(request.network)
            if link.foot is None or "l3" in link.mode or (before and same_but_ways(before, request)):
                return
            if link.kind in UPPER:
                rest = tuple(e for e in known.endpoints if e.network != request.network)
                await self._fence(replace(known, endpoints=(*rest, request)))
                await self._convergence.issue((Op(verb="add", item=replace(link, bare=True)),))
        if link.kind not in UPPER:
            await self._ask_by_bridge(link, link.foot, view.spec.name)
            return
        for address, mac in (await self._kernel.ask(link.foot)).items():
            async with self._lock:
                await self._convergence.issue((Op(verb="remove", item=link),))
            raise AddressTaken(address, mac, view.spec.name)

    async def _ask_by_bridge(self, link: Link, foot: Foot, network: str) -> None:
        """By the bridge itself: its guard lets an endpoint speak once it is known, which it is not yet."""
        if link.master.startswith(SITE_BRIDGE):
            await self._nics.ready(link.master)
            for address, mac in (
                await self._kernel.ask(replace(foot, namespace=HERE, ifname=link.master))
            ).items():
                raise AddressTaken(address, mac, network)
