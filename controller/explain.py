"""May one end speak with another, and which rule says so. Pure.

The same functions decide here and fill the sets of hosts (`net.policy`), so that what is explained is what is
enforced, but for what a host has not heard yet.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from controller.commands.find import find_instance, find_service
from controller.policies import on_network, parties_of
from controller.snapshot import Cluster
from model.api import PolicyExplanation, PolicyQuestion
from model.errors import InvalidInput, NotFound, WrongState
from model.ids import InstanceId
from model.policy import Direction, Party, PolicyPort, PolicySpec, selecting
from model.policywords import names, port_words, rule_words
from model.records import Network
from model.status import InstanceStatus, Phase
from net.policy import Place, allowance, allows
from net.spans import Allowance

Statuses = Mapping[InstanceId, InstanceStatus]


def explain(cluster: Cluster, statuses: Statuses, question: PolicyQuestion) -> PolicyExplanation:
    """For each network on which both ends stand. Raises NotFound, InvalidInput, WrongState."""
    port = _port(question)
    source, target = (_feet(cluster, statuses, ref) for ref in (question.source, question.target))
    pairs = list(_pairs(cluster, source, target))
    if not pairs:
        first = f"{question.source} and {question.target} share no network: networks are apart"
        return PolicyExplanation(allowed=False, lines=(first,))
    lines: list[str] = []
    verdicts: list[bool] = []
    for here, there, network in pairs:
        place = _place(cluster, statuses, network)
        out, why_out = _judged(cluster, "egress", here, _ends(there), place, port)
        in_, why_in = _judged(cluster, "ingress", there, _ends(here), place, port)
        verdicts.append(out and in_)
        words = "allowed" if verdicts[-1] else "denied"
        lines.append(f"network {network.spec.name}, {_name(here)} → {_name(there)}: {words}")
        lines += [f"  {line}" for line in (why_out, why_in) if line]
    return PolicyExplanation(allowed=any(verdicts), lines=tuple(lines))


def _judged(
    cluster: Cluster,
    direction: Direction,
    end: Party | str,
    others: Sequence[str],
    place: Place,
    port: PolicyPort | None,
) -> tuple[bool, str]:
    """What is said at one end; an address that is no container's has no policies."""
    if isinstance(end, str):
        return True, ""
    specs = (policy.spec for policy in cluster.policies.values())
    chosen = selecting(specs, end, direction)
    what = f"{direction} of {end.name}"
    if not chosen:
        return True, f"{what}: open, no policy selects it"
    if set(others) <= set(end.addresses):
        return True, f"{what}: allowed, it is itself"
    partly: list[str] = []
    for policy, number, allowed in _allowances(chosen, direction, place):
        if port is None and all(_reaches(allowed, other) for other in others):
            ports = policy.rules(direction) or ()
            if not allowed.ports:
                return True, f"{what}: allowed by {_rule(policy, direction, number)}"
            partly += [port_words(p) for p in ports[number - 1].ports]
        elif port is not None and all(allows(allowed, o, port.protocol, port.port) for o in others):
            return True, f"{what}: allowed by {_rule(policy, direction, number)}"
    if partly:
        return True, f"{what}: allowed to port {' or '.join(dict.fromkeys(partly))} only"
    return False, f"{what}: denied, {names(chosen)} and no rule that allows it"


def _allowances(
    policies: Iterable[PolicySpec], direction: Direction, place: Place
) -> Iterable[tuple[PolicySpec, int, Allowance]]:
    for policy in policies:
        for number, rule in enumerate(policy.rules(direction) or (), 1):
            yield policy, number, allowance(rule, place)


def _rule(policy: PolicySpec, direction: Direction, number: int) -> str:
    rule = (policy.rules(direction) or ())[number - 1]
    return f"policy {policy.name}, rule {number} ({rule_words(rule)})"


def _reaches(allowed: Allowance, address: str) -> bool:
    end = ipaddress.ip_address(address)
    return any(low <= int(end) <= high for low, high in allowed.spans.get(end.version, ()))


def _port(question: PolicyQuestion) -> PolicyPort | None:
    if not question.port:
        return PolicyPort(protocol="icmp") if question.protocol == "icmp" else None
    if not 0 < question.port < 65536:
        raise InvalidInput(f"{question.port} is not a port (1 to 65535)")
    return PolicyPort(port=question.port, protocol=question.protocol)


def _feet(cluster: Cluster, statuses: Statuses, ref: str) -> tuple[Party, ...] | str:
    """A container's feet, those of one of a service's, or an address. Raises NotFound, WrongState."""
    try:
        return str(ipaddress.ip_address(ref))
    except ValueError:
        pass
    try:
        instances = [find_instance(cluster, ref)]
    except NotFound as error:
        try:
            service = find_service(cluster, ref)
        except NotFound:
            raise NotFound(
                f"{ref[:80]!r} is no container, service or address", hint="`flota ps` and `flota service ls`"
            ) from error
        instances = sorted(cluster.of_service(service.id).values(), key=lambda i: i.name)
    for instance in instances:
        status = statuses.get(instance.id)
        if status is not None and status.phase is Phase.RUNNING:
            return tuple(p for p in parties_of(cluster, instance, status.endpoints) if p.addresses)
    raise WrongState(f"{ref} does not run, so it has no addresses", hint="Start it and ask again")


def _pairs(
    cluster: Cluster, source: tuple[Party, ...] | str, target: tuple[Party, ...] | str
) -> Iterable[tuple[Party | str, Party | str, Network]]:
    if isinstance(source, str) and isinstance(target, str):
        raise InvalidInput("one of the two must be a container or a service")
    if not isinstance(source, str) and not isinstance(target, str):
        for here in source:
            for there in target:
                if here.network == there.network:
                    yield here, there, cluster.networks[here.network]
        return
    feet = source if not isinstance(source, str) else target
    address = source if isinstance(source, str) else target
    assert not isinstance(feet, str) and isinstance(address, str)
    for party in _by_which(cluster, feet, address):
        network = cluster.networks[party.network]
        yield (party, address, network) if feet is source else (address, party, network)


def _by_which(cluster: Cluster, feet: tuple[Party, ...], address: str) -> Sequence[Party]:
    """The network that holds the address; for one that none holds, each that leads out."""
    end = ipaddress.ip_address(address)
    networks = {foot.network: cluster.networks[foot.network] for foot in feet}
    holding = {
        ident
        for ident, network in networks.items()
        if any(end in ipaddress.ip_network(cidr) for cidr in _subnets(network))
    }
    leading = {ident for ident, network in networks.items() if not network.spec.internal}
    return [foot for foot in feet if foot.network in (holding or leading)]


def _place(cluster: Cluster, statuses: Statuses, network: Network) -> Place:
    every = tuple(c for n in cluster.networks.values() for c in (*_subnets(n), *n.vip_ranges))
    return Place(
        network=network.id,
        name=network.spec.name,
        subnets=_subnets(network),
        fleet=every,
        parties=on_network(cluster, statuses, network.id),
        services=network.vip_ranges,
    )


def _subnets(network: Network) -> tuple[str, ...]:
    return tuple(subnet.cidr for subnet in network.spec.subnets)


def _ends(end: Party | str) -> tuple[str, ...]:
    return (end,) if isinstance(end, str) else end.addresses


def _name(end: Party | str) -> str:
    return end if isinstance(end, str) else f"{end.name} ({', '.join(end.addresses)})"
