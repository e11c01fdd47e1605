"""What the table `flota` knows of the ingress network: whose packets pass, and by which entry. Pure.

Members are apart from each other (icc is off there) and begin nothing there; only clients pass to them,
brought by an entry host, and only their answers go back. Without an ingress network there is nothing
of it. The marks are explained in `net.returnpath`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from model.view import NetworkPeer, Peer
from net.backend.base import Member, Scene, is_ipv6
from net.host import INGRESS
from net.naming import BRIDGE, bridge_name, vtep_mac, vxlan_name
from net.returnpath import MASK, mark
from net.state import Chain, ElementSet, Rule, element_set, rule
from net.subnets import host_address

MANGLE = -150
"""Priority (nft(8)): a connection is known there, its destination is not changed yet, and no route chosen."""
_KEEP = 0xFFFFFFFF & ~MASK
_BRIDGE, _VXLAN = f'"{bridge_name(INGRESS)}"', f'"{vxlan_name(INGRESS)}"'
_FAMILIES = (("ip", "4"), ("ip6", "6"))


def member_of(members: Iterable[Member]) -> Member | None:
    """The ingress network among those that this host carries."""
    return next((member for member in members if member.view.id == INGRESS), None)


def sets(ingress: Member | None, scene: Scene) -> Mapping[str, ElementSet]:
    """entries: peers' own addresses in the network. homes: a peer's address and its members there."""
    entries = [] if ingress is None else list(_entries(ingress, scene))
    homes = [] if ingress is None else list(_homes(ingress, scene))
    return {
        f"{name}{digit}": element_set(
            type_, (e for e in found if is_ipv6(e) == (digit == "6")), interval=ranges
        )
        for _, digit in _FAMILIES
        for name, found, type_, ranges in (
            ("entries", entries, f"ipv{digit}_addr", False),
            ("homes", homes, f"ipv{digit}_addr . ipv{digit}_addr", True),
        )
    }


def forwarding(ingress: Member | None) -> tuple[Rule, ...]:
    """Ahead of the rules that keep networks apart."""
    if ingress is None:
        return ()
    inward, why = f"iifname {_VXLAN} oifname {_BRIDGE}", "clients of published ports, by their entry"
    found = [rule(f"iifname {_VXLAN} ct status dnat accept", why)]
    for family, digit in _FAMILIES:
        if own := _ranges(ingress, family):
            found += [
                rule(f"{inward} {family} saddr != {own} accept", why),
                rule(f"{inward} {family} saddr @entries{digit} accept", "what an entry asks in its own name"),
            ]
    return tuple(found)


def sources(ingress: Member | None) -> tuple[Rule, ...]:
    """A fleet's host may ask another one and be led to a member of its own: it would refuse what comes with
    its own address from elsewhere."""
    if ingress is None:
        return ()
    why = "its own member's host asks: it would refuse its own address"
    return tuple(
        rule(f"oifname {_VXLAN} ct status dnat {family} saddr . {family} daddr @homes{digit} masquerade", why)
        for family, digit in _FAMILIES
    )


def chains(ingress: Member | None, scene: Scene) -> Mapping[str, Chain]:
    """From each entry to its number, and from the number to the mark of answers. A chain for each, as nft 1.0
    takes a constant alone beside the bits that are to stay."""
    if ingress is None:
        return {}
    known = _known(ingress, scene)
    came = ", ".join(f"{mac} : goto came-{number}" for number, mac in known)
    back = ", ".join(f"{mark(number):#x} : goto back-{number}" for number, _ in known)
    clients = [
        rule(
            f"iifname {_VXLAN} {family} saddr != {own} ether saddr vmap {{ {came} }}",
            "by which entry it came",
        )
        for family, _ in _FAMILIES
        if known and (own := _ranges(ingress, family))
    ]
    answers = f'iifname "{BRIDGE}*" ct direction reply ct mark and {MASK:#x} vmap {{ {back} }}'
    begins = rule(
        f"iifname {_BRIDGE} ct state new reject with icmpx admin-prohibited", "answers alone leave by it"
    )
    found = {
        "entered": Chain(
            type="filter",
            hook="prerouting",
            priority=MANGLE,
            rules=(*clients, *((rule(answers, "answers leave by it"),) if known else ()), begins),
        ),
        "left": Chain(type="filter", hook="postrouting", priority=MANGLE, rules=_leaving()),
    }
    for number, _ in known:
        bits = f"and {_KEEP:#x} or {mark(number):#x}"
        found[f"came-{number}"] = Chain(rules=(rule(f"ct mark set ct mark {bits}", "keep the entry"),))
        found[f"back-{number}"] = Chain(rules=(rule(f"meta mark set meta mark {bits}", "to the entry"),))
    return found


def _leaving() -> tuple[Rule, ...]:
    """Clients and members may have larger packets than the tunnel: TCP is told at its beginning."""
    return (
        rule(f"oifname {_VXLAN} meta mark set meta mark and {_KEEP:#x}", "none on the outer packet"),
        rule(f"oifname {_VXLAN} tcp flags syn tcp option maxseg size set rt mtu", "as the tunnel carries"),
    )


def _ranges(ingress: Member, family: str) -> str:
    found = [r for r in ingress.traits.own_ranges if is_ipv6(r) == (family == "ip6")]
    return f"{{ {', '.join(sorted(found))} }}" if found else ""


def _peers(ingress: Member, scene: Scene) -> list[tuple[NetworkPeer, Peer]]:
    return [(p, scene.peers[p.host]) for p in ingress.view.peers if p.host in scene.peers]


def _known(ingress: Member, scene: Scene) -> list[tuple[int, str]]:
    """Number and MAC of each entry."""
    vni = ingress.view.vni
    return sorted((p.number, vtep_mac(p.host, vni)) for p, _ in _peers(ingress, scene) if p.number)


def _entries(ingress: Member, scene: Scene) -> Iterable[str]:
    """Peers' own addresses in the network."""
    found = (
        host_address(subnet, peer.blocks)
        for peer, _ in _peers(ingress, scene)
        for subnet in ingress.view.spec.subnets
    )
    return filter(None, found)


def _homes(ingress: Member, scene: Scene) -> Iterable[str]:
    for member, peer in _peers(ingress, scene):
        for address in sorted({peer.address, *peer.addresses}):
            same = (b for b in member.blocks if is_ipv6(b) == is_ipv6(address))
            yield from (f"{address} . {_as_listed(block)}" for block in same)


def _as_listed(block: str) -> str:
    """A block in nft's notation: a single address comes without its length."""
    whole = ipaddress.ip_network(block)
    return str(whole.network_address) if whole.prefixlen == whole.max_prefixlen else str(whole)
