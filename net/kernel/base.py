"""The Kernel seam: observe, apply, be rung when something changed.

Implementations: `net.kernel.linux.LinuxKernel`, `net.kernel.fake.FakeKernel`; one contract suite for both.
Invariant: `observe` reports objects of ours only, so nothing foreign can ever be removed by a diff.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from net.diff import Operation
from net.state import NetState


class Kernel(Protocol):
    async def start(self, ring: Callable[[], None]) -> None:
        """Open what is needed; `ring` is called in the event loop when links, addresses, routes, neighbours
        or nft tables changed, ours or not: a bell, no news."""
        ...

    async def close(self) -> None: ...

    async def observe(self, sysctls: Iterable[str]) -> NetState:
        """All of ours, and the values of the named sysctls (those that exist)."""
        ...

    async def apply(self, operations: Sequence[Operation]) -> None:
        """In order. What is so already is success; else raises CommandFailed naming the first that failed."""
        ...

    async def make_namespace(self, path: Path) -> None:
        """A network namespace with loopback up, held by a mount on `path`. Raises AlreadyExists."""
        ...

    async def drop_namespace(self, path: Path) -> None:
        """Idempotent; links inside go with it."""
        ...

    def has_namespace(self, path: Path) -> bool:
        """Whether `path` holds a namespace, not only a left-over file."""
        ...

    def port_is_free(self, protocol: str, host_ip: str, port: int) -> bool:
        """Whether a program could bind it now."""
        ...
