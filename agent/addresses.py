"""Addresses of endpoints, handed out of the blocks that the controller leased to this host.

The rules are `net.ipam`'s; here is what is held. Invariants: an address has one holder; it is given back by
its holder's clean-up and by nothing else (never freed on doubt), and rests before it is used again, also over
a restart of the agent: each change of a network's leases is told to `changed`, which journals it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping

from msgspec.structs import replace

from model.ids import InstanceId, NetworkId
from model.leases import HostLeases, NetworkLeases
from model.status import Endpoint, Stranger
from model.view import NetworkView
from net import ipam
from net.ipam import QUARANTINE, Leases

STRANGERS = 600.0
"""Seconds in which an address that a stranger had is not tried again."""
MOST_STRANGERS = 63
SHORT_REST = 1.0
"""Seconds that an address rests at least on a network of this host alone, where nothing else is left: names
hold for as long."""


class Addresses:
    def __init__(self) -> None:
        self._leases: dict[str, Leases] = {}
        self.changed: Callable[[str, Leases], object] = lambda network, leases: None
        """Told of a network's leases whenever they change."""
        self.shortage: Callable[[], object] = lambda: None
        """Told when `short` is another."""
        self.strangers: tuple[Stranger, ...] = ()
        """Met lately."""
        self.met: Callable[[Stranger], object] = lambda stranger: None
        """Told when it is set aside what one of these has."""
        self._waiting: Counter[str] = Counter()
        self._vacated: tuple[str, ...] = ()
        self._renewed = asyncio.Event()

    def load(
        self, leases: Mapping[str, Leases], holders: Mapping[InstanceId, Iterable[Endpoint]], now: float
    ) -> None:
        """What was journalled, and what the endpoints of known instances say, which is newer. Holders that
        are not known any more give back; a rest never lasts longer than the quarantine, whatever the clock
        did."""
        for network, known in leases.items():
            gone = {a for a, holder in known.held.items() if holder not in holders}
            resting = {**known.resting, **dict.fromkeys(gone, now + QUARANTINE)}
            self._leases[network] = Leases(
                held={a: holder for a, holder in known.held.items() if a not in gone},
                resting={a: min(until, now + QUARANTINE) for a, until in resting.items() if until > now},
            )
        for instance, endpoints in holders.items():
            for endpoint in endpoints:
                for address in filter(None, (endpoint.ipv4, endpoint.ipv6)):
                    old = self._of(endpoint.network)
                    self._leases[endpoint.network] = replace(old, held={**old.held, address: instance})

    def take(
        self,
        network: NetworkView,
        holder: InstanceId,
        version: int,
        now: float,
        *,
        wanted: str = "",
        hosts: Iterable[str] = (),
    ) -> str:
        """An address of that IP version for `holder`, the same when asked again; empty where the network has
        none of that version; never one of `hosts`. Raises InvalidInput, InUse, Exhausted."""
        if not wanted and not any((":" in block) is (version == 6) for block in network.blocks):
            return ""
        known = self._of(network.id)
        promises = [*network.fixed.items(), *network.fixed6.items()]
        promised = {address: who for who, address in promises if who != holder}
        promised |= dict.fromkeys(hosts, InstanceId("a host"))
        promised |= {address: InstanceId("") for address in network.set_aside if address != wanted}
        seen = replace(known, held={**promised, **known.held})
        rest = SHORT_REST if network.spec.driver == "bridge" else QUARANTINE
        after, address = ipam.allocate(
            network.spec, network.blocks, seen, holder, version=version, now=now, wanted=wanted, rest=rest
        )
        kept = {a: i for a, i in after.held.items() if a not in promised or a in known.held}
        self._set(network.id, replace(after, held=kept))
        return address

    @property
    def short(self) -> tuple[str, ...]:
        """Networks of which somebody waits for an address."""
        return tuple(sorted(network for network, count in self._waiting.items() if count))

    @contextlib.contextmanager
    def waiting(self, network: str) -> Iterator[None]:
        """Somebody waits for an address of that network, and this is told."""
        self._waiting[network] += 1
        self.shortage()
        try:
            yield
        finally:
            self._waiting[network] -= 1
            self.shortage()

    def renew(self) -> None:
        """There may be addresses for those who wait."""
        self._renewed.set()
        self._renewed = asyncio.Event()

    async def renewed(self) -> None:
        """Until `renew` is called next."""
        await self._renewed.wait()

    def rest(self, network: str, now: float) -> float | None:
        """Seconds until the next address there that rests may be used again; None if none does."""
        ends = self._of(network).resting.values()
        times = (at for end in ends for at in (ipam.usable_at(end, SHORT_REST), end))
        return min((at - now for at in times if at > now), default=None)

    def give_back(self, holder: InstanceId, now: float) -> None:
        """All that `holder` has, on every network. Idempotent."""
        for network, known in list(self._leases.items()):
            if holder in known.held.values():
                self._set(network, ipam.release(known, holder, now=now))

    def set_aside(self, stranger: Stranger) -> None:
        """Nobody of ours gets that address for a while."""
        network, address, now = stranger.network, stranger.address, stranger.seen_at
        kept = [s for s in self.strangers if s.seen_at > now - STRANGERS and s.address != address]
        self.strangers = (*kept[-MOST_STRANGERS:], stranger)
        self.met(stranger)
        known = self._of(network)
        held = {a: holder for a, holder in known.held.items() if a != address}
        self._set(network, replace(known, held=held, resting={**known.resting, address: now + STRANGERS}))

    def settle(self, holder: InstanceId, endpoints: Iterable[Endpoint], now: float) -> None:
        """`holder` has these endpoints and no others: all else that it has goes to rest. Idempotent."""
        kept: dict[str, set[str]] = {}
        for endpoint in endpoints:
            kept.setdefault(endpoint.network, set()).update((endpoint.ipv4, endpoint.ipv6))
        for network, known in list(self._leases.items()):
            mine = {address for address, owner in known.held.items() if owner == holder}
            if mine - kept.get(network, set()):
                after = ipam.release(known, holder, now=now, but=kept.get(network, set()))
                self._set(network, after)

    def vacates(self, networks: Iterable[NetworkView]) -> bool:
        """Whether `vacated` is another than when this was asked last."""
        before, self._vacated = self._vacated, self.vacated(networks)
        return self._vacated != before

    def vacated(self, networks: Iterable[NetworkView]) -> tuple[str, ...]:
        """What is set aside and nobody here has, as a host's report names it. What rests counts as free: who
        asks for an address by its name wants this one."""
        return tuple(
            f"{network.id}/{address}/{mark}"
            for network in networks
            for address, mark in network.set_aside.items()
            if address not in self._of(network.id).held
        )

    def told(self, known: Container[InstanceId], now: float) -> HostLeases:
        """What stands in the book; `known` are the instances of this host."""
        return HostLeases(
            networks={
                NetworkId(network): NetworkLeases(
                    held=len(leases.held),
                    resting=tuple(sorted(a for a, until in leases.resting.items() if until > now)),
                    leaked=tuple(sorted(a for a, i in leases.held.items() if i not in known)),
                )
                for network, leases in self._leases.items()
            }
        )

    def held(self) -> Mapping[tuple[str, str], str]:
        """(network, address) → holder."""
        return {(n, a): i for n, leases in self._leases.items() for a, i in leases.held.items()}

    def _of(self, network: str) -> Leases:
        return self._leases.get(network, Leases())

    def _set(self, network: str, leases: Leases) -> None:
        if self._of(network) != leases:
            self._leases[network] = leases
            self.changed(network, leases)
            if self._waiting[network]:
                self.renew()
