"""Links, addresses, neighbours, FDB entries and routes through pyroute2, which only this module imports.

The kernel works on a request within the send, so a slow one (deleting a veth: 16 ms) would stall the event
loop: one thread with a plain asyncio loop of its own owns all sockets. Bulk and hot messages are packed by
hand (`net.kernel.rtnl`). Objects of ours are those whose name has our prefix and whose alias says so; routes
and rules are those of our protocol number.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from pyroute2 import AsyncIPRoute, NetlinkError

from model.errors import CommandFailed
from net.diff import Op, describe
from net.kernel import netns, places, rtnl, steering, sysctl, tc
from net.kernel.announce import Herald
from net.kernel.observed import DUMPS, entrances, state_of
from net.returnpath import REPLY_PRIORITY, REPLY_TABLE
from net.state import (
    Address,
    Detour,
    Fdb,
    Foot,
    Limit,
    Link,
    Neighbour,
    NetState,
    PolicyRule,
    Route,
    Steering,
    Sysctl,
    Way,
)

T = TypeVar("T")

GONE = (errno.ENODEV, errno.ESRCH, errno.ENOENT, errno.EADDRNOTAVAIL)
"""Answers to a removal that mean: it is not there."""
DUMP_TRIES = 20


class Netlink:
    """All methods but `start` and `close` may be called from any loop."""

    def __init__(self, sysfs: str) -> None:
        self._sysfs = sysfs
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="flota-netlink", daemon=True)
        self._turn = asyncio.Lock()
        self._route: Any = None
        self._socket: socket.socket | None = None
        self._herald = Herald()

    async def start(self) -> None:
        self._thread.start()
        await self._there(self._open())

    async def close(self) -> None:
        await self._there(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def observe(self) -> NetState:
        return await self._there(self._observe())

    async def apply(self, operations: Sequence[Op]) -> None:
        """In order; raises CommandFailed for the first that the kernel refuses."""
        await self._there(self._apply(operations))

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """A short blocking call on the thread."""

        async def run() -> T:
            return function(*args)

        return await self._there(run())

    async def _there(self, work: Coroutine[Any, Any, T]) -> T:
        """Run on the thread's loop. A cancelled caller leaves it to finish: a half-done change helps
        nobody."""
        turn = asyncio.run_coroutine_threadsafe(self._in_turn(work), self._loop)
        return await asyncio.shield(asyncio.wrap_future(turn))

    async def _in_turn(self, work: Coroutine[Any, Any, T]) -> T:
        async with self._turn:
            return await work

    async def _open(self) -> None:
        self._route = AsyncIPRoute(groups=0)
        await self._route.setup_endpoint()
        self._socket = rtnl.connect()

    async def _shut(self) -> None:
        self._route.close()
        self._herald.close()
        if self._socket is not None:
            self._socket.close()

    async def _observe(self) -> NetState:
        """Listed by hand: pyroute2's decoder takes a millisecond per link, and there is one per container."""
        assert self._socket is not None
        for _ in range(DUMP_TRIES):
            try:
                seen = {what: rtnl.dump(self._socket, *ask) for what, ask in DUMPS.items()}
                stand = [rtnl.dump(self._socket, *tc.filters_of(i)) for i in entrances(seen["qdiscs"])]
                return state_of(**seen, filters=[message for one in stand for message in one])
            except InterruptedError:
                continue
        raise CommandFailed(f"the network changed {DUMP_TRIES} times while it was listed")

    async def _apply(self, operations: Sequence[Op]) -> None:
        batch: list[tuple[Op, bytes]] = []
        for op in operations:
            try:
                packed = _packed(op)
            except OSError as error:
                if op.verb == "remove" and error.errno in GONE:
                    continue
                raise _refused(op, error) from error
            if packed is not None:
                batch.append((op, packed))
                continue
            self._send(batch)
            batch = []
            await self._single(op)
        self._send(batch)

    def _send(self, batch: list[tuple[Op, bytes]]) -> None:
        assert self._socket is not None
        results = rtnl.transact(self._socket, [packed for _, packed in batch])
        for (op, _), number in zip(batch, results, strict=True):
            if number and not (op.verb == "remove" and number in GONE):
                raise _refused(op, OSError(number, os.strerror(number)))
        places.forget(self._socket, [op.item for op, _ in batch if op.verb == "remove"])

    async def _single(self, op: Op) -> None:
        try:
            match op.item:
                case Link() if op.verb == "remove":
                    await self._remove_link(op.item)
                case Link() if op.verb == "change":
                    await self._change_link(op.item)
                case Link():
                    await self._add_link(op.item)
                case Sysctl():
                    sysctl.write(op.item.path, op.item.value)
                case Steering(link=name, kind=kind):
                    steering.spread(name, kind, self._sysfs)
                case Detour(link=name, to=other):
                    self._lead_aside(name, other)
                case Way(foot=foot):
                    netns.inside(foot.namespace, lambda: _lead(foot))
                case _:
                    raise AssertionError(f"{op} is packed")
        except NetlinkError as error:
            raise _refused(op, OSError(error.code, error.args[1] if len(error.args) > 1 else "")) from error
        except OSError as error:
            raise _refused(op, error) from error

    async def _remove_link(self, link: Link) -> None:
        try:
            await self._route.link("del", index=_index(link.name))
        except OSError as error:
            if error.errno not in GONE:
                raise
        except NetlinkError as error:
            if error.code not in GONE:
                raise

    async def _change_link(self, link: Link) -> None:
        index = _index(link.name)
        words: dict[str, Any] = {"ifalias": link.alias, "mtu": link.mtu}
        if link.mac:
            words["address"] = link.mac
        if link.kind == "bridge":
            snooping = int(link.multicast_snooping)
            await self._route.link("set", index=index, kind="bridge", br_mcast_snooping=snooping)
        master = _index(link.master) if link.master else 0
        await self._route.link("set", index=index, master=master, state="up", **words)
        if link.foot is not None:
            foot, mtu = link.foot, link.mtu
            netns.inside(foot.namespace, lambda: _resize(foot.ifname, mtu))
        if link.kind == "veth" and not link.peer:
            self._announce(link, ())

    async def _add_link(self, link: Link) -> None:
        try:
            await self._make_link(link)
        except NetlinkError as error:
            if error.code == errno.EEXIST and link.peer:
                await self._change_link(link)
                return
            if error.code != errno.EEXIST or not await self._half_made(link):
                raise
            if link.kind == "veth":
                await self._remove_link(link)
                await self._make_link(link)
        if link.steered:
            steering.spread(link.name, link.kind, self._sysfs)
        if link.foot is None:
            await self._change_link(link)
        else:
            netns.inside(link.foot.namespace, lambda foot=link.foot: _stand(foot))  # type: ignore[misc]
            self._announce(link, link.foot.addresses, link.foot.mac)
            if link.foot.onlink:
                told = (cidr.partition("/")[0] for cidr in link.foot.addresses)
                self._herald.tell(link.master, link.foot.mac, told)

    async def _half_made(self, link: Link) -> bool:
        """Whether the link of that name is one we were making when we died (it has no alias yet), one whose
        alias was taken away, or an endpoint's whose namespace the kernel is still taking down. What isn't as
        it should be of a bridge or tunnel, the next look finds."""
        if not _is_there(link):
            return False
        found = [m async for m in await self._route.get_links(index=_index(link.name))]
        alias = found[0].get_attr("IFLA_IFALIAS") if found else None
        if link.kind == "veth":
            return not alias or alias == link.alias
        return not alias and found[0].get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == link.kind

    async def _make_link(self, link: Link) -> None:
        if link.foot is not None:
            self._make_pair(link, link.foot)
            return
        words: dict[str, Any] = {"ifname": link.name, "kind": link.kind, "mtu": link.mtu}
        if link.mac:
            words["address"] = link.mac
        if link.kind == "bridge":
            words |= {"br_mcast_snooping": int(link.multicast_snooping), "br_stp_state": 0}
        if link.vxlan is not None:
            local = "vxlan_local6" if ":" in link.vxlan.local else "vxlan_local"
            words |= {"vxlan_id": link.vxlan.vni, "vxlan_port": link.vxlan.port, local: link.vxlan.local}
            words["vxlan_learning"] = int(link.vxlan.learning)
        if link.peer:
            words["peer"] = {"ifname": link.peer, "mtu": link.mtu}
        await self._route.link("add", **words)

    def _make_pair(self, link: Link, foot: Foot) -> None:
        """Of an endpoint: packed by hand, for it is on the way of a starting container."""
        assert self._socket is not None
        master = _index(link.master)
        handle = os.open(foot.namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            pair = rtnl.veth(link.name, link.mtu, master, peer=foot.ifname, mac=foot.mac, namespace=handle)
            (number,) = rtnl.transact(self._socket, [pair])
        finally:
            os.close(handle)
        if number:
            raise NetlinkError(number, os.strerror(number))

    def _lead_aside(self, name: str, other: str) -> None:
        """By the one filter at a link's entrance, whatever stood there."""
        assert self._socket is not None
        index, to = _index(name), _index(other)
        rtnl.transact(self._socket, [tc.no_entrance(index)])
        rtnl.check(rtnl.transact(self._socket, [tc.entrance(index), tc.detour(index, to)]), accept=(0,))

    def _announce(self, link: Link, addresses: Sequence[str], mac: str = "") -> None:
        """Mark an endpoint's host side as ours and tell the host's own neighbour table whose its addresses
        are now: no ARP round trip, no stale MAC."""
        assert self._socket is not None
        index, bridge = _index(link.name), _index(link.master)
        texts = (cidr.partition("/")[0] for cidr in addresses)
        messages = [rtnl.neighbour(bridge, text, mac, state=rtnl.NUD_STALE) for text in texts]
        if _bridges_filter():
            messages.append(rtnl.port_hairpin(index))
        rtnl.check(rtnl.transact(self._socket, [*messages, rtnl.link_alias(index, link.alias)]))


def _index(name: str) -> int:
    """Raises OSError with ENODEV, which the standard library leaves out."""
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise OSError(errno.ENODEV, f"no link {name}") from error


def _is_there(link: Link) -> bool:
    try:
        return bool(_index(link.name))
    except OSError:
        return False


def _bridges_filter() -> bool:
    """Whether br_netfilter sees IPv4 frames. It then bridges a frame that destination NAT turned back to its
    sender straight to that port, which only a port in hairpin mode lets out again."""
    path = "net/bridge/bridge-nf-call-iptables"
    return sysctl.read((path,)).get(path) == "1"


def _packed(op: Op) -> bytes | None:
    """The hand-packed message of an operation, None for those that go through pyroute2."""
    add = op.verb != "remove"
    match op.item:
        case Address(link=link, cidr=cidr):
            index = _index(link)
            return rtnl.address(index, cidr) if add else rtnl.no_address(index, cidr)
        case Neighbour(link=link, address=address, mac=mac):
            index = _index(link)
            return rtnl.neighbour(index, address, mac) if add else rtnl.no_neighbour(index, address)
        case Fdb(link=link, mac=mac, remote=remote):
            return rtnl.fdb(_index(link), mac, remote, add=add)
        case Route(destination=destination, link=link, via=via, source=source, table=table):
            index = _index(link) if link else 0
            if not add:
                return rtnl.no_route(destination, index, table=table)
            mode = rtnl.REPLACE if op.verb == "change" else rtnl.EXCL
            return rtnl.route(destination, index, via, source, table=table, mode=mode)
        case PolicyRule():
            return rtnl.policy_rule(op.item, add=add)
        case Limit(link=link, rate=rate):
            return tc.limit(_index(link), rate) if add else tc.no_limit(_index(link))
        case Detour(link=link) if not add:
            return tc.no_entrance(_index(link))
        case _:
            return None


def _stand(foot: Foot) -> None:
    """Inside the container's namespace: addresses and routes of an endpoint, in one send."""
    ipv6 = any(":" in cidr for cidr in foot.addresses)
    switches = f"net/ipv6/conf/{foot.ifname}"
    sysctl.write(f"{switches}/disable_ipv6", "0" if ipv6 else "1")
    if ipv6:
        sysctl.write(f"{switches}/accept_ra", "0")
        sysctl.write(f"{switches}/accept_dad", "0")
    index = _index(foot.ifname)
    messages = [rtnl.address(index, cidr) for cidr in foot.addresses]
    messages += [rtnl.link_up(index), *_ways(foot, index)]
    with rtnl.connect() as link:
        rtnl.check(rtnl.transact(link, messages))
    for path, value in foot.sysctls.items():
        sysctl.write(path, value)


def _resize(ifname: str, mtu: int) -> None:
    """Inside the container's namespace: the two ends of an endpoint carry the same."""
    with rtnl.connect() as link:
        rtnl.check(rtnl.transact(link, [rtnl.link_mtu(_index(ifname), mtu)]))


def _lead(foot: Foot) -> None:
    """Inside the container's namespace: the endpoint's routes anew. One that is no longer the way out keeps
    its default route until another's replaces it."""
    with rtnl.connect() as link:
        rtnl.check(rtnl.transact(link, _ways(foot, _index(foot.ifname))))


def _ways(foot: Foot, index: int) -> list[bytes]:
    if foot.replies_only:
        return _replies(foot, index)
    messages = []
    for gateway in foot.gateways:
        family6 = ":" in gateway
        if not foot.onlink:
            messages.append(_inner(f"{gateway}/{128 if family6 else 32}", index, ""))
        ranges = [r for r in foot.ranges if (":" in r) == family6]
        if gateway in foot.defaults:
            ranges = ["::/0" if family6 else "0.0.0.0/0"]
        messages += [_inner(r, index, gateway) for r in ranges]
    return messages


def _replies(foot: Foot, index: int) -> list[bytes]:
    messages = []
    for gateway in foot.gateways:
        everywhere = "::/0" if ":" in gateway else "0.0.0.0/0"
        messages.append(_inner(everywhere, index, gateway, table=REPLY_TABLE))
        if gateway in foot.defaults:
            messages.append(_inner(everywhere, index, gateway))
    addresses = (cidr.partition("/")[0] for cidr in foot.addresses)
    return [*messages, *(rtnl.source_rule(a, REPLY_TABLE, REPLY_PRIORITY) for a in addresses)]


def _inner(destination: str, index: int, via: str, *, table: int = 0) -> bytes:
    return rtnl.route(destination, index, via, protocol=rtnl.PROTO_STATIC, table=table, mode=rtnl.REPLACE)


def _refused(op: Op, error: OSError) -> CommandFailed:
    reason = error.strerror or os.strerror(error.errno or 0)
    if isinstance(op.item, Link) and op.item.vxlan and error.errno == errno.EEXIST and not _is_there(op.item):
        return CommandFailed(
            f"cannot add {describe(op.item)}: another link has the VXLAN number {op.item.vxlan.vni}",
            hint="Remove that link, or make the network with another number: --opt vni=NUMBER",
        )
    if op.verb == "add" and error.errno == errno.EEXIST:
        hint = "Something else on this host made it; remove that, or choose another subnet or VNI"
        return CommandFailed(f"cannot add {describe(op.item)}: it exists and is not ours", hint=hint)
    return CommandFailed(f"the kernel refused to {op}: {reason}")
