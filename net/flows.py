"""Tracked connections that lead to a container which no longer answers them: which those are. Pure.

Connection tracking remembers where a packet's connection went, whatever the maps of published ports say now.
A client that keeps its UDP socket, or its source port, would go on to a container that is gone, to one that
gave the port to another, or, if it was there before the container, to nobody. Invariant: a TCP connection
whose container still has its address is never stale: changing ports leaves connections alone.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from model.spec import Struct
from model.status import BoundPort
from net.endpoint import InstanceNetwork
from net.host import PublishRequest
from net.publish import ANY4, ANY6

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
"""IANA's numbers."""
UDP = PROTOCOLS["udp"]


class Connection(Struct):
    """As tracked: what the client sent, and who answers. Addresses are packed."""

    protocol: int
    client: bytes
    target: bytes
    port: int
    """To which the client sent."""
    member: bytes
    """Who answers: another than `target` where its address was translated."""
    member_port: int
    local: bool = False
    """`target` is an address of this host."""


class Change(Struct):
    """What was changed: UDP ports that lead elsewhere now, and addresses that were given up (packed)."""

    ports: frozenset[int] = frozenset()
    gone: frozenset[bytes] = frozenset()

    @property
    def marks(self) -> tuple[bytes, ...]:
        """Bytes of which a connection that may be stale has some, as netlink tells of it."""
        return (*self.gone, *(port.to_bytes(2, "big") for port in self.ports))

    def __or__(self, other: Change) -> Change:
        return Change(ports=self.ports | other.ports, gone=self.gone | other.gone)

    def __bool__(self) -> bool:
        return bool(self.ports or self.gone)


def change(before: InstanceNetwork, after: InstanceNetwork) -> Change:
    """From what an instance had to what it has."""
    then, now = _elements(before.published), _elements(after.published)
    given_up = _addresses(before) - _addresses(after) if then else ()
    ports = frozenset(port.published for port, _ in then ^ now if port.protocol == "udp")
    return Change(ports=ports, gone=frozenset(given_up))


def is_stale(found: Connection, change: Change, instances: Iterable[InstanceNetwork]) -> bool:
    """Whether a connection leads elsewhere than its client's next one would, and has to go for that. Of what
    didn't change, nothing is. `instances` are all that are here now."""
    known = tuple(instances)
    if found.member != found.target and found.member in change.gone:
        return all(found.member not in _addresses(instance) for instance in known)
    if found.protocol != UDP or found.port not in change.ports or not found.local:
        return False
    wanted = _answering(found, (i.published for i in known if i.published is not None))
    if wanted is None:
        return found.member != found.target
    return wanted != (found.member, found.member_port)


def _answering(found: Connection, requests: Iterable[PublishRequest]) -> tuple[bytes, int] | None:
    """The container's address and port to which this client's next connection would go."""
    everywhere: tuple[bytes, int] | None = None
    for request in requests:
        inner = request.ipv4 if len(found.target) == 4 else request.ipv6
        for port in request.ports if inner else ():
            fits = (PROTOCOLS[port.protocol], port.published) == (found.protocol, found.port)
            if not fits or not _admits(port.allow, found.client):
                continue
            leads = (ipaddress.ip_address(inner).packed, port.target)
            if port.host_ip in ("", ANY4 if len(found.target) == 4 else ANY6):
                everywhere = leads
            elif ipaddress.ip_address(port.host_ip).packed == found.target:
                return leads
    return everywhere


def _admits(allow: Iterable[str], client: bytes) -> bool:
    ranges = [ipaddress.ip_network(text) for text in allow]
    return not ranges or any(ipaddress.ip_address(client) in found for found in ranges)


def _elements(request: PublishRequest | None) -> set[tuple[BoundPort, tuple[str, str]]]:
    if request is None:
        return set()
    return {(port, (request.ipv4, request.ipv6)) for port in request.ports}


def _addresses(instance: InstanceNetwork) -> set[bytes]:
    texts = (text for foot in instance.endpoints for text in (foot.ipv4, foot.ipv6))
    return {ipaddress.ip_address(text).packed for text in texts if text}
