"""What a policy may say, beyond what types say: spec → every problem at once, each with its path. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from model.errors import Problem
from model.ids import NAME, SERVICE_NAME
from model.policy import PolicyPeer, PolicyPort, PolicyRule, PolicySpec, Selector
from model.validate import range_of, validate_name

MAX_RULES, MAX_PARTS = 256, 256
"""Rules of a direction; peers or ports of a rule."""


def validate_policy(spec: PolicySpec, path: str = "spec") -> list[Problem]:
    """Everything wrong with a policy."""
    problems = validate_name("policy", spec.name, f"{path}.name")
    problems += _selector(spec.selects, f"{path}.selects")
    if spec.ingress is None and spec.egress is None:
        problems.append(_p(path, "names no direction: give ingress or egress rules, or deny one"))
    for direction in ("ingress", "egress"):
        rules: tuple[PolicyRule, ...] = getattr(spec, direction) or ()
        if len(rules) > MAX_RULES:
            problems.append(_p(f"{path}.{direction}", f"has more than {MAX_RULES} rules"))
        for index, rule in enumerate(rules[:MAX_RULES]):
            problems += _rule(rule, f"{path}.{direction}[{index}]")
    return problems


def _rule(rule: PolicyRule, at: str) -> Iterator[Problem]:
    if max(len(rule.peers), len(rule.ports)) > MAX_PARTS:
        yield _p(at, f"has more than {MAX_PARTS} peers or ports")
        return
    for index, peer in enumerate(rule.peers):
        yield from _peer(peer, f"{at}.peers[{index}]")
    for index, port in enumerate(rule.ports):
        yield from _port(port, f"{at}.ports[{index}]")


def _peer(peer: PolicyPeer, at: str) -> Iterator[Problem]:
    containers = bool(peer.service or peer.container or peer.network or peer.labels)
    if containers + bool(peer.cidr) + peer.outside != 1:
        yield _p(at, "must be one of: containers (service, container, network, labels), a cidr, outside")
    yield from _selector(peer, at)
    whole = range_of(peer.cidr) if peer.cidr else None
    if peer.cidr and whole is None:
        yield _p(f"{at}.cidr", f"{peer.cidr[:60]!r} is not a range such as 10.1.0.0/16")
    if peer.without and not peer.cidr:
        yield _p(f"{at}.without", "needs a cidr that it is taken from")
    for index, text in enumerate(peer.without):
        hole = range_of(text)
        if hole is None or (whole is not None and not _inside(hole, whole)):
            yield _p(f"{at}.without[{index}]", f"{text[:60]!r} is not a range within {peer.cidr[:60]}")


def _inside(
    inner: ipaddress.IPv4Network | ipaddress.IPv6Network, whole: ipaddress.IPv4Network | ipaddress.IPv6Network
) -> bool:
    return inner.version == whole.version and inner.subnet_of(whole)  # type: ignore[arg-type]


def _selector(selector: Selector, at: str) -> Iterable[Problem]:
    if selector.service and not SERVICE_NAME.match(selector.service):
        yield _p(f"{at}.service", f"invalid service name {selector.service[:80]!r}")
    for field in ("container", "network"):
        if (name := getattr(selector, field)) and not NAME.match(name):
            yield _p(f"{at}.{field}", f"invalid {field} name {name[:80]!r}")
    for key in selector.labels:
        if not key or "\0" in key:
            yield _p(f"{at}.labels", f"invalid label {key[:80]!r}")


def _port(port: PolicyPort, at: str) -> Iterator[Problem]:
    if port.protocol == "icmp" and (port.port or port.to):
        yield _p(at, "icmp has no ports")
    if not 0 <= port.port <= 65535:
        yield _p(f"{at}.port", f"{port.port} is not a port (1 to 65535)")
    if port.to and not 0 < port.port <= port.to <= 65535:
        yield _p(f"{at}.to", f"{port.to} is not a port from {port.port} up")


def _p(path: str, message: str) -> Problem:
    return Problem(path=path, message=message)
