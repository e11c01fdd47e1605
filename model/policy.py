"""Policies: which containers may speak with whom. Pure.

They mean what a Kubernetes NetworkPolicy means: an endpoint that some policy selects for a direction is
closed in it, and what the rules of all policies that select it allow is open; answers always pass. One that
no policy selects is open. A policy names services, containers and networks as people do: by name, whether
there is one of that name now or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from model.ids import NetworkId
from model.spec import Struct

Direction = Literal["ingress", "egress"]
DIRECTIONS: tuple[Direction, ...] = ("ingress", "egress")
PolicyProtocol = Literal["tcp", "udp", "sctp", "icmp"]


class Selector(Struct):
    """All that is given must hold; nothing given: every container. A label's value may be empty: any."""

    service: str = ""
    container: str = ""
    network: str = ""
    labels: Mapping[str, str] = {}


class PolicyPeer(Selector):
    """The other end: containers as in a Selector, or addresses (`cidr`, but for `without`), or all that is no
    network of the fleet (`outside`). A network alone means all of its addresses, hosts' too."""

    cidr: str = ""
    without: tuple[str, ...] = ()
    outside: bool = False


class PolicyPort(Struct):
    """Destination ports `port` to `to`; 0: all of the protocol."""

    port: int = 0
    to: int = 0
    protocol: PolicyProtocol = "tcp"


class PolicyRule(Struct):
    """Allows any of the peers any of the ports; none given: anybody, everything."""

    peers: tuple[PolicyPeer, ...] = ()
    ports: tuple[PolicyPort, ...] = ()


class PolicySpec(Struct):
    """A direction that is None is none of this policy's business; one without rules denies everything."""

    name: str
    selects: Selector = Selector()
    ingress: tuple[PolicyRule, ...] | None = None
    egress: tuple[PolicyRule, ...] | None = None
    labels: Mapping[str, str] = {}

    def rules(self, direction: Direction) -> tuple[PolicyRule, ...] | None:
        return self.ingress if direction == "ingress" else self.egress


class Party(Struct):
    """A container's foot on a network, as policies see it."""

    name: str
    network: NetworkId
    network_name: str
    service: str = ""
    labels: Mapping[str, str] = {}
    ipv4: str = ""
    ipv6: str = ""

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.ipv4, self.ipv6)))


def matches(selector: Selector, party: Party) -> bool:
    """Whether all that the selector gives holds for it."""
    return (
        selector.service in ("", party.service)
        and selector.container in ("", party.name)
        and selector.network in ("", party.network_name)
        and all(
            key in party.labels and value in ("", party.labels[key]) for key, value in selector.labels.items()
        )
    )


def selecting(policies: Iterable[PolicySpec], party: Party, direction: Direction) -> tuple[PolicySpec, ...]:
    """Those that close this direction of it, by name; none: it is open."""
    found = (p for p in policies if p.rules(direction) is not None and matches(p.selects, party))
    return tuple(sorted(found, key=lambda policy: policy.name))


def label_keys(policies: Iterable[PolicySpec]) -> frozenset[str]:
    """Of the labels by which peers are told."""
    return frozenset(
        key
        for policy in policies
        for rules in (policy.ingress, policy.egress)
        for rule in rules or ()
        for peer in rule.peers
        for key in peer.labels
    )
