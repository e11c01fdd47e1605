"""What a host may say of itself: others act upon it, so it is read here before anything is kept of it. Pure.

A host that was taken over can say what it likes. Invariant: what passes is made of addresses, ranges, names
and numbers as the network code and the packet filter write them, in no more of them than a host has.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping

from model.errors import Problem
from model.ids import NAME
from model.status import HostFacts, Nic

LEAST_MTU, MOST_MTU = 576, 65536
"""What every host of the Internet takes (RFC 791, 3.1), and what Linux's loopback has."""
MOST_ENTRIES, MOST_WORDS = 1024, 4096
"""Of a list, and characters of one text: a host's, or an instance's."""
MOST_OWN = 64
"""Addresses of one host: no container of anybody's gets them. Agents tell no more."""
MOST_NUMBER = (1 << 63) - 1
_LINK = re.compile(r"[^\s/:\x00-\x1f\x7f]{1,15}\Z")
"""As Linux has it (dev_valid_name)."""
_TEXTS = (
    *("kernel", "os_name", "cgroup", "cgroup_driver", "runtime", "storage_driver"),
    *("storage_reason", "version", "release", "wireguard"),
)
_RANGES = ("links", "routes", "onlink")
_UNWRITTEN = tuple(ipaddress.IPv6Network(cidr) for cidr in ("::/96", "::ffff:0:0/96"))
"""These the C library writes with an IPv4 address in them (RFC 5952, 5); no host has one but loopback's.
Others of ::/8 some have: 64:ff9b::/96 and 64:ff9b:1::/48 lead to IPv4 (RFC 6052, RFC 8215)."""


def address_fault(text: str) -> str:
    """Why this is no address of one machine as it is written here, "" when it is."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return f"{text[:60]!r} is no address"
    if "%" in text:
        return f"{text[:60]!r} has a zone, which is good on its own host only"
    if str(found) != text:
        return f"{text[:60]!r} is written {found}"
    strange = not found.is_loopback and any(found in range_ for range_ in _UNWRITTEN)
    if strange or found.is_multicast or found.is_unspecified or text == "255.255.255.255":
        return f"{text} is no address of a machine"
    return ""


def range_fault(text: str) -> str:
    """Why this is no range as it is written here, "" when it is. That of everything is none: nobody's own."""
    try:
        found = ipaddress.ip_network(text)
    except ValueError:
        return f"{text[:60]!r} is no range of addresses"
    if "%" in text or str(found) != text:
        return f"{text[:60]!r} is written {found}"
    return "" if found.prefixlen else f"{text} is everything"


def facts_problems(facts: HostFacts) -> Iterator[Problem]:
    """Everything wrong with what a host says of itself."""
    if not NAME.match(facts.hostname):
        yield Problem(path="hostname", message=f"invalid name {facts.hostname[:80]!r}")
    if fault := address_fault(facts.address):
        yield Problem(path="address", message=fault)
    yield from _each("addresses", map(address_fault, facts.addresses), len(facts.addresses), MOST_OWN)
    for field in _RANGES:
        found: tuple[str, ...] = getattr(facts, field)
        yield from _each(field, map(range_fault, found), len(found))
    if facts.link_local and (address_fault(facts.link_local) or not _is_link_local(facts.link_local)):
        yield Problem(path="link_local", message=f"{facts.link_local[:60]!r} is no address of one link")
    if not LEAST_MTU <= facts.mtu <= MOST_MTU:
        yield Problem(path="mtu", message=f"{facts.mtu} is not {LEAST_MTU} to {MOST_MTU}")
    for field in ("nano_cpus", "memory"):
        if not 0 <= getattr(facts, field) <= MOST_NUMBER:
            yield Problem(path=field, message="is below 0 or above all measure")
    if not 0 <= facts.peer_port < 1 << 16:
        yield Problem(path="peer_port", message=f"{facts.peer_port} is no port")
    yield from _links(facts)
    yield from label_problems(facts.labels, "labels")
    yield from _texts(facts)


def label_problems(labels: Mapping[str, str], at: str) -> Iterator[Problem]:
    """Of those that a host brings along."""
    words = (word for pair in labels.items() for word in pair)
    yield from _each(at, map(_text_fault, words), len(labels))


def _links(facts: HostFacts) -> Iterator[Problem]:
    if facts.link and not _LINK.match(facts.link):
        yield Problem(path="link", message=f"{facts.link[:60]!r} is no link's name")
    yield from _each("nics", map(_nic_fault, facts.nics), len(facts.nics))
    yield from _each("link_kinds", map(_text_fault, facts.link_kinds), len(facts.link_kinds))


def _nic_fault(nic: Nic) -> str:
    if not _LINK.match(nic.name):
        return f"{nic.name[:60]!r} is no link's name"
    return "" if 0 <= nic.mtu < 1 << 32 else f"{nic.name} has an MTU of {nic.mtu}"


def _texts(facts: HostFacts) -> Iterator[Problem]:
    platform = facts.platform
    words = [getattr(facts, field) for field in _TEXTS]
    words += [platform.os, platform.arch, platform.variant]
    yield from _each("facts", map(_text_fault, words), len(words))
    yield from _each("warnings", map(_text_fault, facts.warnings), len(facts.warnings))


def _text_fault(text: str) -> str:
    return "" if len(text) <= MOST_WORDS else f"{text[:40]!r}… has more than {MOST_WORDS} characters"


def _is_link_local(text: str) -> bool:
    found = ipaddress.ip_address(text)
    return found.version == 6 and found.is_link_local


def _each(at: str, faults: Iterable[str], number: int, most: int = MOST_ENTRIES) -> Iterator[Problem]:
    """The first that is wrong with a list: an enemy's may have a million."""
    if number > most:
        yield Problem(path=at, message=f"{number} entries are more than {most}")
    elif fault := next(filter(None, faults), ""):
        yield Problem(path=at, message=fault)
