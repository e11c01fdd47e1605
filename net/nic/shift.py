"""Moving what a host has on a link to the bridge that the link becomes a port of, and back.

Each way is a few steps; between any two of them the process may die, and `back` puts right what any of them
left. Invariant: the link keeps its MAC, which the bridge takes on, so that nobody on the site's network
learns anything new.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from model.errors import CommandFailed
from model.spec import Struct
from net.kernel import rtnl, sysctl
from net.nic import messages
from net.nic.link import IFLA_ADDRESS, IFLA_MASTER, Seen, changed, links_of, refusal
from net.nic.state import Standing, Wish

Step = Callable[[], None]
GETLINK, GETADDR, GETROUTE, GETNEIGH, GETRULE = 18, 22, 26, 30, 34
SIOCGIWNAME = 0x8B01
GONE = (0, errno.EADDRNOTAVAIL, errno.ESRCH, errno.ENODEV, errno.ENOENT)
"""Answers to a removal that mean: it is not there."""
LED_ELSEWHERE = (0, errno.EEXIST, errno.ENETDOWN, errno.ENETUNREACH, errno.ENODEV, errno.EINVAL)
"""Answers to a route by a link of others, who may have changed that meanwhile."""
OWN_SWITCHES = ("disable_ipv6", "addr_gen_mode")
UNTOLD = ("mtu", "stable_secret", *OWN_SWITCHES)
"""Of net/ipv6/conf: what does not move with a link."""


class Stand(Struct):
    """A wish as the kernel has it."""

    is_port: bool
    link: str
    """What the link is now; empty where there is none."""
    refusal: str
    """Why it can't be moved; empty if it can, or need not."""


class Links:
    """This network namespace's, asked anew each time."""

    def __init__(self) -> None:
        self._socket = rtnl.connect()

    def close(self) -> None:
        self._socket.close()

    def seen(self) -> Mapping[str, Seen]:
        return links_of(self.dump(GETLINK, bytes(16)))

    def refusal(self, wish: Wish) -> str:
        """Why the link can't be moved now; empty if it can."""
        rules = self.dump(GETRULE, bytes(12))
        why = refusal(wish, self.seen(), wireless=_is_wireless(wish.parent), rules=rules)
        if not why and messages.by_nexthop_objects(self.standing(wish.parent).routes):
            why = f"routes by {wish.parent} use objects of `ip nexthop`, which can't move to another link"
        return why

    def now(self, wish: Wish) -> Stand:
        """How the wish stands in the kernel."""
        seen = self.seen()
        link, bridge = seen.get(wish.parent), seen.get(wish.bridge)
        is_port = link is not None and bridge is not None and link.master == bridge.index
        return Stand(
            is_port=is_port,
            link="" if link is None else link.words,
            refusal="" if is_port else self.refusal(wish),
        )

    def alike(self, wish: Wish) -> bool:
        """Whether the bridge has the link's MAC, as one has that took over what stood there."""
        seen = self.seen()
        link, bridge = seen.get(wish.parent), seen.get(wish.bridge)
        return link is not None and bridge is not None and link.mac == bridge.mac

    def standing(self, name: str) -> Standing:
        """What a host has on a link; nothing where there is none of that name."""
        link = self.seen().get(name)
        if link is None:
            return Standing()
        paths = [f"net/ipv6/conf/{name}/{switch}" for switch in OWN_SWITCHES]
        addresses = messages.addresses_on(self.dump(GETADDR, bytes(8)), link.index)
        routes = self.dump(GETROUTE, bytes(12))
        return Standing(
            index=link.index,
            addresses=addresses,
            routes=messages.routes_on(routes, link.index),
            others=messages.routes_from(routes, link.index, addresses),
            neighbours=messages.neighbours_on(self.dump(GETNEIGH, bytes(12)), link.index),
            sysctls=sysctl.read(paths),
            at=now(),
        )

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        return rtnl.dump(self._socket, kind, body)

    def send(self, requests: Sequence[bytes], what: str, *, accept: Sequence[int] = (0,)) -> None:
        """Raises CommandFailed for the first answer that isn't among `accept`."""
        for number in rtnl.transact(self._socket, requests):
            if number not in accept:
                raise CommandFailed(f"{what}: {os.strerror(number)}")


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def merged(link: Standing, bridge: Standing) -> Standing:
    """What stands on either, as if all were on the link: a part of it may have moved already."""
    routes = (messages.route_for(route, bridge.index, link.index) for route in bridge.routes)
    others = dict.fromkeys((*link.others, *bridge.others))
    return Standing(
        index=link.index,
        addresses=(*link.addresses, *bridge.addresses),
        routes=tuple(sorted((*link.routes, *routes), key=messages.has_gateway)),
        others=tuple(r for r in others if not messages.leads_by(r, (link.index, bridge.index))),
        neighbours=(*link.neighbours, *bridge.neighbours),
        sysctls=link.sysctls,
        at=link.at,
    )


def forth(links: Links, wish: Wish, before: Standing) -> list[tuple[str, Step]]:
    """The steps by which the link becomes the bridge's port and the bridge has what stood on the link."""
    link, bridge = _pair(links, wish)

    def prepare() -> None:
        _switch(wish.bridge, "disable_ipv6", "1")
        _switch(wish.bridge, "addr_gen_mode", "1")
        mac = (IFLA_ADDRESS, bytes.fromhex(link.mac.replace(":", "")))
        links.send(
            [rtnl.message(rtnl.RTM_NEWLINK, 0, changed(bridge.index, mac))], f"the MAC of {bridge.name}"
        )
        _copy_switches(wish.parent, wish.bridge)
        _restore(before, wish.parent, wish.bridge, "disable_ipv6")

    def enslave() -> None:
        _switch(wish.parent, "disable_ipv6", "1")
        master = (IFLA_MASTER, struct.pack("=I", bridge.index))
        links.send(
            [rtnl.message(rtnl.RTM_NEWLINK, 0, changed(link.index, master))],
            f"{link.name} can't be a port of {bridge.name}",
        )

    return [
        ("the bridge takes on the link's MAC and switches", prepare),
        ("the link becomes a port", enslave),
        ("the link gives up what the host had on it", lambda: _strip(links, link)),
        ("the bridge takes it", lambda: _put(links, before, bridge, wish)),
        ("the bridge goes on as the link did", lambda: _settle(links, before, bridge, wish)),
    ]


def back(links: Links, wish: Wish, before: Standing) -> list[tuple[str, Step]]:
    """The steps by which the link is a link by itself again and has `before`; from wherever the other way, or
    this one, stopped. A link that is gone has nothing to get."""
    seen = links.seen()
    link, bridge = seen.get(wish.parent), seen.get(wish.bridge)
    if link is None:
        return []

    def release() -> None:
        _switch(link.name, "addr_gen_mode", "1")
        if bridge is not None and link.master == bridge.index:
            free = (IFLA_MASTER, struct.pack("=I", 0))
            links.send(
                [rtnl.message(rtnl.RTM_NEWLINK, 0, changed(link.index, free))], f"releasing {link.name}"
            )

    def strip() -> None:
        if bridge is not None:
            _switch(bridge.name, "disable_ipv6", "1")
            _strip(links, bridge)

    def put() -> None:
        _restore(before, link.name, link.name, "disable_ipv6")
        _put(links, before, link, wish)

    return [
        ("the bridge gives up what the host had on it", strip),
        ("the link leaves the bridge", release),
        ("the link takes it", put),
        ("the link goes on as it was", lambda: _settle(links, before, link, wish)),
    ]


def _pair(links: Links, wish: Wish) -> tuple[Seen, Seen]:
    seen = links.seen()
    return seen[wish.parent], seen[wish.bridge]


def _strip(links: Links, link: Seen) -> None:
    """Take away what the host has on a link; the routes first. Those of others with its
    addresses go too."""
    standing = links.standing(link.name)
    requests = [rtnl.message(rtnl.RTM_DELROUTE, 0, messages.route_for(r, 0, 0)) for r in standing.routes]
    requests += [
        rtnl.message(rtnl.RTM_DELADDR, 0, messages.address_gone(a, link.index)) for a in standing.addresses
    ]
    links.send(requests, f"clearing {link.name}", accept=GONE)


def _put(links: Links, before: Standing, link: Seen, wish: Wish) -> None:
    """A link that is down has no routes."""
    elapsed = now() - before.at if before.at else 0.0
    links.send(_addresses(before, link, wish, elapsed, unprobed=True), f"addresses of {link.name}")
    requests = [_route(route, before.index, link.index, elapsed) for route in before.routes]
    requests += [
        rtnl.message(rtnl.RTM_NEWNEIGH, rtnl.CREATE | rtnl.REPLACE, messages.neighbour_for(n, link.index))
        for n in before.neighbours
    ]
    links.send(requests, f"routes of {link.name}", accept=(0, errno.EEXIST, errno.ENETDOWN))
    others = [_route(route, 0, 0, elapsed) for route in before.others]
    links.send(others, f"routes with addresses of {link.name}", accept=LED_ELSEWHERE)


def _addresses(before: Standing, link: Seen, wish: Wish, elapsed: float, *, unprobed: bool) -> list[bytes]:
    made = []
    for data in messages.in_order(before.addresses):
        label = messages.label_of(data)
        for name in (wish.parent, wish.bridge):
            label = messages.relabelled(label, name, link.name)
        body = messages.address_for(data, link.index, label, elapsed=elapsed, unprobed=unprobed)
        made.append(rtnl.message(rtnl.RTM_NEWADDR, rtnl.CREATE | rtnl.REPLACE, body))
    return made


def _route(data: bytes, before: int, after: int, elapsed: float) -> bytes:
    """Behind others to the same destination; of IPv6 that would make it a part of one of them."""
    mode = rtnl.CREATE | rtnl.APPEND if data[0] == socket.AF_INET else rtnl.CREATE
    return rtnl.message(rtnl.RTM_NEWROUTE, mode, messages.route_for(data, before, after, elapsed=elapsed))


def _settle(links: Links, before: Standing, link: Seen, wish: Wish) -> None:
    """IPv6 addresses went without a probe, for they were good; now they are as they were."""
    elapsed = now() - before.at if before.at else 0.0
    six = tuple(a for a in before.addresses if a[0] == socket.AF_INET6)
    only = Standing(addresses=six)
    links.send(_addresses(only, link, wish, elapsed, unprobed=False), f"addresses of {link.name}")
    _restore(before, wish.parent, link.name, "addr_gen_mode")


def _switch(link: str, name: str, value: str) -> None:
    """Of IPv6; nothing on a kernel without."""
    path = f"net/ipv6/conf/{link}/{name}"
    if path in sysctl.read((path,)):
        sysctl.write(path, value)


def _restore(before: Standing, link: str, target: str, name: str) -> None:
    """A switch of `target` as `link` had it."""
    value = before.sysctls.get(f"net/ipv6/conf/{link}/{name}")
    if value is not None:
        _switch(target, name, value)


def _copy_switches(source: str, target: str) -> None:
    for family in ("ipv4", "ipv6"):
        for path, value in _differing(family, source, target):
            sysctl.write(path, value)


def _differing(family: str, source: str, target: str) -> Iterable[tuple[str, str]]:
    folder = f"/proc/sys/net/{family}/conf/{source}"
    if not os.path.isdir(folder):
        return
    for name in sorted(os.listdir(folder)):
        if name in UNTOLD or not os.stat(f"{folder}/{name}").st_mode & 0o200:
            continue
        paths = [f"net/{family}/conf/{link}/{name}" for link in (source, target)]
        found = sysctl.read(paths)
        if found.get(paths[0], "") != found.get(paths[1], ""):
            yield paths[1], found[paths[0]]


def _is_wireless(link: str) -> bool:
    """Whether it is known as such or answers to wireless extensions (SIOCGIWNAME)."""
    if os.path.exists(f"/sys/class/net/{link}/phy80211"):
        return True
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            fcntl.ioctl(probe, SIOCGIWNAME, struct.pack("256s", link.encode()))
        except OSError:
            return False
    return True
