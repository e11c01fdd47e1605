"""Policies in words: what people read in lists, explanations and errors. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from model.policy import Direction, PolicyPeer, PolicyPort, PolicyRule, PolicySpec, Selector


def selector_words(selector: Selector) -> str:
    """`service=web,network=back`; `all` for one that gives nothing."""
    named = ((field, getattr(selector, field)) for field in ("service", "container", "network"))
    words = [f"{field}={value}" for field, value in named if value]
    words += [f"label={key}={value}" if value else f"label={key}" for key, value in selector.labels.items()]
    return ",".join(words) or "all"


def peer_words(peer: PolicyPeer) -> str:
    if peer.outside:
        return "outside"
    if peer.cidr:
        return f"cidr={peer.cidr}" + "".join(f",but {hole}" for hole in peer.without)
    return selector_words(peer)


def port_words(port: PolicyPort) -> str:
    if not port.port:
        return port.protocol
    return f"{port.port}-{port.to}/{port.protocol}" if port.to else f"{port.port}/{port.protocol}"


def rule_words(rule: PolicyRule) -> str:
    """`service=api or cidr=10.1.0.0/16, port 80/tcp`."""
    peers = " or ".join(map(peer_words, rule.peers)) or "anybody"
    ports = " or ".join(map(port_words, rule.ports))
    return f"{peers}, port {ports}" if ports else peers


def direction_words(policy: PolicySpec, direction: Direction) -> str:
    """`-` where it is none of the policy's business."""
    rules = policy.rules(direction)
    if rules is None:
        return "-"
    return "; ".join(map(rule_words, rules)) or "deny"


def names(policies: Iterable[PolicySpec]) -> str:
    found = [policy.name for policy in policies]
    return f"{'policy' if len(found) == 1 else 'policies'} {', '.join(found)}"
