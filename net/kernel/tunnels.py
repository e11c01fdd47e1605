"""WireGuard devices among the other links: their part of what is observed and applied.

rtnetlink says that such a link is there, the Tunnels seam whose it is and to whom it leads. Invariant: a
device has its key before it is up.

New peers are greeted: WireGuard sends at once where keeping alive is switched on, and so begins its
handshake. The later of two hosts to know the other is understood; the earlier one's first word was not, and
it would say the next only five seconds later (whitepaper, 6.4). Where both speak at once, each answers the
other and takes no answer, and nothing passes for as long. So the host with the greater key greets at once,
and the other after `PAUSE`, afresh, if they have not met by then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from itertools import count, groupby
from pathlib import Path

from msgspec.structs import replace

from aio.supervisor import Supervisor
from model.errors import CommandFailed
from net.backend.wireguard import KEEPALIVE
from net.diff import Op
from net.kernel.netlink import Netlink
from net.state import Link, NetState, TunnelPeer
from net.wireguard.base import Device, Tunnels

log = logging.getLogger("flota.net")

NOTHING = Device()
PAUSE = 0.25
"""Seconds; within it an answer comes back on most ways between hosts."""


def of_tunnel(op: Op) -> bool:
    """Whether it is for `TunnelLinks`."""
    return isinstance(op.item, TunnelPeer) or (isinstance(op.item, Link) and op.item.kind == "wireguard")


class TunnelLinks:
    def __init__(self, netlink: Netlink, tunnels: Tunnels | None, *, pause: float = PAUSE) -> None:
        self._netlink, self._tunnels, self._pause = netlink, tunnels, pause
        self._turn = asyncio.Lock()
        self._later, self._count = Supervisor("tunnels"), count()

    async def close(self) -> None:
        await self._later.close()

    @property
    def kind(self) -> str:
        return self._tunnels.kind if self._tunnels is not None else ""

    async def observed(self, state: NetState) -> NetState:
        """With what its WireGuard devices say; one that says nothing has no end and no peers."""
        names = [name for name, link in state.links.items() if link.kind == "wireguard"]
        if not names or self._tunnels is None:
            return state
        async with self._turn:  # a peer that is greeted is away for a moment
            devices = await self._tunnels.observe(names)
        found = {n: replace(state.links[n], wireguard=devices.get(n, NOTHING).end) for n in names}
        peers = frozenset(peer for device in devices.values() for peer in device.peers)
        return replace(state, links={**state.links, **found}, tunnel_peers=peers)

    async def apply(self, operations: Sequence[Op]) -> None:
        """In order; peers of one device that follow each other in one go. Raises CommandFailed."""
        if self._tunnels is None:
            raise CommandFailed(f"cannot {operations[0]}: this host makes no WireGuard devices")
        async with self._turn:
            for (verb, _), run in groupby(operations, key=_batch):
                items = [op.item for op in run]
                peers = [item for item in items if isinstance(item, TunnelPeer)]
                if peers and verb == "remove":
                    await self._tunnels.drop_peers(peers)
                elif peers and verb == "add":
                    await self._meet(self._tunnels, peers)
                elif peers:
                    await self._tunnels.put_peers(peers)
                for link in items:
                    if isinstance(link, Link):
                        await self._link(self._tunnels, verb, link)

    async def _meet(self, tunnels: Tunnels, peers: Sequence[TunnelPeer]) -> None:
        """New ones, of one device."""
        link = peers[0].link
        end = (await tunnels.observe([link])).get(link, NOTHING).end
        own = end.key if end is not None else ""
        first = [peer for peer in peers if own > peer.key]
        others = [peer for peer in peers if own <= peer.key]
        await tunnels.put_peers([*map(_greeted, first), *others])
        await _calm(tunnels, first)
        second = frozenset(peer.key for peer in others if peer.endpoint)
        if second:
            name = f"{link} {next(self._count)}"
            self._later.start(name, lambda: self._greet_strangers(tunnels, link, second))

    async def _greet_strangers(self, tunnels: Tunnels, link: str, keys: Collection[str]) -> None:
        await asyncio.sleep(self._pause)
        async with self._turn:
            try:
                device = (await tunnels.observe([link])).get(link, NOTHING)
                found = [peer for peer in device.peers if peer.key in keys and peer.key in device.strangers]
                if found:
                    await tunnels.drop_peers(found)  # forgets when it spoke last
                    await tunnels.put_peers([_greeted(peer) for peer in found])
                    await _calm(tunnels, found)
            except CommandFailed as error:
                log.warning("%s: its peers are not greeted: %s", link, error)

    async def _link(self, tunnels: Tunnels, verb: str, link: Link) -> None:
        if verb == "remove":
            await tunnels.remove(link.name)
            await self._netlink.apply([Op(verb="remove", item=link)])
            return
        if verb == "add":
            await tunnels.make(link.name)
        try:
            if link.wireguard is not None:
                await tunnels.configure(link.name, Path(link.key_file), link.wireguard.port)
        except CommandFailed:
            if verb == "add":  # it is not marked as ours yet, so nobody would find it later
                await tunnels.remove(link.name)
            raise
        await self._netlink.apply([Op(verb="change", item=link)])


def _greeted(peer: TunnelPeer) -> TunnelPeer:
    return replace(peer, keepalive=peer.keepalive or KEEPALIVE)


async def _calm(tunnels: Tunnels, peers: Sequence[TunnelPeer]) -> None:
    """After a greeting."""
    if not all(peer.keepalive for peer in peers):
        await tunnels.put_peers(peers)


def _batch(op: Op) -> tuple[str, str]:
    if isinstance(op.item, TunnelPeer):
        return op.verb, op.item.link
    assert isinstance(op.item, Link)
    return op.verb, f"link {op.item.name}"
