"""The Kernel seam: observe, apply, be rung when something changed.

Implementations: `net.kernel.linux.LinuxKernel`, `net.kernel.fake.FakeKernel`; one contract suite for both.
Invariant: `observe` reports objects of ours only, so nothing foreign can ever be removed by a diff.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Protocol

from model.spec import Struct
from net.diff import Operation
from net.endpoint import InstanceNetwork
from net.flows import Change
from net.hostfirewall import HostFirewall
from net.loadbalance import ElementChange, Flow
from net.state import Foot, Link, NetState


class SeenServices(Struct):
    """The table of `net.servicechains` as it stands."""

    chains: Mapping[str, tuple[str, ...]] = {}
    """Rules' comments by chain."""
    elements: Mapping[str, dict[bytes, bytes]] = {}


class Kernel(Protocol):
    async def start(self, ring: Callable[[], None]) -> None:
        """Open what is needed; `ring` is called in the event loop when links, addresses, routes, neighbours
        or nft tables changed, ours or not: a bell, no news."""
        ...

    async def close(self) -> None: ...

    async def observe(self, sysctls: Iterable[str], inner: Sequence[Link] = ()) -> NetState:
        """All of ours, and the values of the named sysctls (those that exist). Links that stand in a
        container are looked for only where they are wanted (`inner`)."""
        ...

    async def fence(self, namespace: str, script: str) -> None:
        """Run an nft script in that network namespace: all of it, or nothing and CommandFailed."""
        ...

    async def ask(self, foot: Foot) -> Mapping[str, str]:
        """Which of its addresses others on its link say that they have: address → MAC. Takes a while
        (`net.kernel.neighbours`), in which other calls may be made."""
        ...

    async def unsteered(self, links: Mapping[str, str]) -> Sequence[str]:
        """Those of these links (name → kind) whose packets are not spread over all processors, though they
        could be; files of each are read."""
        ...

    async def apply(self, operations: Sequence[Operation]) -> None:
        """In order. What is so already is success; else raises CommandFailed naming the first that failed."""
        ...

    async def observe_services(self) -> SeenServices:
        """All of the table of services, in the time that its elements take."""
        ...

    async def change_services(self, change: ElementChange) -> None:
        """One transaction. Raises CommandFailed when an element was not as thought; then nothing changed."""
        ...

    async def track(self, *, come: Set[bytes] = frozenset(), gone: Set[bytes] = frozenset()) -> None:
        """Members of services (packed) that take no shortcut any more (`net.shortcuts`), or may again;
        nothing where there are no shortcuts. Raises CommandFailed if one that comes could still take one; who
        goes though he is not there is no failure."""
        ...

    async def forget(self, flows: Sequence[Flow]) -> None:
        """Datagrams of these flows are no longer sent where they were, nor their clients remembered."""
        ...

    async def forget_connections(self, change: Change, instances: Sequence[InstanceNetwork]) -> None:
        """What is stale of the tracked connections (`net.flows.is_stale`) is tracked no longer; the next
        packet begins anew."""
        ...

    async def connected(self, members: frozenset[bytes]) -> frozenset[bytes]:
        """Those of these addresses (packed) to which a translated connection still leads."""
        ...

    async def host_firewall(self) -> HostFirewall:
        """firewalld's judgement about what comes in, as it stands."""
        ...

    async def nft_changed_by_others(self) -> bool:
        """Whether somebody else changed rules in this namespace since the last call, or since the start."""
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

    def keep_namespaces(self, paths: Iterable[Path]) -> None:
        """As if made here: of those that are held."""
        ...

    async def held_again(self) -> Sequence[Path]:
        """Of the namespaces made or kept, those whose mount somebody took away and that a process lives in;
        their paths hold them again."""
        ...

    def port_is_free(self, protocol: str, host_ip: str, port: int) -> bool:
        """Whether a program could bind it now."""
        ...
