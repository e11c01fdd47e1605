"""The services of one host brought into its kernel and kept there.

A change costs its own elements: one transaction, no listing. Everything is compared only at the start and
when nft's generation says that somebody else changed something. Invariant: the ledger is what should be; a
refused change never leaves it half told, the next comparison makes up for it. And whoever is tracked takes no
shortcut (`net.shortcuts`): before the first packet is, and until the last one was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping

from aio.mailbox import Bell
from model.errors import CommandFailed
from net.diff import NftOp
from net.kernel.base import Kernel, SeenServices
from net.loadbalance import (
    VERDICTS,
    ElementChange,
    Flow,
    Ledger,
    ServiceChange,
    VirtualService,
    delta,
    served,
)
from net.portelements import REFUSED
from net.servicechains import Frame, all_chains, comments, completing_script, removing_script

GATHER = 0.05
"""Seconds in which more may leave: new connections go elsewhere already."""
RELEASE = 15.0
"""Seconds between looks whether members that left are still talked to."""
log = logging.getLogger("flota.net")


class Serving:
    """Callers see to it that one call runs at a time. A call that was cancelled or failed half-way leaves it
    unsure, and then the next one compares."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._ledger = Ledger()
        self._frame = Frame()
        self._here: tuple[str, ...] = ()
        self._chains: dict[str, tuple[str, ...]] = {}
        """Rules' comments by chain, as they stand."""
        self._sure = False
        """Whether the kernel was compared since the start and nothing failed since then."""
        self._left: set[Flow] = set()
        self._bell = Bell()
        self.mutations = 0

    async def apply(
        self, services: Mapping[str, VirtualService], frame: Frame, here: tuple[str, ...] = ()
    ) -> None:
        """These, and no others; `here` as for a `Ledger`. Idempotent."""
        changes = self._ledger.difference(services)
        if self._sure and (frame, here) == (self._frame, self._here):
            await self.change(changes)
            return
        self._part(self._ledger.change(changes))
        if here != self._here:
            lingering = self._ledger.lingering
            self._ledger = Ledger(services, here)
            self._ledger.adopt(lingering)
        self._frame, self._here = frame, here
        await self._compare()
        self._bell.ring()

    async def tracked(self) -> frozenset[bytes] | None:
        """Members whose packets are tracked here, those that linger too. What the kernel has from before
        counts until it was compared; None where that can't be looked at."""
        try:
            if not self._sure:
                self._adopt(await self._kernel.observe_services())
        except CommandFailed as error:
            log.warning("packets between hosts take no shortcuts, since %s", error)
            return None
        return served(self._ledger.elements)

    @property
    def published(self) -> set[tuple[str, int]]:
        """(protocol, port) that services have on this host."""
        return self._ledger.published()

    async def remove(self) -> None:
        """The whole table, whoever is connected."""
        self._ledger, self._frame, self._here, self._sure = Ledger(), Frame(), (), False
        if (await self._kernel.observe_services()).chains:
            await self._remove()

    async def change(self, changes: Mapping[str, VirtualService | None]) -> None:
        """Services that are new or other than they were; None: gone."""
        change = self._ledger.change(changes)
        self._part(change)
        if not self._sure:
            await self._compare()
        elif not change.elements.empty:
            self._sure = False
            try:
                await self._program(change)
                self._sure = True
            except CommandFailed as error:
                log.warning("comparing all services, since %s", error)
                await self._compare()
        if self._left:
            self._bell.ring()

    async def tidy(self, turn: asyncio.Lock) -> None:
        """Runs until cancelled: datagrams leave members that left, soon and in one go; members that nobody is
        connected to any more are let go. Looking through all connections takes milliseconds, whatever their
        number, which no change should wait for. `turn` is what callers of the other methods hold."""
        while True:
            waiting = self._ledger.lingering or self._left
            rung = await self._bell.wait(timeout=RELEASE if waiting else None)
            try:
                if not rung:
                    await self.release(turn)
                await asyncio.sleep(GATHER)
                await self._forget()
            except CommandFailed as error:
                log.warning("members that left are looked at again later, since %s", error)

    async def _forget(self) -> None:
        """What could not be forgotten is tried again."""
        left, self._left = self._left, set()
        try:
            if left:
                await self._kernel.forget(tuple(left))
        except BaseException:
            self._left |= left
            raise

    async def release(self, turn: asyncio.Lock) -> None:
        """Let go of members that left and that no connection leads to."""
        idle = self._ledger.lingering - await self._kernel.connected(frozenset(self._ledger.lingering))
        async with turn:
            change = self._ledger.release(idle)
            if not self._wanted and self._chains:
                await self._remove()
                await self._kernel.track(gone=served(change.gone))
            elif self._sure and not change.empty:
                self._sure = False
                await self._issue(change)
                self._sure = True

    async def follow(self, frame: Frame) -> None:
        """What services stand in is another now."""
        if frame != self._frame:
            self._frame = frame
            await self._compare()

    async def repair(self) -> int:
        """Look whether somebody else changed something, and set it back; the number of elements and chains
        that were not as they should be."""
        if self._sure and not await self._kernel.nft_changed_by_others():
            return 0
        return await self._compare()

    async def _program(self, change: ServiceChange) -> None:
        picks = _chains(change.elements.new)
        await self._complete(picks - self._chains.keys())
        await self._issue(change.elements)

    async def _issue(self, change: ElementChange) -> None:
        """Who comes takes no shortcut before anything leads to him; who goes, until nothing does any more."""
        await self._kernel.track(come=served(change.new))
        await self._kernel.change_services(change)
        await self._kernel.track(gone=served(change.gone))
        self.mutations += 1

    async def _complete(self, picks: set[str]) -> int:
        """Chains first: an element can only lead to one that stands."""
        want = all_chains(self._frame, picks)
        script = completing_script(want, self._chains)
        if not script:
            return 0
        wrong = sum(self._chains.get(name) != seen for name, seen in comments(want).items())
        await self._kernel.apply((NftOp(family="inet", script=script, whole=False),))
        self._chains |= comments(want)
        self.mutations += 1
        return wrong

    async def _compare(self) -> int:
        self._sure = False
        seen = await self._kernel.observe_services()
        self._chains = dict(seen.chains)
        self._adopt(seen)
        if not self._wanted:
            if seen.chains:
                await self._remove()
            self._sure = True
            return int(bool(seen.chains))
        elements = seen.elements
        try:
            wrong = await self._complete(self._picks())
        except CommandFailed as error:
            log.warning("making the table of services anew, since %s", error)
            await self._remove()
            wrong, elements = await self._complete(self._picks()), {}
        difference = delta(elements, self._ledger.elements)
        if not difference.empty:
            await self._issue(difference)
        self._sure = True
        return wrong + difference.size

    def _adopt(self, seen: SeenServices) -> None:
        self._ledger.adopt(served(seen.elements))

    async def _remove(self) -> None:
        await self._kernel.apply((NftOp(family="inet", script=removing_script(), whole=False),))
        self._chains = {}
        self.mutations += 1

    def _part(self, change: ServiceChange) -> None:
        """Whoever came back meanwhile keeps what it has; the same address with other members counts anew."""
        back = {Flow(vip=key[:-4], member=m, sticky=s) for s in (True, False) for key, m in _joined(change)}
        self._left = (self._left - back) | set(change.left)

    @property
    def _wanted(self) -> bool:
        """Whether the table should be there at all."""
        return bool(self._ledger.services or self._ledger.lingering)

    def _picks(self) -> set[str]:
        return _chains(self._ledger.elements)


def _chains(elements: Mapping[str, Mapping[bytes, bytes]]) -> set[str]:
    """Those that pick, of all that elements lead to."""
    return {data.decode() for name in VERDICTS for data in elements.get(name, {}).values()} - {REFUSED}


def _joined(change: ServiceChange) -> Iterable[tuple[bytes, bytes]]:
    for name in ("pick4", "pick6", "portpick4", "portpick6"):
        yield from change.elements.new.get(name, {}).items()
