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
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace
from pyroute2 import AsyncIPRoute, NetlinkError

from model.errors import CommandFailed
from net.diff import Op, describe
from net.kernel import footing, neighbours, netns, offload, places, rtnl, steering, sysctl, tc, tunnel, upper
from net.kernel.announce import Herald
from net.kernel.footing import index_of
from net.kernel.observed import DUMPS, entrances, names_of, state_of
from net.kernel.underlay import mac_of
from net.state import (
    UPPER,
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

    async def observe(self, inner: Sequence[Link] = ()) -> NetState:
        return await self._there(self._observe(inner))

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

    async def _observe(self, inner: Sequence[Link]) -> NetState:
        """Listed by hand: pyroute2's decoder takes a millisecond per link, and there is one per container."""
        assert self._socket is not None
        seen = {what: rtnl.dump(self._socket, *ask) for what, ask in DUMPS.items()}
        stand = [rtnl.dump(self._socket, *tc.filters_of(i)) for i in entrances(seen["qdiscs"])]
        state = offload.seen(state_of(**seen, filters=[message for one in stand for message in one]))
        if not inner:
            return state
        within = upper.observe(self._socket, inner, names_of(seen["links"]))
        return replace(state, links={**state.links, **{link.name: link for link in within}})

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
                case Way(foot=foot, anew=anew):
                    act = footing.readdress if anew else footing.lead
                    netns.inside(foot.namespace, lambda: act(foot))
                case _:
                    raise AssertionError(f"{op} is packed")
        except NetlinkError as error:
            raise _refused(op, OSError(error.code, error.args[1] if len(error.args) > 1 else "")) from error
        except OSError as error:
            raise _refused(op, error) from error

    async def _remove_link(self, link: Link) -> None:
        foot = link.foot
        if foot is not None and link.kind in UPPER:
            if netns.is_held(Path(foot.namespace)):  # else it is gone, and the link with it
                netns.inside(foot.namespace, lambda: footing.remove(link, foot))
            return
        try:
            await self._route.link("del", index=index_of(link.name))
        except OSError as error:
            if error.errno not in GONE:
                raise
        except NetlinkError as error:
            if error.code not in GONE:
                raise

    async def _change_link(self, link: Link) -> None:
        if link.foot is not None and link.kind in UPPER:
            self._settle_upper(link, link.foot)
            return
        index = index_of(link.name)
        words: dict[str, Any] = {"ifalias": link.alias, "mtu": link.mtu}
        if link.mac and link.mac != mac_of(link.name):  # to set it forgets all neighbours
            words["address"] = link.mac
        if link.kind == "bridge":
            snooping = int(link.multicast_snooping)
            await self._route.link("set", index=index, kind="bridge", br_mcast_snooping=snooping)
        master = index_of(link.master) if link.master else 0
        await self._route.link("set", index=index, master=master, state="up", **words)
        if link.vxlan is not None:
            offload.leave_checksums(link.name, link.vxlan.checksums)
        if link.foot is not None:
            foot, mtu = link.foot, link.mtu
            netns.inside(foot.namespace, lambda: footing.resize(foot.ifname, mtu))
        if link.kind == "veth" and not link.peer:
            self._announce(link, ())

    async def _add_link(self, link: Link) -> None:
        if link.foot is not None and link.kind in UPPER:
            self._make_upper(link, link.foot)
            self._settle_upper(link, link.foot)
            return
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
            netns.inside(link.foot.namespace, lambda foot=link.foot: footing.stand(foot))  # type: ignore[misc]
            self._announce(link, link.foot.addresses, link.foot.mac)
            if link.foot.onlink and link.master:
                told = (cidr.partition("/")[0] for cidr in link.foot.addresses)
                self._herald.tell(link.master, link.foot.mac, told)

    async def _half_made(self, link: Link) -> bool:
        """Whether the link of that name is one we were making when we died (it has no alias yet), one whose
        alias was taken away, or an endpoint's whose namespace the kernel is still taking down. What isn't as
        it should be of a bridge or tunnel, the next look finds."""
        if not _is_there(link):
            return False
        found = [m async for m in await self._route.get_links(index=index_of(link.name))]
        alias = found[0].get_attr("IFLA_IFALIAS") if found else None
        if link.kind == "veth":
            return not alias or alias == link.alias
        return not alias and found[0].get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == link.kind

    async def _make_link(self, link: Link) -> None:
        if link.foot is not None:
            self._make_pair(link, link.foot)
            return
        if link.kind in UPPER:
            self._upper(upper.make(link, index_of(link.below), ifname=link.name, mac=link.mac))
            return
        words: dict[str, Any] = {"ifname": link.name, "kind": link.kind, "mtu": link.mtu}
        if link.mac:
            words["address"] = link.mac
        if link.kind == "bridge":
            words |= {"br_mcast_snooping": int(link.multicast_snooping), "br_stp_state": 0}
        if link.vxlan is not None:
            words |= tunnel.words(link.vxlan)
        if link.peer:
            words["peer"] = {"ifname": link.peer, "mtu": link.mtu}
        await self._route.link("add", **words)

    def _make_pair(self, link: Link, foot: Foot) -> None:
        """Of an endpoint: packed by hand, for it is on the way of a starting container."""
        assert self._socket is not None
        master = index_of(link.master)
        handle = os.open(foot.namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            pair = rtnl.veth(link.name, link.mtu, master, peer=foot.ifname, mac=foot.mac, namespace=handle)
            (number,) = rtnl.transact(self._socket, [pair])
        finally:
            os.close(handle)
        if number:
            raise NetlinkError(number, os.strerror(number))

    def _upper(self, message: bytes) -> None:
        assert self._socket is not None
        (number,) = rtnl.transact(self._socket, [message])
        if number:
            raise NetlinkError(number, os.strerror(number))

    def _make_upper(self, link: Link, foot: Foot) -> None:
        """One that stands there already, made by us, is taken as it is. It gets its name when it is there:
        before Linux 6.13 a kernel looks for the name among those of this namespace, and hosts have an eth0 of
        their own."""
        assert self._socket is not None
        standing = upper.seen(self._socket, foot)
        if standing is not None:
            if not upper.is_ours(standing, link.alias):
                raise NetlinkError(errno.EEXIST, os.strerror(errno.EEXIST))
            return
        handle = os.open(foot.namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            below = index_of(link.below)
            self._upper(upper.make(link, below, ifname=link.name, mac=foot.mac, namespace=handle))
        except NetlinkError as error:
            if error.code != errno.EEXIST:  # else we died before we named it
                raise
        finally:
            os.close(handle)

    def _settle_upper(self, link: Link, foot: Foot) -> None:
        """Up; with addresses and routes too, once it may have them."""

        def settle() -> None:
            footing.ready(foot, link)
            if not link.bare:
                footing.resize(foot.ifname, link.mtu)
                footing.stand(foot)
                footing.tell(foot)

        netns.inside(foot.namespace, settle)

    async def ask(self, foot: Foot) -> Mapping[str, str]:
        """Those of its addresses that others on the link have, with their MACs."""
        link = await self.call(netns.inside, foot.namespace, lambda: footing.ask(foot))
        with link:
            if neighbours.has_none(link):
                return {}
            addresses = [cidr.partition("/")[0] for cidr in foot.addresses]
            return await neighbours.Asking(link, neighbours.mac_of(link), addresses).ask()

    def _lead_aside(self, name: str, other: str) -> None:
        """By the one filter at a link's entrance, whatever stood there."""
        assert self._socket is not None
        index, to = index_of(name), index_of(other)
        rtnl.transact(self._socket, [tc.no_entrance(index)])
        rtnl.check(rtnl.transact(self._socket, [tc.entrance(index), tc.detour(index, to)]), accept=(0,))

    def _announce(self, link: Link, addresses: Sequence[str], mac: str = "") -> None:
        """Mark an endpoint's host side as ours and tell the host's own neighbour table whose its addresses
        are now: no ARP round trip, no stale MAC."""
        assert self._socket is not None
        index, bridge = index_of(link.name), index_of(link.master)
        texts = (cidr.partition("/")[0] for cidr in addresses)
        messages = [rtnl.neighbour(bridge, text, mac, state=rtnl.NUD_STALE) for text in texts]
        if _bridges_filter():
            messages.append(rtnl.port_hairpin(index))
        rtnl.check(rtnl.transact(self._socket, [*messages, rtnl.link_alias(index, link.alias)]))


def _is_there(link: Link) -> bool:
    try:
        return bool(index_of(link.name))
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
            index = index_of(link)
            return rtnl.address(index, cidr) if add else rtnl.no_address(index, cidr)
        case Neighbour(link=link, address=address, mac=mac):
            index = index_of(link)
            return rtnl.neighbour(index, address, mac) if add else rtnl.no_neighbour(index, address)
        case Fdb(link=link, mac=mac, remote=remote):
            return rtnl.fdb(index_of(link), mac, remote, add=add)
        case Route(destination=destination, link=link, via=via, source=source, table=table, metric=metric):
            index = index_of(link) if link else 0
            if not add:
                return rtnl.no_route(destination, index, table=table, metric=metric)
            mode = rtnl.REPLACE if op.verb == "change" else rtnl.EXCL
            return rtnl.route(destination, index, via, source, table=table, metric=metric, mode=mode)
        case PolicyRule():
            return rtnl.policy_rule(op.item, add=add)
        case Limit(link=link, rate=rate):
            return tc.limit(index_of(link), rate) if add else tc.no_limit(index_of(link))
        case Detour(link=link) if not add:
            return tc.no_entrance(index_of(link))
        case _:
            return None


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
