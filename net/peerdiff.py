"""What a change of peers alone means for a host, without looking at all that there is. Pure.

A fleet's hosts come, move, go and get blocks far more often than its networks change, and what one peer costs
on another is its own routes and entries (`net.backend.contract` holds drivers to that). So two plans that
differ in nothing else are compared by the peers that differ, whatever the number of the others. Invariant:
the answer is what a comparison of both plans' whole states would give, or None.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from msgspec.structs import replace

from model.ids import HostId
from model.netoptions import encrypted
from model.view import NetworkView, Peer
from net.diff import NftOp, Operation, diff
from net.host import INGRESS, NetworkPlan
from net.plan import desired


def peer_changes(before: NetworkPlan, after: NetworkPlan) -> tuple[Operation, ...] | None:
    """From the one plan to the other. None where more than peers differs, or nothing does: then it takes a
    whole comparison."""
    if _bare(before) != _bare(after):
        return None
    hosts = _differing(before, after)
    if not hosts or any(_shared(p.peers, hosts) or _enters(p, hosts) for p in (before, after)):
        return None
    then, now = desired(_among(before, hosts), ()), desired(_among(after, hosts), ())
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
