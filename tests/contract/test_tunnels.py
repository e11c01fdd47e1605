"""What every Tunnels promises: wireguard-go for real, and the kernel's over a netlink of the tests' own,
which answers as linux/wireguard.h says (kernels that have none are what tests run on)."""

from __future__ import annotations

import base64
import errno
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from model.errors import CommandFailed
from net.kernel import rtnl
from net.kernel.host import TUNNELS
from net.state import TunnelPeer, WireGuard
from net.wireguard import genl, keys
from net.wireguard.base import Tunnels
from net.wireguard.choice import HostTunnels
from net.wireguard.kernel import KernelTunnels
from net.wireguard.userspace import UserspaceTunnels
from tests.support.ownnetns import own_network_namespace

NAME = "flwtest0"
FAMILY = 33


class FakeWire:
    """A kernel's devices by name: their private key and port, and peers as the bytes of their attributes."""

    def __init__(self, family: int = FAMILY) -> None:
        self.family = family
        self.devices: dict[str, dict[bytes, dict[int, bytes]]] = {}
        self.own: dict[str, tuple[bytes, bytes]] = {}

    def ask(self, protocol: int, kind: int, flags: int, body: bytes) -> list[bytes]:
        if protocol == 16 and kind == genl.GENL_ID_CTRL:
            return [self._family()]
        if protocol == 0:
            return self._link(kind, body)
        assert (protocol, kind) == (16, self.family)
        found = genl.attributes(body, 4)
        name = found[genl.IFNAME].rstrip(b"\0").decode()
        if name not in self.devices:
            raise OSError(errno.ENODEV, "No such device")
        return self._shown(name) if body[0] == genl.GET_DEVICE else self._set(name, found)

    def _family(self) -> bytes:
        if not self.family:
            raise OSError(errno.ENOENT, "No such file or directory")
        return bytes(4) + genl._attr(genl.CTRL_ATTR_FAMILY_ID, struct.pack("=H", self.family))

    def _link(self, kind: int, body: bytes) -> list[bytes]:
        name = genl.attributes(body, 16)[rtnl.IFLA_IFNAME].rstrip(b"\0").decode()
        if kind == rtnl.RTM_NEWLINK and name in self.devices:
            raise OSError(errno.EEXIST, "File exists")
        if kind == rtnl.RTM_NEWLINK:
            self.devices[name] = {}
        elif self.devices.pop(name, None) is None:
            raise OSError(errno.ENODEV, "No such device")
        self.own.pop(name, None)
        return []

    def _set(self, name: str, found: dict[int, bytes]) -> list[bytes]:
        if genl.PRIVATE_KEY in found:
            self.own[name] = found[genl.PRIVATE_KEY], found[genl.LISTEN_PORT]
        for _, raw in genl.items(found.get(genl.PEERS, b""), 0):
            peer = genl.attributes(raw, 0)
            flags = struct.unpack("=I", peer.pop(genl.PEER_FLAGS))[0]
            if flags & genl.REMOVE_ME:
                self.devices[name].pop(peer[genl.PEER_KEY], None)
            else:
                self.devices[name].setdefault(peer[genl.PEER_KEY], {}).update(peer)
        return []

    def _shown(self, name: str) -> list[bytes]:
        private, port = self.own.get(name, (b"", b"\0\0"))
        public = base64.b64decode(keys.public(private)) if private else bytes(32)
        body = bytes(4) + genl._attr(genl.PUBLIC_KEY, public) + genl._attr(genl.LISTEN_PORT, port)
        peers = (b"".join(genl._attr(k, v) for k, v in peer.items()) for peer in self.devices[name].values())
        nested = b"".join(genl._attr(i, peer) for i, peer in enumerate(peers))
        return [body + genl._attr(genl.PEERS, nested)]


@pytest.fixture(params=["kernel", pytest.param("program", marks=pytest.mark.kernel)])
async def tunnels(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Tunnels]:
    if request.param == "kernel":
        yield KernelTunnels(FakeWire())
        return
    with own_network_namespace():
        made = UserspaceTunnels(tmp_path / TUNNELS)
        yield made
        await made.remove(NAME)


def peer(tmp_path: Path, index: int, **more: object) -> TunnelPeer:
    words = {"allowed": (f"10.1.{index}.0/24", f"fd00:1::{index}00/120"), **more}
    return TunnelPeer(link=NAME, key=keys.make(tmp_path / f"peer{index}"), **words)  # type: ignore[arg-type]


async def test_device_is_seen_as_it_was_made(tunnels: Tunnels, tmp_path: Path) -> None:
    public = keys.make(tmp_path / "key")
    await tunnels.make(NAME)
    bare = (await tunnels.observe([NAME, "flwnone0"]))[NAME]
    assert bare.end is None and bare.peers == ()
    await tunnels.configure(NAME, tmp_path / "key", 51999)
    one = peer(tmp_path, 1, endpoint="198.18.0.12:51830")
    two = peer(tmp_path, 2, endpoint="[2001:db8::9]:40000", keepalive=25)
    three = peer(tmp_path, 3)
    await tunnels.put_peers([one, two, three])
    found = await tunnels.observe([NAME])
    assert found.keys() == {NAME}
    assert found[NAME].end == WireGuard(key=public, port=51999)
    assert set(found[NAME].peers) == {one, two, three}


async def test_peer_put_again_is_as_last_said_and_keeps_where_it_was_found(
    tunnels: Tunnels, tmp_path: Path
) -> None:
    keys.make(tmp_path / "key")
    await tunnels.make(NAME)
    await tunnels.configure(NAME, tmp_path / "key", 51999)
    one = peer(tmp_path, 1, endpoint="198.18.0.12:51830")
    await tunnels.put_peers([one])
    wide = TunnelPeer(link=NAME, key=one.key, allowed=("10.1.9.0/24",), keepalive=25)
    await tunnels.put_peers([wide])
    (seen,) = (await tunnels.observe([NAME]))[NAME].peers
    assert (seen.allowed, seen.keepalive, seen.endpoint) == (("10.1.9.0/24",), 25, "198.18.0.12:51830")
    await tunnels.drop_peers([one])
    await tunnels.drop_peers([one])
    assert (await tunnels.observe([NAME]))[NAME].peers == ()


async def test_device_that_was_made_before_is_taken_as_it_is(tunnels: Tunnels, tmp_path: Path) -> None:
    public = keys.make(tmp_path / "key")
    await tunnels.make(NAME)
    await tunnels.configure(NAME, tmp_path / "key", 51999)
    await tunnels.make(NAME)
    assert (await tunnels.observe([NAME]))[NAME].end == WireGuard(key=public, port=51999)


async def test_removed_device_is_not_seen_and_removing_it_again_is_nothing(
    tunnels: Tunnels, tmp_path: Path
) -> None:
    await tunnels.make(NAME)
    await tunnels.remove(NAME)
    await tunnels.remove(NAME)
    assert await tunnels.observe([NAME]) == {}


async def test_wrong_keys_are_refused_and_their_bytes_not_told(tunnels: Tunnels, tmp_path: Path) -> None:
    await tunnels.make(NAME)
    (tmp_path / "bad").write_text("c2VjcmV0LXRoaW5n")
    with pytest.raises(CommandFailed) as refused:
        await tunnels.configure(NAME, tmp_path / "bad", 51999)
    assert "c2VjcmV0" not in str(refused.value) and "secret" not in str(refused.value)
    with pytest.raises(CommandFailed):
        await tunnels.configure(NAME, tmp_path / "none", 51999)
    with pytest.raises(CommandFailed, match="no WireGuard key"):
        await tunnels.put_peers([TunnelPeer(link=NAME, key="x; evil\nremove=true", allowed=())])


async def test_host_without_the_kernels_takes_the_program_and_stays_with_who_made_it(tmp_path: Path) -> None:
    with_it = HostTunnels(tmp_path / "none", kernel=KernelTunnels(FakeWire()))
    assert with_it.kind == "kernel"
    await with_it.make(NAME)
    assert (await with_it.observe([NAME])).keys() == {NAME}
    await with_it.remove(NAME)
    without = HostTunnels(tmp_path / "none", kernel=KernelTunnels(FakeWire(family=0)))
    assert without.kind in ("wireguard-go", "")
    assert await without.observe([NAME]) == {}
