"""WireGuard by the kernel itself: links by rtnetlink, keys and peers by generic netlink
(`net.wireguard.genl`).

Not shown with a real kernel on machines whose kernel has none; there the messages are what is tested.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from model.errors import CommandFailed
from net.kernel import rtnl
from net.state import TunnelPeer
from net.wireguard import genl, keys
from net.wireguard.base import Device

KIND = "wireguard"
_GENERIC, _ROUTE = 16, 0
_ABSENT = (errno.ENODEV, errno.ENOENT, errno.EOPNOTSUPP)


class Wire(Protocol):
    """Netlink, so far as it is needed here; tests have one of their own."""

    def ask(self, protocol: int, kind: int, flags: int, body: bytes) -> list[bytes]:
        """The bodies that answer one request. Raises OSError with the kernel's errno."""
        ...


class NetlinkWire:
    """A socket per request: changes of devices are rare."""

    def ask(self, protocol: int, kind: int, flags: int, body: bytes) -> list[bytes]:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as link:
            link.settimeout(10.0)
            link.bind((0, 0))
            if flags & rtnl.DUMP == rtnl.DUMP:
                return rtnl.dump(link, kind, body)
            link.send(rtnl.message(kind, flags, body))
            found: list[bytes] = []
            while True:
                data, at = link.recv(1 << 18), 0
                while at + 16 <= len(data):
                    length, what = struct.unpack_from("=IH", data, at)
                    if what == rtnl.NLMSG_ERROR:
                        number = -struct.unpack_from("=i", data, at + 16)[0]
                        if number:
                            raise OSError(number, os.strerror(number))
                        return found
                    found.append(data[at + 16 : at + length])
                    at += length + (-length % 4)


class KernelTunnels:
    def __init__(self, wire: Wire | None = None) -> None:
        self._wire: Wire = wire if wire is not None else NetlinkWire()
        self._family: int | None = None

    @property
    def kind(self) -> str:
        return "kernel" if self._number() else ""

    async def make(self, name: str) -> None:
        info = rtnl.attr(rtnl.IFLA_LINKINFO, rtnl.attr(rtnl.IFLA_INFO_KIND, KIND.encode() + b"\0"))
        body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + rtnl.attr(rtnl.IFLA_IFNAME, name.encode() + b"\0")
        try:
            await self._run(f"make {name}", _ROUTE, rtnl.RTM_NEWLINK, rtnl.CREATE | rtnl.EXCL, body + info)
        except CommandFailed:
            if name not in await self.observe([name]):  # whatever has that name is no WireGuard device
                raise

    async def configure(self, name: str, key_file: Path, port: int) -> None:
        await self._set(f"configure {name}", [genl.own(name, keys.read(key_file), port)])

    async def put_peers(self, peers: Sequence[TunnelPeer]) -> None:
        name = peers[0].link
        await self._set(f"set peers of {name}", genl.put(name, [(keys.bytes_of(p.key), p) for p in peers]))

    async def drop_peers(self, peers: Sequence[TunnelPeer]) -> None:
        name = peers[0].link
        await self._set(f"drop peers of {name}", genl.drop(name, [keys.bytes_of(p.key) for p in peers]))

    async def observe(self, names: Iterable[str]) -> Mapping[str, Device]:
        found: dict[str, Device] = {}
        for name in names:
            try:
                bodies = await self._ask(_GENERIC, self._number(), rtnl.DUMP, genl.get_device(name))
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise CommandFailed(f"cannot look at {name}: {error.strerror}") from error
                continue
            found[name] = genl.device(name, bodies)
        return found

    async def remove(self, name: str) -> None:
        body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + rtnl.attr(rtnl.IFLA_IFNAME, name.encode() + b"\0")
        await self._run(f"remove {name}", _ROUTE, rtnl.RTM_NEWLINK + 1, 0, body, but=_ABSENT)

    def _number(self) -> int:
        """The kernel's number of the family; asking loads its module. 0: it has none."""
        if self._family is None:
            try:
                (body,) = self._wire.ask(_GENERIC, genl.GENL_ID_CTRL, 0, genl.family_request())
                self._family = genl.family_of(body)
            except (OSError, ValueError):
                self._family = 0
        return self._family

    async def _set(self, what: str, messages: Iterable[bytes]) -> None:
        for body in messages:
            await self._run(what, _GENERIC, self._number(), 0, body)

    async def _run(
        self, what: str, protocol: int, kind: int, flags: int, body: bytes, *, but: Sequence[int] = ()
    ) -> None:
        try:
            await self._ask(protocol, kind, flags, body)
        except OSError as error:
            if error.errno not in but:
                raise CommandFailed(f"the kernel refused to {what}: {error.strerror}") from error

    async def _ask(self, protocol: int, kind: int, flags: int, body: bytes) -> list[bytes]:
        """In a thread, which stays in this network namespace: the kernel works within the send."""
        return await asyncio.to_thread(self._wire.ask, protocol, kind, flags, body)
