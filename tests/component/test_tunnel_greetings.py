"""Who speaks first on a new tunnel: two hosts that are told of each other at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

import pytest

from model.errors import CommandFailed
from net.diff import Op
from net.kernel.netlink import Netlink
from net.kernel.tunnels import TunnelLinks
from net.state import TunnelPeer, WireGuard
from net.wireguard.base import Device
from tests.support.waiting import until

LINK = "flwtest0"


class FakeTunnels:
    """One device. A peer that is greeted is met if `answers`."""

    kind = "fake"

    def __init__(self, own: str, *, answers: bool) -> None:
        self.own, self.answers, self.broken = own, answers, False
        self.peers: dict[str, TunnelPeer] = {}
        self.met: set[str] = set()
        self.greeted: list[str] = []
        self.dropped: list[str] = []

    async def make(self, name: str) -> None: ...
    async def remove(self, name: str) -> None: ...
    async def configure(self, name: str, key_file: Path, port: int) -> None: ...

    async def put_peers(self, peers: Sequence[TunnelPeer]) -> None:
        if self.broken:
            raise CommandFailed("it does not answer")
        for peer in peers:
            if peer.keepalive and not (peer.key in self.peers and self.peers[peer.key].keepalive):
                self.greeted.append(peer.key)
                self.met |= {peer.key} if self.answers else set()
            self.peers[peer.key] = peer

    async def drop_peers(self, peers: Sequence[TunnelPeer]) -> None:
        for peer in peers:
            self.peers.pop(peer.key, None)
            self.dropped.append(peer.key)

    async def observe(self, names: Iterable[str]) -> Mapping[str, Device]:
        strangers = frozenset(self.peers.keys() - self.met)
        end = WireGuard(key=self.own, port=1)
        return {LINK: Device(end=end, peers=tuple(self.peers.values()), strangers=strangers)}


def adding(*keys: str, endpoint: str = "198.18.0.2:9") -> list[Op]:
    return [Op(verb="add", item=TunnelPeer(link=LINK, key=k, allowed=(), endpoint=endpoint)) for k in keys]


def links(tunnels: FakeTunnels) -> TunnelLinks:
    return TunnelLinks(cast(Netlink, None), tunnels, pause=0.02)


async def test_the_greater_key_speaks_at_once_and_the_other_afresh_if_they_have_not_met() -> None:
    tunnels = FakeTunnels("m", answers=False)
    made = links(tunnels)
    await made.apply(adding("a", "z"))
    assert tunnels.greeted == ["a"] and not tunnels.dropped
    await until(lambda: tunnels.greeted == ["a", "z"] and tunnels.peers["z"].keepalive == 0, deadline=5)
    assert tunnels.dropped == ["z"] and set(tunnels.peers) == {"a", "z"}
    await made.close()


async def test_a_host_that_was_met_or_has_gone_meanwhile_is_not_greeted() -> None:
    tunnels = FakeTunnels("m", answers=False)
    made = links(tunnels)
    await made.apply(adding("x", "y"))
    await made.apply(adding("v", endpoint=""))
    tunnels.met.add("x")  # it spoke
    await made.apply([Op(verb="remove", item=tunnels.peers["y"])])
    await until(lambda: not made._later.names(), deadline=5)
    assert tunnels.greeted == [] and set(tunnels.peers) == {"x", "v"} and tunnels.dropped == ["y"]
    await made.close()


async def test_a_device_that_does_not_answer_is_told_and_closing_ends_what_waits(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tunnels = FakeTunnels("m", answers=False)
    made = links(tunnels)
    await made.apply(adding("x"))
    tunnels.broken = True
    await until(lambda: "its peers are not greeted: it does not answer" in caplog.text, deadline=5)
    tunnels.broken = False
    await made.apply(adding("y"))
    await made.close()
    await asyncio.sleep(0)
    assert tunnels.greeted == []
