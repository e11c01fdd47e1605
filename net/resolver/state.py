"""What the resolver serves: one value. Pure.

`net.names` makes it, `net.resolver.statefile` brings it from the agent to the resolver. Unknown fields are
ignored, so that a resolver of an older version serves what it understands. Invariant: names are lower-case,
without a final dot, and fit DNS messages (`fits`); addresses are written as `inet_ntop` does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from model.codec import decode_json, encode_sorted
from model.spec import Struct

VERSION = "4"
"""Raise it with a change that a running resolver must not miss: those of other versions are replaced."""
MOST_NAME = 253
"""RFC 1035 2.3.4, in bytes, without the final dot; labels have 63 at most."""
_LABELS = re.compile(r"[^.]{1,63}(?:\.[^.]{1,63})*\Z")


class Zone(Struct):
    """The names of one network."""

    network: str
    """Its name; every name of the zone is also known with this as a suffix."""
    listen: tuple[str, ...] = ()
    """The gateway's addresses, where this network's containers ask."""
    ranges: tuple[str, ...] = ()
    """Its subnets: nobody else knows who has their addresses."""
    names: Mapping[str, tuple[str, ...]] = {}
    """Name → addresses of both families; none: the name is known, and nobody is ready behind it."""
    tasks: Mapping[str, tuple[str, ...]] = {}
    """Service → names of its ready tasks, for SRV."""
    reverse: Mapping[str, str] = {}
    """Address → the name it is told as."""


class Client(Struct):
    """Who asks from an address."""

    zones: tuple[str, ...] = ()
    """Ids of its networks; the first that knows a name answers for it."""
    upstreams: tuple[str, ...] = ()
    """Its own (`--dns`); none: the host's."""
    outside: bool = True
    """May ask for foreign names. False when all its networks are internal."""
    links: Mapping[str, str] = {}
    """Its own further names: each is another name in its networks, if that is known there."""


class ResolverState(Struct):
    zones: Mapping[str, Zone] = {}
    """By network id."""
    clients: Mapping[str, Client] = {}
    """By source address; everybody else is refused."""

    @property
    def listen(self) -> frozenset[str]:
        return frozenset(address for zone in self.zones.values() for address in zone.listen)


def encode(state: ResolverState) -> bytes:
    """Equal states are equal bytes."""
    return encode_sorted(state)


def decode(data: bytes) -> ResolverState:
    """Raises InvalidInput."""
    return decode_json(data, ResolverState, "the resolver's state")


def fits(name: str) -> bool:
    """It can be said in a DNS message."""
    return name.isascii() and len(name) <= MOST_NAME and _LABELS.match(name) is not None
