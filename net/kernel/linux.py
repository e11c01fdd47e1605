"""The real kernel behind the Kernel seam: netlink, nft, sysctl and namespaces of the network namespace that
this process is in, and of no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from itertools import groupby
from pathlib import Path

import msgspec

from aio.supervisor import in_thread
from model.errors import CommandFailed, DeadlineExceeded
from net.diff import NftOp, Op, Operation
from net.endpoint import InstanceNetwork
from net.flows import Change
from net.hostfirewall import HostFirewall
from net.kernel import netns, steering, sysctl
from net.kernel.base import SeenServices
from net.kernel.connections import connected_members, forget_connections, forget_datagrams
from net.kernel.grip import Grip, MountBell
from net.kernel.iptables import DockerChain
from net.kernel.monitor import Monitor
from net.kernel.netlink import Netlink
from net.kernel.nft import Nft
from net.kernel.services import ServiceLink
from net.kernel.tunnels import TunnelLinks, of_tunnel
from net.kernel.unrouted import Unrouted
from net.loadbalance import ElementChange, Flow
from net.state import Admission, Foot, Link, NetState
from net.wireguard.base import Tunnels

BULK = 500
"""Elements from which on a transaction is worth not being told of."""
_NO_SUCH_PORT = (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT, errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
"""Nobody can have what this kernel or host does not."""
SOCKET_TYPES = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


def _way(operation: Operation) -> str:
    """Who takes it, with those of the same that follow."""
    if isinstance(operation, NftOp):
        return "nft"
    if isinstance(operation.item, Admission):
        return "docker"
    return "tunnels" if of_tunnel(operation) else "links"


@contextlib.contextmanager
def refusing(what: str) -> Iterator[None]:
    """In whatever way the kernel says no, or a program that speaks with it: CommandFailed."""
    try:
        yield
    except DeadlineExceeded as error:
        raise CommandFailed(f"cannot {what}: {error.message}", hint=error.hint) from error
    except OSError as error:
        raise CommandFailed(f"cannot {what}: {error.strerror or error}") from error


class LinuxKernel:
    """`sysfs` is where the one of this network namespace is mounted; `tunnels` makes WireGuard devices, where
    there are to be any; `unrouted` is the file that remembers what was not routed before."""

    def __init__(
        self, *, sysfs: str = "/sys", tunnels: Tunnels | None = None, unrouted: Path | None = None
    ) -> None:
        self._sysfs = sysfs
        self._netlink = Netlink(sysfs)
        self._tunnels = TunnelLinks(self._netlink, tunnels)
        self._nft = Nft()
        self._services = ServiceLink()
        self._docker = DockerChain()
        self._unrouted = Unrouted(unrouted)
        self._monitor: Monitor | None = None
        self._grip = Grip()
        self._mounts: MountBell | None = None

    @property
    def encrypts(self) -> str:
        """Who makes encrypted tunnels here, for people; empty: nobody can."""
        return self._tunnels.kind

    async def start(self, ring: Callable[[], None]) -> None:
        await self._netlink.start()
        await self._netlink.call(self._services.open)
        self._monitor = Monitor(ring)
        self._monitor.start()
        self._mounts = MountBell(lambda: bool(self._grip.lost()), ring)

    async def close(self) -> None:
        if self._monitor is not None:
            self._monitor.close()
        if self._mounts is not None:
            self._mounts.close()
        await self._tunnels.close()
        await self._netlink.call(self._services.close)
        await self._netlink.call(self._nft.close)
        await self._netlink.close()

    async def observe(self, sysctls: Iterable[str], inner: Sequence[Link] = ()) -> NetState:
        with refusing("look at the network"):
            links = await self._tunnels.observed(await self._netlink.observe(inner))
            tables = await self._netlink.call(self._nft.tables)
            await self._docker.look()
        values, admissions = sysctl.read(sysctls), self._docker.seen
        return msgspec.structs.replace(links, sysctls=values, tables=tables, admissions=admissions)

    async def fence(self, namespace: str, script: str) -> None:
        def run() -> None:
            Nft().run(script)

        with refusing(f"run nft in {namespace}"):
            await self._netlink.call(netns.inside, namespace, run)

    async def ask(self, foot: Foot) -> Mapping[str, str]:
        with refusing(f"ask on {foot.ifname}"):
            return await self._netlink.ask(foot)

    async def unsteered(self, links: Mapping[str, str]) -> Sequence[str]:
        with refusing("look at packet steering"):
            return await asyncio.to_thread(steering.unsteered, dict(links), self._sysfs)

    async def apply(self, operations: Sequence[Operation]) -> None:
        with refusing("change the network"):
            await self._apply(operations)

    async def _apply(self, operations: Sequence[Operation]) -> None:
        """In turn, and the packet filter's in one transaction: a container's start waits for each."""
        for way, run in groupby(operations, _way):
            scripts, changes = list[str](), list[Op]()
            for operation in run:
                scripts += [operation.script] if isinstance(operation, NftOp) else []
                changes += [operation] if isinstance(operation, Op) else []
            if way == "nft":
                await self._netlink.call(self._transact, "".join(scripts))
            elif way == "docker":
                for change in changes:
                    assert isinstance(change.item, Admission)
                    await self._docker.change(change.item, remove=change.verb == "remove")
            elif way == "tunnels":
                await self._tunnels.apply(changes)
            else:
                await self._netlink.apply(changes)

    def _transact(self, script: str) -> None:
        """In one turn of the thread."""
        self._services.before()
        self._nft.run(script)
        self._services.after()

    async def observe_services(self) -> SeenServices:
        with refusing("list the services of this host"):
            return await self._netlink.call(self._services.observe)

    async def change_services(self, change: ElementChange) -> None:
        with refusing("change the services of this host"), self._deaf(change.size):
            await self._netlink.call(self._services.change, change)

    async def track(self, *, come: Set[bytes] = frozenset(), gone: Set[bytes] = frozenset()) -> None:
        with refusing("change who takes shortcuts"), self._deaf(len(come) + len(gone)):
            await self._netlink.call(self._services.track, come, gone)

    def _deaf(self, size: int) -> contextlib.AbstractContextManager[None]:
        """While so many elements are changed."""
        monitor = self._monitor if size > BULK else None
        return contextlib.nullcontext() if monitor is None else monitor.deaf_to_nft()

    async def forget(self, flows: Sequence[Flow]) -> None:
        with refusing("forget datagrams"):
            await self._netlink.call(self._services.forget_clients, flows)
            await asyncio.to_thread(forget_datagrams, flows)

    async def forget_connections(self, change: Change, instances: Sequence[InstanceNetwork]) -> None:
        with refusing("forget connections"):
            await asyncio.to_thread(forget_connections, change, tuple(instances))

    async def connected(self, members: frozenset[bytes]) -> frozenset[bytes]:
        with refusing("list connections"):
            return await asyncio.to_thread(connected_members, members)

    async def host_firewall(self) -> HostFirewall:
        with refusing("look at the host's firewall"):
            found = await self._netlink.call(self._nft.host_firewall)
            await self._docker.look()
            unrouted = await self._netlink.call(self._unrouted.look)
        return msgspec.structs.replace(found, admissions=self._docker.wanted, unrouted=unrouted)

    async def nft_changed_by_others(self) -> bool:
        with refusing("ask for the generation of rules"):
            return await self._netlink.call(self._services.changed_by_others)

    async def make_namespace(self, path: Path) -> None:
        with refusing(f"make the network namespace {path}"):
            self._grip.keep(path, await self._netlink.call(netns.make, path))

    async def drop_namespace(self, path: Path) -> None:
        self._grip.let_go(path)
        with refusing(f"drop the network namespace {path}"):
            await self._netlink.call(netns.drop, path)

    def has_namespace(self, path: Path) -> bool:
        return netns.is_held(path)

    def keep_namespaces(self, paths: Iterable[Path]) -> None:
        for path in filter(netns.is_held, paths):
            self._grip.keep(path, netns.cookie_of(path))

    async def held_again(self) -> Sequence[Path]:
        found: Sequence[Path] = await in_thread(self._grip.again)
        return found

    def port_is_free(self, protocol: str, host_ip: str, port: int) -> bool:
        """By binding it for a moment, without SO_REUSEPORT. A kernel without SCTP can't hold such a port."""
        kind = SOCKET_TYPES.get(protocol, socket.SOCK_SEQPACKET)
        family = socket.AF_INET6 if ":" in host_ip else socket.AF_INET
        number = 132 if protocol == "sctp" else 0
        try:
            with socket.socket(family, kind, number) as probe:
                if protocol == "tcp":
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind((host_ip, port))
        except OSError as error:
            if error.errno in _NO_SUCH_PORT:
                return True
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
        return True
