"""The Tunnels seam: WireGuard devices made, configured, looked at, taken away.

Implementations: `net.wireguard.kernel.KernelTunnels`, `net.wireguard.userspace.UserspaceTunnels`, and
`net.wireguard.choice.HostTunnels` (whichever this host has); one contract suite for all. The Kernel seam's
fake stands for them in the tests of everything above. Invariant: no private key is in a value that is
returned, compared or told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from model.spec import Struct
from net.state import TunnelPeer, WireGuard


class Device(Struct):
    """As it stands; `end` None: it has no key, so it sends and takes nothing."""

    end: WireGuard | None = None
    peers: tuple[TunnelPeer, ...] = ()
    strangers: frozenset[str] = frozenset()
    """Keys of those of them with whom a handshake was never finished."""


class Tunnels(Protocol):
    @property
    def kind(self) -> str:
        """Who encrypts, for people: `kernel`, the program's name, or empty where nobody can."""
        ...

    async def make(self, name: str) -> None:
        """A device of that name. One that an earlier process of ours made, and did not finish, is taken as it
        is. Raises CommandFailed."""
        ...

    async def configure(self, name: str, key_file: Path, port: int) -> None:
        """Its private key, in base64 in that file, and where it listens. Raises CommandFailed."""
        ...

    async def put_peers(self, peers: Sequence[TunnelPeer]) -> None:
        """Of one device: new, or as they are to be now. An empty endpoint leaves the one that it learned."""
        ...

    async def drop_peers(self, peers: Sequence[TunnelPeer]) -> None:
        """Of one device. Idempotent."""
        ...

    async def observe(self, names: Iterable[str]) -> Mapping[str, Device]:
        """Those of these devices that answer."""
        ...

    async def remove(self, name: str) -> None:
        """Idempotent; returns once nothing of it is left."""
        ...
