"""Whichever WireGuard this host has: the kernel's, else wireguard-go. A device stays with who made it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from net.state import TunnelPeer
from net.wireguard.base import Device
from net.wireguard.kernel import KernelTunnels
from net.wireguard.userspace import UserspaceTunnels


class HostTunnels:
    def __init__(self, folder: Path, *, own_cgroup: str = "", kernel: KernelTunnels | None = None) -> None:
        self._kernel = kernel if kernel is not None else KernelTunnels()
        self._program = UserspaceTunnels(folder, own_cgroup=own_cgroup)

    @property
    def kind(self) -> str:
        return self._kernel.kind or self._program.kind

    async def make(self, name: str) -> None:
        await (self._kernel if self._kernel.kind else self._program).make(name)

    async def configure(self, name: str, key_file: Path, port: int) -> None:
        await self._of(name).configure(name, key_file, port)

    async def put_peers(self, peers: Sequence[TunnelPeer]) -> None:
        await self._of(peers[0].link).put_peers(peers)

    async def drop_peers(self, peers: Sequence[TunnelPeer]) -> None:
        await self._of(peers[0].link).drop_peers(peers)

    async def observe(self, names: Iterable[str]) -> Mapping[str, Device]:
        asked = tuple(names)
        ours = [name for name in asked if self._program.drives(name)]
        found = dict(await self._program.observe(ours))
        if len(ours) < len(asked) and self._kernel.kind:
            found.update(await self._kernel.observe(name for name in asked if name not in ours))
        return found

    async def remove(self, name: str) -> None:
        await self._of(name).remove(name)

    def _of(self, name: str) -> KernelTunnels | UserspaceTunnels:
        return self._program if self._program.drives(name) or not self._kernel.kind else self._kernel
