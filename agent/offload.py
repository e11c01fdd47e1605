"""Sparing the network card what it spoils: checksums of what goes through tunnels.

Each new way to a peer is tried once (`net.kernel.offload`). Where datagrams arrive only without a checksum,
this host's tunnels make checksums themselves from then on, and if that helps it stays so for this boot.
Invariant: what does not help is taken back, so a peer that drops things for reasons of its own costs nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from msgspec.structs import replace

from agent.context import Context
from agent.journal import Journal
from agent.plans import network_plan
from aio.backoff import delay
from aio.mailbox import Bell
from model.errors import FlotaError
from model.spec import Struct
from model.status import HostFacts
from net.host import Drift
from net.naming import SPEAKER, VXLAN
from net.paths import Path, paths_of

log = logging.getLogger("flota.agent")
MOST_TRIES = 6
TUNNELS = (VXLAN, SPEAKER)
"""How links begin by which a host's own packets get into tunnels."""
WORDS = "the network card, or its driver, spoils checksums in tunnels: they are made by processor instead"


class Spared(Struct):
    """In the journal: since that boot, at that address."""

    boot_id: str
    address: str


def remembered(journal: Journal, boot_id: str, facts: HostFacts) -> HostFacts:
    """The facts with what an earlier agent of this boot has found out."""
    found = journal.read("offload", Spared).get("spared")
    return spared(facts) if found == Spared(boot_id=boot_id, address=facts.address) else facts


def spared(facts: HostFacts) -> HostFacts:
    return replace(facts, checksums=False, warnings=(*facts.warnings, WORDS))


def unspared(facts: HostFacts) -> HostFacts:
    return replace(facts, checksums=True, warnings=tuple(w for w in facts.warnings if w != WORDS))


Way = tuple[str, str]
TryWays = Callable[[Sequence[Way]], Awaitable[Mapping[Way, bool]]]


class OffloadProbe:
    """`bell` rings when networks or peers are others; `resettle` makes this host's facts others, and its
    networks by them."""

    def __init__(
        self,
        context: Context,
        journal: Journal,
        bell: Bell,
        resettle: Callable[[HostFacts], Awaitable[None]],
        try_ways: TryWays,
        tell: Callable[[Drift], object] = lambda drift: None,
    ) -> None:
        self._context, self._journal, self._bell = context, journal, bell
        self._resettle, self._try, self._tell = resettle, try_ways, tell
        self._known: set[tuple[Way, str]] = set()

    async def run(self) -> None:
        """For ever. A peer may have a network a little later than this host: who is silent is asked again, a
        few times."""
        silent = 0
        while True:
            again = delay(silent, first=1.0, limit=30.0) if 0 < silent < MOST_TRIES else None
            silent = 0 if await self._bell.wait(again) else silent
            try:
                silent = silent + 1 if await self._look() else 0
            except (FlotaError, OSError) as error:
                log.warning("whether checksums arrive is not known: %s", error)

    async def _look(self) -> bool:
        """Whether some were silent."""
        context = self._context
        there = {self._key(path) for path in self._ways()}
        self._known &= there
        new = there - self._known
        if not context.facts.checksums or not new:
            return False
        found = await self._try([way for way, _ in sorted(new)])
        self._known |= {key for key in new if key[0] in found}
        if bad := [way for way, whole in found.items() if not whole]:
            await self._spare(bad)
        return len(found) < len(new)

    async def _spare(self, bad: Sequence[Way]) -> None:
        context = self._context
        told = ", ".join(sorted(target for _, target in bad))
        log.warning("datagrams arrive without a checksum only, on the way to %s", told)
        await self._resettle(spared(context.facts))
        if not any((await self._try(bad)).values()):
            log.warning("to make checksums by processor does not help there")
            await self._resettle(unspared(context.facts))
            return
        known = Spared(boot_id=context.boot_id, address=context.facts.address)
        await self._journal.put("offload", "spared", known)
        self._tell(Drift(object=f"tunnels to {told}", action=WORDS))

    def _ways(self) -> Iterable[Path]:
        """By tunnels; IPv4, of which every overlay has a subnet."""
        plan = network_plan(self._context.view, self._context.host, self._context.facts)
        tunnels = {view.spec.name for view in plan.networks.values() if view.vni}
        ways = (p for p in paths_of(plan) if p.network in tunnels and ":" not in p.target)
        return (p for p in ways if not p.link or p.link.startswith(TUNNELS))

    def _key(self, path: Path) -> tuple[Way, str]:
        """The same addresses of a network lead by another card once host or peer has moved; another MTU sets
        it up anew."""
        peer, facts = self._context.view.peers.get(path.peer), self._context.facts
        here = f"{facts.address} {facts.link} {facts.mtu}"
        return (path.source, path.target), f"{here} {peer.address if peer else ''}"
