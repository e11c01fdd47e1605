"""Traffic control packed by hand (rtnetlink(7), linux/pkt_sched.h): token buckets, and the detour of what a
link receives over another. Functions build messages, `net.kernel.rtnl` sends them, and `net.kernel.observed`
reads what is there.
"""

from __future__ import annotations

import struct

from net.kernel import rtnl

RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38
RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 44, 45, 46
TCA_KIND, TCA_OPTIONS = 1, 2
TCA_TBF_PARMS, TCA_TBF_BURST = 1, 6
TCA_U32_SEL, TCA_U32_ACT, TCA_ACT_KIND, TCA_ACT_OPTIONS, TCA_MIRRED_PARMS = 5, 7, 1, 2, 2
ROOT, INGRESS_PARENT, INGRESS = 0xFFFFFFFF, 0xFFFFFFF1, 0xFFFF0000
ETH_P_ALL, PRIORITY = 3, 1
TERMINAL, STOLEN, EGRESS_REDIRECT, ETHERNET = 1, 4, 1, 1
NESTED = 0x8000
LATENCY = 0.05
"""Seconds that a packet waits at most; more would only make senders learn later that they are too fast."""
BURST, BURST_SECONDS = 1 << 16, 0.004
"""Bytes that pass at once, at least: the biggest packet that a veth hands over; at high rates what passes in
the time in which a timer may be late."""


def limit(index: int, rate: int) -> bytes:
    """The link's root is a token bucket of `rate` bytes a second, whatever it was."""
    burst = max(BURST, int(rate * BURST_SECONDS))
    most = burst + max(burst, int(rate * LATENCY))
    spec = struct.pack("=BBHhHI", 0, ETHERNET, 0, 0, 0, rate)
    parms = spec + bytes(12) + struct.pack("=III", min(most, 0xFFFFFFFF), 0, 0)
    options = rtnl.attr(TCA_TBF_PARMS, parms) + rtnl.attr(TCA_TBF_BURST, struct.pack("=I", burst))
    body = _tcmsg(index, parent=ROOT) + _kind("tbf") + rtnl.attr(TCA_OPTIONS | NESTED, options)
    return rtnl.message(RTM_NEWQDISC, rtnl.CREATE | rtnl.REPLACE, body)


def no_limit(index: int) -> bytes:
    return rtnl.message(RTM_DELQDISC, 0, _tcmsg(index, parent=ROOT) + _kind("tbf"))


def entrance(index: int) -> bytes:
    """Where filters of what a link receives stand (the ingress qdisc)."""
    body = _tcmsg(index, handle=INGRESS, parent=INGRESS_PARENT) + _kind("ingress")
    return rtnl.message(RTM_NEWQDISC, rtnl.CREATE | rtnl.EXCL, body)


def no_entrance(index: int) -> bytes:
    """With all its filters."""
    body = _tcmsg(index, handle=INGRESS, parent=INGRESS_PARENT) + _kind("ingress")
    return rtnl.message(RTM_DELQDISC, 0, body)


def detour(index: int, to: int) -> bytes:
    """All that the link receives goes through the other link first; the kernel hands it back from there."""
    everything = struct.pack("=BBBxHHhhI", TERMINAL, 0, 1, 0, 0, 0, 0, 0) + bytes(16)
    mirred = struct.pack("=IIiiiiI", 0, 0, STOLEN, 0, 0, EGRESS_REDIRECT, to)
    parms = rtnl.attr(TCA_ACT_OPTIONS | NESTED, rtnl.attr(TCA_MIRRED_PARMS, mirred))
    action = rtnl.attr(1 | NESTED, rtnl.attr(TCA_ACT_KIND, b"mirred\0") + parms)
    options = rtnl.attr(TCA_U32_SEL, everything) + rtnl.attr(TCA_U32_ACT | NESTED, action)
    info = PRIORITY << 16 | int.from_bytes(ETH_P_ALL.to_bytes(2, "big"), "little")
    body = _tcmsg(index, parent=INGRESS, info=info) + _kind("u32") + rtnl.attr(TCA_OPTIONS | NESTED, options)
    return rtnl.message(RTM_NEWTFILTER, rtnl.CREATE | rtnl.EXCL, body)


def filters_of(index: int) -> tuple[int, bytes]:
    """Type and body of the dump of what stands at a link's entrance."""
    return RTM_GETTFILTER, _tcmsg(index, parent=INGRESS)


def _tcmsg(index: int, *, handle: int = 0, parent: int = 0, info: int = 0) -> bytes:
    return struct.pack("=BxxxiIII", 0, index, handle, parent, info)


def _kind(name: str) -> bytes:
    return rtnl.attr(TCA_KIND, name.encode() + b"\0")
