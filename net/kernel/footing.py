"""Endpoints inside containers' namespaces: addresses, routes and switches of the interface there.

Invariants: the caller's thread is in that namespace (`net.kernel.netns`); what is so already is success.
"""

from __future__ import annotations

import errno
import ipaddress
import socket

from net.kernel import neighbours, rtnl, sysctl, upper
from net.nic import messages
from net.returnpath import ANSWER_PRIORITY, REPLY_PRIORITY, REPLY_TABLE
from net.state import Foot, Link


def stand(foot: Foot) -> None:
    """Addresses and routes of an endpoint, in one send."""
    _switch(foot)
    index = index_of(foot.ifname)
    requests = [rtnl.address(index, cidr) for cidr in foot.addresses]
    requests += [rtnl.link_up(index), *_ways(foot, index)]
    with rtnl.connect() as link:
        rtnl.check(rtnl.transact(link, requests))
    for path, value in foot.sysctls.items():
        sysctl.write(path, value)


def ready(foot: Foot, link: Link) -> None:
    """A link that stands on one of the host: of its own name, ours, up, and without addresses as yet."""
    with rtnl.connect() as route:
        if upper.named(route, foot.ifname) is None:
            rtnl.check(rtnl.transact(route, [rtnl.link_name(index_of(link.name), foot.ifname)]), accept=(0,))
        _switch(foot)
        index = index_of(foot.ifname)
        rtnl.check(rtnl.transact(route, [rtnl.link_alias(index, link.alias), rtnl.link_up(index)]))


def readdress(foot: Foot) -> None:
    """Other IPv4 addresses than before, in place; the link's neighbours are told."""
    index = index_of(foot.ifname)
    with rtnl.connect() as link:
        dumped = rtnl.dump(link, 22, bytes(8))
        stale = [
            rtnl.message(rtnl.RTM_DELADDR, 0, messages.address_gone(data, index))
            for data in messages.addresses_on(dumped, index)
            if data[0] == socket.AF_INET and messages.cidr_of(data) not in foot.addresses
        ]
        rtnl.check(rtnl.transact(link, stale), accept=(0, errno.EADDRNOTAVAIL))
    stand(foot)
    tell(foot)


def tell(foot: Foot) -> None:
    """The link's neighbours whose the addresses are now."""
    neighbours.announce(foot.ifname, (cidr.partition("/")[0] for cidr in foot.addresses))


def ask(foot: Foot) -> socket.socket:
    """A socket by which the link's neighbours are asked about the addresses."""
    return neighbours.opened(foot.ifname, (cidr.partition("/")[0] for cidr in foot.addresses))


def remove(link: Link, foot: Foot) -> None:
    """Idempotent; what the container has put in its place stays."""
    with rtnl.connect() as route:
        data = upper.named(route, foot.ifname)
        if data is not None and upper.is_ours(data, link.alias):
            gone = rtnl.transact(route, [upper.remove(index_of(foot.ifname))])
            rtnl.check(gone, accept=(0, errno.ENODEV))


def _switch(foot: Foot) -> None:
    ipv6 = any(":" in cidr for cidr in foot.addresses)
    switches = f"net/ipv6/conf/{foot.ifname}"
    sysctl.write(f"{switches}/disable_ipv6", "0" if ipv6 else "1")
    if ipv6:
        sysctl.write(f"{switches}/accept_ra", "0")
        sysctl.write(f"{switches}/accept_dad", "0")


def resize(ifname: str, mtu: int) -> None:
    """The two ends of an endpoint carry the same."""
    with rtnl.connect() as link:
        rtnl.check(rtnl.transact(link, [rtnl.link_mtu(index_of(ifname), mtu)]))


def lead(foot: Foot) -> None:
    """The endpoint's routes anew. One that is no longer the way out keeps
    its default route until another's replaces it."""
    with rtnl.connect() as link:
        rtnl.check(rtnl.transact(link, _ways(foot, index_of(foot.ifname))))


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
    messages += [_inner(default, index, "") for default in foot.defaults if "/" in default]
    return [*messages, *(_answers(foot, index) if foot.table else ())]


def _answers(foot: Foot, index: int) -> list[bytes]:
    """What came in by this link leaves by it, whatever the way out is."""
    messages = [
        _inner(_single(a), index, via, table=t) for t in (0, foot.table) for a, via in foot.beside.items()
    ]
    for cidr in foot.addresses:
        address = cidr.partition("/")[0]
        six = ":" in address
        everywhere = "::/0" if six else "0.0.0.0/0"
        whole = str(ipaddress.ip_interface(cidr).network)
        messages.insert(0, _inner(whole, index, "", table=foot.table))
        ways = [gateway for gateway in foot.gateways if (":" in gateway) == six] or (
            [""] if everywhere in foot.defaults else []
        )
        messages += [_inner(everywhere, index, way, table=foot.table) for way in ways]
        messages.append(rtnl.source_rule(address, foot.table, ANSWER_PRIORITY))
    return messages


def _single(address: str) -> str:
    return f"{address}/{128 if ':' in address else 32}"


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


def index_of(name: str) -> int:
    """Raises OSError with ENODEV, which the standard library leaves out."""
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise OSError(errno.ENODEV, f"no link {name}") from error
