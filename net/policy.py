"""Policies of one host as values: from rules and who is where to elements of nft sets. Pure.

Endpoints of one network that the same policies select in a direction make a *class*; it has one set of
addresses that may do everything and one of (address, protocol, port) per family, so a decision is the same
few look-ups whatever the rules and peers, and a container that starts elsewhere is one more element.
Invariant: the elements of a set never overlap, whatever ranges the rules name (the kernel refuses overlaps).
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from model.ids import NetworkId
from model.policy import DIRECTIONS, Direction, Party, PolicyPeer, PolicyRule, PolicySpec, matches, selecting
from model.spec import Struct
from net.spans import (
    BITS,
    Allowance,
    Span,
    address_span,
    by_family,
    minus,
    pieces,
    port_text,
    ports_of,
    span_of,
    span_text,
    whole,
)
from net.state import ElementSet

LINK_LOCAL = ("224.0.0.0/4", "255.255.255.255/32", "fe80::/10", "ff00::/8")
"""Of whoever is on the link, neighbours on the endpoint's own network too: never outside."""


class Policed(Struct):
    """An endpoint's classes; an empty one: that direction is open."""

    ingress: str = ""
    egress: str = ""


class HostPolicies(Struct):
    """What one host enforces."""

    classes: Mapping[str, Mapping[str, ElementSet]] = {}
    """Class → its sets, by name."""
    endpoints: Mapping[str, Policed] = {}
    """By `endpoint_key`: those that some policy selects."""


class Place(Struct):
    """What rules of endpoints on one network are read against."""

    network: NetworkId
    name: str
    subnets: tuple[str, ...]
    fleet: tuple[str, ...] = ()
    """Ranges of all networks that are known here: what is not in them is outside."""
    parties: tuple[Party, ...] = ()
    """Who is on the network."""
    services: tuple[str, ...] = ()
    """Ranges of its services' addresses."""


def host_policies(
    policies: Sequence[PolicySpec], feet: Mapping[str, Party], places: Mapping[NetworkId, Place]
) -> HostPolicies:
    """What a host with these endpoints (by `endpoint_key`) enforces."""
    classes: dict[str, Mapping[str, ElementSet]] = {}
    endpoints: dict[str, Policed] = {}
    for key, party in feet.items():
        names = {"ingress": "", "egress": ""}
        for direction in DIRECTIONS:
            chosen = selecting(policies, party, direction)
            if not chosen:
                continue
            name = names[direction] = class_name(direction, party.network, chosen)
            if name not in classes:
                allowed = allowances(direction, chosen, places[party.network])
                classes[name] = compiled(name, allowed)
        if any(names.values()):
            endpoints[key] = Policed(**names)
    return HostPolicies(classes=classes, endpoints=endpoints)


def endpoint_key(instance: str, network: str) -> str:
    return f"{instance}/{network}"


def class_name(direction: Direction, network: str, policies: Iterable[PolicySpec]) -> str:
    """Alike while the same policies select, whatever their rules say."""
    words = "\0".join((direction, network, *sorted(policy.name for policy in policies)))
    return f"{'in' if direction == 'ingress' else 'out'}-{hashlib.sha256(words.encode()).hexdigest()[:12]}"


def allowances(direction: Direction, policies: Iterable[PolicySpec], place: Place) -> tuple[Allowance, ...]:
    """Of all rules of all these policies. What is sent to a service's address that has no members always
    passes, for it is refused further on, and at once."""
    rules = [rule for policy in policies for rule in policy.rules(direction) or ()]
    found = [allowance(rule, place) for rule in rules]
    if direction == "egress" and place.services:
        found.append(Allowance(spans=by_family(map(span_of, place.services))))
    return tuple(found)


def allowance(rule: PolicyRule, place: Place) -> Allowance:
    """One rule's."""
    if not rule.peers:
        return Allowance(spans={version: (whole(version),) for version in BITS}, ports=rule.ports)
    spans = (span for peer in rule.peers for span in _spans_of(peer, place))
    return Allowance(spans=by_family(spans), ports=rule.ports)


def allows(allowed: Allowance, address: str, protocol: str, port: int) -> bool:
    """Whether it lets that through."""
    end = ipaddress.ip_address(address)
    if not any(low <= int(end) <= high for low, high in allowed.spans.get(end.version, ())):
        return False
    wanted = ports_of(allowed.ports)
    spans = (*wanted.get("", ()), *wanted.get(protocol, ()))
    return any(low <= port <= high for low, high in spans)


def compiled(name: str, allowed: Sequence[Allowance]) -> Mapping[str, ElementSet]:
    """The sets of the class of that name."""
    found: dict[str, ElementSet] = {}
    for version in BITS:
        anything, some = dict[str, str](), dict[str, str]()
        for span, ports in pieces(version, allowed):
            text = span_text(version, span)
            if "" in ports:
                anything[text] = ""
                continue
            for protocol, ranges in ports.items():
                word = "ipv6-icmp" if protocol == "icmp" and version == 6 else protocol
                some |= {f"{text} . {word} . {port_text(ports_)}": "" for ports_ in ranges}
        kind = f"ipv{version}_addr"
        found[f"{name}-a{version}"] = ElementSet(type=kind, interval=True, elements=anything)
        ported = f"{kind} . inet_proto . inet_service"
        found[f"{name}-p{version}"] = ElementSet(type=ported, interval=True, elements=some)
    return found


def _spans_of(peer: PolicyPeer, place: Place) -> Iterable[tuple[int, Span]]:
    if peer.cidr:
        yield from minus([span_of(peer.cidr)], map(span_of, peer.without))
    elif peer.outside:
        everything = [(version, whole(version)) for version in BITS]
        yield from minus(everything, map(span_of, (*place.fleet, *LINK_LOCAL)))
    elif not (peer.service or peer.container or peer.labels):
        if peer.network == place.name:
            yield from map(span_of, place.subnets)
    else:
        for party in place.parties:
            if matches(peer, party):
                yield from map(address_span, party.addresses)
