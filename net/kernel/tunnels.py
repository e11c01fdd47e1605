"""WireGuard devices among the other links: their part of what is observed and applied.

rtnetlink says that such a link is there, the Tunnels seam whose it is and to whom it leads. Invariant: a
device has its key before it is up.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from msgspec.structs import replace

from model.errors import CommandFailed
from net.backend.wireguard import KEEPALIVE
from net.diff import Op
from net.kernel.netlink import Netlink
from net.state import Link, NetState, TunnelPeer
from net.wireguard.base import Device, Tunnels

NOTHING = Device()


def of_tunnel(op: Op) -> bool:
    """Whether it is for `TunnelLinks`."""
    return isinstance(op.item, TunnelPeer) or (isinstance(op.item, Link) and op.item.kind == "wireguard")


class TunnelLinks:
    def __init__(self, netlink: Netlink, tunnels: Tunnels | None) -> None:
        self._netlink, self._tunnels = netlink, tunnels

    @property
    def kind(self) -> str:
        return self._tunnels.kind if self._tunnels is not None else ""

    async def observed(self, state: NetState) -> NetState:
        """With what its WireGuard devices say; one that says nothing has no end and no peers."""
        names = [name for name, link in state.links.items() if link.kind == "wireguard"]
        if not names or self._tunnels is None:
            return state
        devices = await self._tunnels.observe(names)
        found = {n: replace(state.links[n], wireguard=devices.get(n, NOTHING).end) for n in names}
        peers = frozenset(peer for device in devices.values() for peer in device.peers)
        return replace(state, links={**state.links, **found}, tunnel_peers=peers)

    async def apply(self, operations: Sequence[Op]) -> None:
        """In order; peers of one device that follow each other in one go. Raises CommandFailed."""
        if self._tunnels is None:
            raise CommandFailed(f"cannot {operations[0]}: this host makes no WireGuard devices")
        for (verb, _), run in groupby(operations, key=_batch):
            items = [op.item for op in run]
            peers = [item for item in items if isinstance(item, TunnelPeer)]
            if peers and verb == "remove":
                await self._tunnels.drop_peers(peers)
            elif peers:
                await _put(self._tunnels, peers, greet=verb == "add")
            for link in items:
                if isinstance(link, Link):
                    await self._link(self._tunnels, verb, link)

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


async def _put(tunnels: Tunnels, peers: Sequence[TunnelPeer], *, greet: bool) -> None:
    """New peers are greeted: WireGuard sends at once where keeping alive is switched on, and so begins its
    handshake. The later of two hosts to know the other is understood; the earlier one's first word was not,
    and it would say the next only five seconds later (whitepaper, 6.4)."""
    if greet:
        await tunnels.put_peers([replace(peer, keepalive=peer.keepalive or KEEPALIVE) for peer in peers])
    if not greet or not all(peer.keepalive for peer in peers):
        await tunnels.put_peers(peers)


def _batch(op: Op) -> tuple[str, str]:
    if isinstance(op.item, TunnelPeer):
        return op.verb, op.item.link
    assert isinstance(op.item, Link)
    return op.verb, f"link {op.item.name}"
