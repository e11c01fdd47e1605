"""Links that stand on another (macvlan, ipvlan, VLAN; ip-link(8)): made here or in a container's namespace,
and looked at there from outside, by the number that a namespace has for another (RTM_GETNSID, rtnetlink.h).

Messages are packed by hand: an endpoint is on the way of a starting container. Invariant: nothing enters a
namespace only to look.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Mapping

import msgspec

from net.kernel import rtnl
from net.kernel.observed import (
    IPVLAN_FLAGS,
    IPVLAN_MODES,
    MACVLAN_MODES,
    attributes,
    number,
    text,
    upper_of,
)
from net.state import Foot, Link

RTM_DELLINK, RTM_GETLINK, RTM_NEWNSID, RTM_GETNSID = 17, 18, 88, 90
NETNSA_NSID, NETNSA_FD = 1, 3
IFLA_LINK, IFLA_TARGET_NETNSID = 5, 46
_MACVLAN = {word: n for n, word in MACVLAN_MODES.items()}
_IPVLAN = {word: n for n, word in IPVLAN_MODES.items()}
_FLAGS = {word: n for n, word in IPVLAN_FLAGS.items()}
KINDS = ("macvlan", "ipvlan", "vlan")


def make(link: Link, below: int, *, ifname: str, mac: str = "", namespace: int = -1) -> bytes:
    """A link of this kind on the one with index `below`, in the namespace of that descriptor if there is
    one."""
    body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + rtnl.attr(rtnl.IFLA_IFNAME, ifname.encode() + b"\0")
    body += rtnl.attr(IFLA_LINK, struct.pack("=I", below))
    if link.mtu:
        body += rtnl.attr(rtnl.IFLA_MTU, struct.pack("=I", link.mtu))
    if mac and link.kind == "macvlan":
        body += rtnl.attr(rtnl.IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))
    if namespace >= 0:
        body += rtnl.attr(rtnl.IFLA_NET_NS_FD, struct.pack("=I", namespace))
    kind = rtnl.attr(rtnl.IFLA_INFO_KIND, link.kind.encode() + b"\0")
    kind += rtnl.attr(rtnl.IFLA_INFO_DATA, _details(link))
    return rtnl.message(rtnl.RTM_NEWLINK, rtnl.CREATE | rtnl.EXCL, body + rtnl.attr(rtnl.IFLA_LINKINFO, kind))


def _details(link: Link) -> bytes:
    if link.kind == "vlan":
        return rtnl.attr(1, struct.pack("=H", link.vlan))
    if link.kind == "macvlan":
        return rtnl.attr(1, struct.pack("=I", _MACVLAN[link.mode]))
    mode, _, flag = link.mode.partition(" ")
    return rtnl.attr(1, struct.pack("=H", _IPVLAN[mode])) + rtnl.attr(2, struct.pack("=H", _FLAGS[flag]))


def remove(index: int) -> bytes:
    return rtnl.message(RTM_DELLINK, 0, struct.pack("=BxHiII", 0, 0, index, 0, 0))


def has_kind(route: socket.socket, kind: str) -> bool:
    """Whether the kernel can make links of this kind. Asked by a request that lacks what every kind needs, so
    that nothing is made: a kernel that does not know the kind says so first, and loads its module if there is
    one."""
    head = struct.pack("=BxHiII", 0, 0, 0, 0, 0)
    info = rtnl.attr(rtnl.IFLA_LINKINFO, rtnl.attr(rtnl.IFLA_INFO_KIND, kind.encode() + b"\0"))
    asked = rtnl.message(rtnl.RTM_NEWLINK, rtnl.CREATE | rtnl.EXCL, head + info)
    (answer,) = rtnl.transact(route, [asked])
    return answer == errno.EINVAL


def observe(route: socket.socket, wanted: Iterable[Link], names: Mapping[int, str]) -> Iterable[Link]:
    """Those of the wanted that stand in their containers' namespaces, as they are seen there; `names` of this
    namespace's links by index. What a container may change itself (MAC, up or down) is as wanted."""
    for link in wanted:
        if link.foot is None:
            continue
        data = seen(route, link.foot)
        if data is None:
            continue
        found = attributes(data, 16)
        kind, below, mode, vlan = upper_of(found, names)
        if kind is None:
            continue
        mtu = number(found, rtnl.IFLA_MTU)
        yield msgspec.structs.replace(link, kind=kind, below=below, mode=mode, vlan=vlan, mtu=mtu)


def seen(route: socket.socket, foot: Foot) -> bytes | None:
    """The link's message; None where it is not there."""
    try:
        handle = os.open(foot.namespace, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        ident = namespace_id(route, handle)
    except OSError as error:
        if error.errno == errno.EINVAL:  # no namespace is held there any more
            return None
        raise
    finally:
        os.close(handle)
    body = struct.pack("=BxHiII", 0, 0, 0, 0, 0)
    body += rtnl.attr(IFLA_TARGET_NETNSID, struct.pack("=i", ident))
    body += rtnl.attr(rtnl.IFLA_IFNAME, foot.ifname.encode() + b"\0")
    try:
        return rtnl.ask(route, RTM_GETLINK, body)
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise


def namespace_id(route: socket.socket, handle: int) -> int:
    """This namespace's number for the one of a descriptor, given if it has none: then it can be asked about,
    and is heard of (NETLINK_LISTEN_ALL_NSID, netlink(7))."""
    fd = rtnl.attr(NETNSA_FD, struct.pack("=I", handle))
    new = rtnl.message(RTM_NEWNSID, 0, bytes(4) + fd + rtnl.attr(NETNSA_NSID, struct.pack("=i", -1)))
    rtnl.check(rtnl.transact(route, [new]))
    found = attributes(rtnl.ask(route, RTM_GETNSID, bytes(4) + fd), 4)
    return int(struct.unpack("=i", found[NETNSA_NSID])[0])


def is_ours(data: bytes, alias: str) -> bool:
    """Whether a link's message says that alias, or none yet: one that we were making when we died."""
    return text(attributes(data, 16).get(rtnl.IFLA_IFALIAS, b"")) in ("", alias)


def named(route: socket.socket, ifname: str) -> bytes | None:
    """The message of a link of the socket's own namespace."""
    body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + rtnl.attr(rtnl.IFLA_IFNAME, ifname.encode() + b"\0")
    try:
        return rtnl.ask(route, RTM_GETLINK, body)
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
