"""What a change of peers alone means for a host, without looking at all that there is. Pure.

A fleet's hosts come, move, go and get blocks far more often than its networks change, and what one peer costs
on another is its own routes and entries (`net.backend.contract` holds drivers to that). So two plans that
differ in nothing else are compared by the peers that differ, whatever the number of the others. Invariant:
the answer is what a comparison of both plans' whole states would give, or None.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Container, Iterable, Mapping, Sequence

from msgspec.structs import replace

from model.ids import HostId
from model.netoptions import encrypted
from model.view import NetworkView, Peer
from net.diff import NftOp, Operation, diff
from net.host import INGRESS, NetworkPlan
from net.hostfirewall import NO_FIREWALL, HostFirewall
from net.plan import desired
from net.spans import Span, is_single, lies_in, span_of


def peer_changes(
    before: NetworkPlan, after: NetworkPlan, firewall: HostFirewall = NO_FIREWALL
) -> tuple[Operation, ...] | None:
    """From the one plan to the other, beside that firewall. None where more than peers differs, or nothing
    does: then it takes a whole comparison."""
    if _bare(before) != _bare(after):
        return None
    hosts = _differing(before, after)
    if not hosts or any(_shared(p.peers, hosts) or _enters(p, hosts) for p in (before, after)):
        return None
    if firewall.alone:
        if any(_left(p, hosts) for p in (before, after)):
            return None
        hosts = _cut(before, hosts) | _cut(after, hosts)
    then, now = (desired(_among(plan, hosts), (), firewall) for plan in (before, after))
    operations = diff(now, then)
    whole = any(isinstance(op, NftOp) and op.whole for op in operations)
    return None if whole else operations


def _bare(plan: NetworkPlan) -> NetworkPlan:
    """What must be equal. Services are the caller's to compare."""
    networks = {ident: replace(view, peers=()) for ident, view in plan.networks.items()}
    return replace(plan, networks=networks, peers={}, services={})


def _differing(before: NetworkPlan, after: NetworkPlan) -> frozenset[HostId]:
    hosts = {h for h in before.peers.keys() | after.peers if before.peers.get(h) != after.peers.get(h)}
    for ident, view in after.networks.items():
        hosts |= {member.host for member in set(view.peers) ^ set(before.networks[ident].peers)}
    return frozenset(hosts)


def _shared(peers: Mapping[HostId, Peer], hosts: Container[HostId]) -> bool:
    """Whether somebody else has an address of one that differs: its entries would go too, or stand."""
    kept = {peer.address for host, peer in peers.items() if host not in hosts}
    return any(peer.address in kept for host, peer in peers.items() if host in hosts)


def _enters(plan: NetworkPlan, hosts: Container[HostId]) -> bool:
    """Whether one is an entry for published ports, of which rules are made, or has an encrypted tunnel, whose
    peers may move by themselves."""
    return any(
        member.host in hosts
        for view in plan.networks.values()
        if view.id == INGRESS or encrypted(view.spec.options)
        for member in view.peers
    )


def _left(plan: NetworkPlan, hosts: Container[HostId]) -> bool:
    """Whether one has an address that lies in this host's blocks: an endpoint here had it, maybe."""
    for view in plan.networks.values():
        own = [span_of(block) for block in view.held]
        singles = (b for m in view.peers if m.host in hosts for b in m.blocks if is_single(b))
        if any(lies_in(span_of(single), own) for single in singles):
            return True
    return False


def _cut(plan: NetworkPlan, hosts: frozenset[HostId]) -> frozenset[HostId]:
    """With those whose ranges depend on what these have: an address with a route of its own is cut out of the
    block in which it lies (`net.shortcuts`)."""
    found = hosts
    for view in plan.networks.values():
        ranges = [(*span_of(block), member.host) for member in view.peers for block in member.blocks]
        singles = [(version, low, host) for version, (low, high), host in ranges if low == high]
        if not singles:
            continue
        wide = [(version, span, host) for version, span, host in ranges if span[0] != span[1]]
        moved = _points(single for single in singles if single[2] in hosts)
        near = hosts | {host for version, span, host in wide if _holds(moved, version, span)}
        cut = [(version, span) for version, span, host in wide if host in near]
        found |= near | {host for version, at, host in singles if lies_in((version, (at, at)), cut)}
    return found


def _points(singles: Iterable[tuple[int, int, HostId]]) -> Mapping[int, Sequence[int]]:
    """By family, in order."""
    found: dict[int, list[int]] = {}
    for version, at, _ in sorted(singles):
        found.setdefault(version, []).append(at)
    return found


def _holds(points: Mapping[int, Sequence[int]], version: int, span: Span) -> bool:
    known = points.get(version, ())
    return bisect_left(known, span[0]) < bisect_right(known, span[1])


def _among(plan: NetworkPlan, hosts: Container[HostId]) -> NetworkPlan:
    networks: dict[str, NetworkView] = {}
    for ident, view in plan.networks.items():
        members = tuple(member for member in view.peers if member.host in hosts)
        networks[ident] = replace(view, peers=members)
    return replace(
        plan,
        networks=networks,
        peers={host: peer for host, peer in plan.peers.items() if host in hosts},
        services={},
    )
