"""From two network states to the operations that turn one into the other, in the order the kernel needs.
Pure.

Removals come first and in reverse (rule, route, FDB, neighbour, address, link), then the packet filter, so
that no link is up before its rules stand, then link, limit, sysctl, address, neighbour, FDB, route, rule and,
last, shortcuts: traffic starts only once its way is complete. Invariant: `diff(x, x)` is empty, and only
objects of `have` are ever removed.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Literal

import msgspec

from model.spec import Struct
from net.nftscript import table_script
from net.state import (
    Address,
    Admission,
    Detour,
    Family,
    Fdb,
    Foot,
    Limit,
    Link,
    Neighbour,
    NetState,
    NftTable,
    Place,
    PolicyRule,
    Route,
    Steering,
    Sysctl,
    TunnelPeer,
    Vxlan,
    Way,
)

CARRYING = ("bridge", "vlan")
"""Links that others stand on: made first, removed last."""
Entry = Address | Neighbour | Fdb | TunnelPeer | Route | PolicyRule | Limit | Detour
Item = Link | Entry | Sysctl | Way | Steering | Admission


class Op(Struct):
    """One change to the kernel. `change` is for links, their steering, sysctls, ways, tunnels' peers, routes
    (replaced without a gap, whoever's they are now) and rules in Docker's chain; the others are removed and
    added."""

    verb: Literal["add", "change", "remove"]
    item: Item

    def __str__(self) -> str:
        return f"{self.verb} {describe(self.item)}"


class NftOp(Struct):
    """One transaction on one of our nft tables."""

    family: Family
    script: str
    whole: bool
    """The table is made anew; otherwise only elements change."""
    table: NftTable | None = None
    """With `whole`: the table as it will be; None: gone."""

    def __str__(self) -> str:
        return f"{'replace' if self.whole else 'change elements of'} nft table {self.family} flota"


Operation = Op | NftOp


def describe(item: Item) -> str:
    """The object for people: `link flb0123`, `route 10.1.0.0/24`."""
    match item:
        case Link(foot=Foot(ifname=inside), below=below) if below:
            return f"{item.kind} {item.name} ({inside} of a container, on {below})"
        case Link():
            return f"{item.kind} {item.name}"
        case Address():
            return f"address {item.cidr} on {item.link}"
        case Neighbour():
            return f"neighbour {item.address} on {item.link}"
        case Fdb():
            return f"FDB entry {item.mac} → {item.remote} on {item.link}"
        case TunnelPeer():
            return f"peer {item.key} of {item.link}"
        case Route():
            return f"route {item.destination}" + (f" of table {item.table}" if item.table else "")
        case PolicyRule():
            return f"IPv{item.version} rule to table {item.table}"
        case Sysctl():
            return f"sysctl {item.path}"
        case Way():
            return f"routes of {item.foot.ifname} behind {item.link}"
        case Limit():
            return f"limit of {item.link}"
        case Detour():
            return f"detour of {item.link}"
        case Admission():
            return f"{item.family} rules in Docker's chain"
        case Steering():
            return f"packet steering of {item.link}"


def diff(want: NetState, have: NetState, stood: Container[Place] = frozenset()) -> tuple[Operation, ...]:
    """Operations that make `want` of a host which is as `have`. Routes at the places of `stood` were
    there before: should somebody have put another in the place of one, it is taken back. Of another metric it
    would stand beside the wanted one, perhaps ahead of it."""
    gone = {n for n, link in have.links.items() if n not in want.links or _remade(want.links[n], link)}
    gone |= {n for n, link in have.links.items() if link.below in gone}
    left = _without(have, gone)
    places = {route.place for route in left.routes}
    ours = {route.place for route in want.routes if route.place in stood or route.place in places}
    ranked = {(route.place, route.metric) for route in want.routes}
    stale = (route for route in left.routes - want.routes if (route.place, route.metric) not in ranked)
    limited = {limit.link for limit in want.limits}
    slow = (limit for limit in left.limits - want.limits if limit.link not in limited)
    removed: list[Operation] = [Op(verb="remove", item=item) for item in _sorted(left.rules - want.rules)]
    removed += [Op(verb="remove", item=item) for item in _sorted(stale)]
    removed += [Op(verb="remove", item=item) for item in _sorted(left.detours - want.detours)]
    removed += [Op(verb="remove", item=item) for item in _sorted(slow)]
    known = {peer.whose for peer in want.tunnel_peers}
    strange = (peer for peer in left.tunnel_peers if peer.whose not in known)
    removed += [Op(verb="remove", item=item) for item in _sorted(strange)]
    removed += [Op(verb="remove", item=item) for item in _sorted(left.fdb - want.fdb)]
    removed += [Op(verb="remove", item=item) for item in _sorted(left.neighbours - want.neighbours)]
    removed += [Op(verb="remove", item=item) for item in _sorted(_given(left.addresses) - want.addresses)]
    removed += [
        Op(verb="remove", item=have.links[name])
        for name in sorted(gone, key=lambda n: (have.links[n].kind in CARRYING, n))
    ]
    return (
        *removed,
        *nft_operations(_of_stack(want.tables), _of_stack(left.tables)),
        *_links(want, left),
        *(Op(verb="change", item=item) for item in _sorted(want.limits - left.limits)),
        *(Op(verb="add", item=item) for item in _sorted(want.detours - left.detours)),
        *_sysctls(want, left),
        *(Op(verb="add", item=item) for item in _sorted(want.addresses - left.addresses)),
        *(Op(verb="add", item=item) for item in _sorted(want.neighbours - left.neighbours)),
        *(Op(verb="add", item=item) for item in _sorted(want.fdb - left.fdb)),
        *_tunnel_peers(want, left),
        *(
            Op(verb="change" if route.place in ours else "add", item=route)
            for route in sorted(want.routes - left.routes, key=msgspec.json.encode)
        ),
        *(Op(verb="add", item=item) for item in _sorted(want.rules - left.rules)),
        *_admissions(want, left),
        *_shortcuts(want, left),
    )


def _given(addresses: frozenset[Address]) -> frozenset[Address]:
    """Without those that the kernel gives links by itself."""
    return frozenset(address for address in addresses if not address.cidr.startswith("fe80:"))


def _admissions(want: NetState, have: NetState) -> Iterable[Operation]:
    families = {item.family for item in want.admissions}
    gone = (item for item in have.admissions if item.family not in families)
    yield from (Op(verb="remove", item=item) for item in _sorted(gone))
    yield from (Op(verb="change", item=item) for item in _sorted(want.admissions - have.admissions))


def roamed(want: NetState, have: NetState, told: Mapping[tuple[str, str], str]) -> NetState:
    """`have` as it is to be compared with `want`: where a peer's end is now, its device knows best (WireGuard
    follows whoever proves to have the key), unless it should be another than was `told`."""
    wanted = {peer.whose: peer.endpoint for peer in want.tunnel_peers}

    def seen(peer: TunnelPeer) -> TunnelPeer:
        end = wanted.get(peer.whose)
        if end is None or (end and (not peer.endpoint or told.get(peer.whose) != end)):
            return peer
        return msgspec.structs.replace(peer, endpoint=end)

    return msgspec.structs.replace(have, tunnel_peers=frozenset(map(seen, have.tunnel_peers)))


def removes(operation: Operation, links: Container[str]) -> bool:
    """Whether it takes away one of these links."""
    if not isinstance(operation, Op) or operation.verb != "remove":
        return False
    return isinstance(operation.item, Link) and operation.item.name in links


def _of_stack(tables: Mapping[Family, NftTable]) -> Mapping[Family, NftTable]:
    """Those that stand by themselves. Chains of family netdev are on links, and their elements name some."""
    return {family: table for family, table in tables.items() if family != "netdev"}


def _shortcuts(want: NetState, have: NetState) -> tuple[Operation, ...]:
    """The table of the links. Its rules know those by number, so it is made anew where some are."""
    now, then = want.tables.get("netdev"), have.tables.get("netdev")
    if now is not None and any(link not in have.links for link in want.links if _leads_to(now, link)):
        then = None
    return nft_operations(
        {"netdev": now} if now is not None else {}, {"netdev": then} if then is not None else {}
    )


def _leads_to(table: NftTable, link: str) -> bool:
    quoted = f'"{link}"'
    return any(quoted in rule.text for chain in table.chains.values() for rule in chain.rules)


def nft_operations(want: Mapping[Family, NftTable], have: Mapping[Family, NftTable]) -> tuple[Operation, ...]:
    """The nft part alone: what an endpoint or a published port changes."""
    found: list[Operation] = []
    for family in sorted({*want, *have}):
        script, whole = table_script(family, want.get(family), have.get(family))
        if script:
            table = want.get(family) if whole else None
            found.append(NftOp(family=family, script=script, whole=whole, table=table))
    return tuple(found)


def same_link(want: Link, have: Link) -> bool:
    """Whether a seen link is as wanted; what is left to the kernel (an empty MAC) and what is never
    observed don't count."""
    mac = have.mac if not want.mac else want.mac
    seen = msgspec.structs.replace(want, mac=mac, foot=None, steered=False, peer="", bare=False, key_file="")
    return seen == msgspec.structs.replace(have, foot=None, steered=False, peer="", bare=False, key_file="")


def _remade(want: Link, have: Link) -> bool:
    fixed = ((link.kind, _set_once(link.vxlan), link.below, link.mode, link.vlan) for link in (want, have))
    dead = want.wireguard is not None and have.wireguard is None
    return next(fixed) != next(fixed) or dead


def _set_once(vxlan: Vxlan | None) -> Vxlan | None:
    """What can't be changed on a tunnel that stands."""
    return vxlan if vxlan is None else msgspec.structs.replace(vxlan, checksums=True)


def _without(have: NetState, gone: set[str]) -> NetState:
    """What is left once links are gone: the kernel takes along all that stood on them."""
    if not gone:
        return have
    return msgspec.structs.replace(
        have,
        links={n: _orphan(link, gone) for n, link in have.links.items() if n not in gone},
        addresses=frozenset(a for a in have.addresses if a.link not in gone),
        neighbours=frozenset(n for n in have.neighbours if n.link not in gone),
        fdb=frozenset(f for f in have.fdb if f.link not in gone),
        tunnel_peers=frozenset(p for p in have.tunnel_peers if p.link not in gone),
        limits=frozenset(limit for limit in have.limits if limit.link not in gone),
        detours=frozenset(d for d in have.detours if d.link not in gone),
        routes=frozenset(r for r in have.routes if r.link not in gone),
        sysctls={p: v for p, v in have.sysctls.items() if not gone & set(p.split("/"))},
    )


def _orphan(link: Link, gone: set[str]) -> Link:
    return msgspec.structs.replace(link, master="") if link.master in gone else link


def _links(want: NetState, have: NetState) -> Iterable[Operation]:
    for name in sorted(want.links, key=lambda n: (want.links[n].kind not in CARRYING, n)):
        link = want.links[name]
        if name not in have.links:
            yield Op(verb="add", item=link)
        elif not same_link(link, have.links[name]):
            yield Op(verb="change", item=link)


def _tunnel_peers(want: NetState, have: NetState) -> Iterable[Operation]:
    known = {peer.whose for peer in have.tunnel_peers}
    for peer in _sorted(want.tunnel_peers - have.tunnel_peers):
        assert isinstance(peer, TunnelPeer)
        yield Op(verb="change" if peer.whose in known else "add", item=peer)


def _sysctls(want: NetState, have: NetState) -> Iterable[Operation]:
    """A switch that is missing comes with its link, or is one that this kernel doesn't have."""
    for path, value in sorted(want.sysctls.items()):
        comes = any(part in want.links and part not in have.links for part in path.split("/"))
        if comes or have.sysctls.get(path, value) != value:
            yield Op(verb="change", item=Sysctl(path=path, value=value))


def _sorted(items: Iterable[Item]) -> list[Item]:
    return sorted(items, key=msgspec.json.encode)
