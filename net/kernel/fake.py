"""A kernel in memory, with the real one's rules of order: what stands on a link needs it and goes with it, a
route needs its link up, nothing is made twice, an nft script happens whole or not at all.

It passes the same contract suite as `net.kernel.linux` (tests/contract/test_kernel.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path

import msgspec

from model.errors import AlreadyExists, CommandFailed
from net.diff import NftOp, Op, Operation, describe
from net.endpoint import InstanceNetwork
from net.flows import Change, Connection, is_stale
from net.hostfirewall import NO_FIREWALL, HostFirewall
from net.kernel.base import SeenServices
from net.kernel.fakeservices import FakeServices
from net.loadbalance import ElementChange, Flow, served
from net.servicechains import TABLE as SERVICE_TABLE
from net.shortcuts import tracked
from net.state import (
    UPPER,
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
    PolicyRule,
    Route,
    Steering,
    Sysctl,
    TunnelPeer,
    Way,
)

_ELEMENTS = re.compile(r"(add|delete) element (?:inet|bridge|netdev) flota ([\w-]+) \{ (.*) \}")
_MADE_MAC = "02:00:00:00:00:01"
_HOST_SYSCTLS = {
    "net/ipv4/ip_forward": "0",
    "net/ipv4/conf/all/send_redirects": "1",
    "net/ipv6/conf/all/forwarding": "0",
}
_Entry = Address | Neighbour | Fdb | TunnelPeer | Route | PolicyRule | Limit | Detour
_FIELDS = {
    Address: "addresses",
    Neighbour: "neighbours",
    Fdb: "fdb",
    TunnelPeer: "tunnel_peers",
    Route: "routes",
    Limit: "limits",
    Detour: "detours",
    PolicyRule: "rules",
}
_LINK_SYSCTLS = ("rp_filter", "send_redirects", "route_localnet", "accept_ra", "disable_ipv6", "arp_ignore")


class FakeKernel:
    """`state` is everything of ours; tests may change it and ring, as a stranger would. `applied` is a
    log."""

    def __init__(self) -> None:
        self.state = NetState(sysctls=_HOST_SYSCTLS)
        self.services = FakeServices()
        self.spaces: set[Path] = set()
        """A stranger takes one away by discarding it."""
        self._kept: set[Path] = set()
        self.deserted: set[Path] = set()
        """Those in which no process lives."""
        self.others = {"eth0"}
        """Links that are not ours; routes may lead by them."""
        self.refused: set[str] = set()
        """Objects, as `describe` names them, whose changes fail."""
        self.unsteered_links: set[str] = set()
        self.fences: dict[str, str] = {}
        """The last nft script that ran in each namespace."""
        self.strangers: dict[str, str] = {}
        """Addresses that others on containers' links have, and their MACs."""
        self.nics: set[str] = {"eth0", "eth1"}
        """The host's own links, on which others can stand."""
        self.kinds: set[str] = {"macvlan", "ipvlan", "vlan"}
        """Of those that stand on others, what it can make."""
        self.firewall: HostFirewall = NO_FIREWALL
        """A stranger's; tests may change it and ring."""
        self.connections: list[Connection] = []
        self.taken_ports: set[tuple[str, int]] = set()
        self.applied: list[Operation] = []
        self.blind = ""
        """While it says something nothing can be looked at, in these words."""
        self.looks = 0
        """Times it was observed."""
        self.tracked: list[tuple[frozenset[bytes], frozenset[bytes], frozenset[bytes]]] = []
        """A log of `track`: who came, who went, and whom the table of services tracked then."""
        self._ring: Callable[[], None] = lambda: None

    async def start(self, ring: Callable[[], None]) -> None:
        self._ring = ring

    async def close(self) -> None:
        self._ring = lambda: None

    async def observe(self, sysctls: Iterable[str], inner: Sequence[Link] = ()) -> NetState:
        self.looks += 1
        self._see()
        known = {path: self.state.sysctls[path] for path in sysctls if path in self.state.sysctls}
        return msgspec.structs.replace(self.state, sysctls=known)

    async def fence(self, namespace: str, script: str) -> None:
        if Path(namespace) not in self.spaces:
            raise CommandFailed(f"no namespace {namespace}")
        self.fences[namespace] = script

    async def ask(self, foot: Foot) -> Mapping[str, str]:
        found = (cidr.partition("/")[0] for cidr in foot.addresses)
        return {address: self.strangers[address] for address in found if address in self.strangers}

    async def unsteered(self, links: Mapping[str, str]) -> Sequence[str]:
        return [link for link in links if link in self.unsteered_links]

    async def apply(self, operations: Sequence[Operation]) -> None:
        for operation in operations:
            self.state = self._after(operation)
            self.applied.append(operation)
        if operations:
            self._ring()

    async def observe_services(self) -> SeenServices:
        self._see()
        return self.services.observe()

    async def change_services(self, change: ElementChange) -> None:
        self.services.change(change)
        self._ring()

    async def track(self, *, come: Set[bytes] = frozenset(), gone: Set[bytes] = frozenset()) -> None:
        self.tracked.append((frozenset(come), frozenset(gone), served(self.services.elements)))
        table = self.state.tables.get("netdev")
        if table is None:
            return
        sets = dict(table.sets)
        lost, more = tracked(gone), tracked(come)
        for name in more:
            kept = {key: "" for key in sets[name].elements if key not in lost[name]}
            sets[name] = msgspec.structs.replace(sets[name], elements={**kept, **more[name]})
        tables = {**self.state.tables, "netdev": msgspec.structs.replace(table, sets=sets)}
        self.state = _replace(self.state, tables=tables)

    async def forget(self, flows: Sequence[Flow]) -> None:
        self.services.forget(flows)

    async def forget_connections(self, change: Change, instances: Sequence[InstanceNetwork]) -> None:
        self.connections = [c for c in self.connections if not is_stale(c, change, instances)]

    async def connected(self, members: frozenset[bytes]) -> frozenset[bytes]:
        return members & self.services.connected

    async def host_firewall(self) -> HostFirewall:
        self._see()
        return self.firewall

    async def nft_changed_by_others(self) -> bool:
        return self.services.changed_by_others()

    async def make_namespace(self, path: Path) -> None:
        if path in self.spaces:
            raise AlreadyExists(f"network namespace {path} exists")
        path.touch()
        self.spaces.add(path)
        self._kept.add(path)

    async def drop_namespace(self, path: Path) -> None:
        self.spaces.discard(path)
        self._kept.discard(path)
        path.unlink(missing_ok=True)
        feet = [n for n, link in self.state.links.items() if link.foot and link.foot.namespace == str(path)]
        for name in feet:
            self.state = without_link(self.state, name)

    def has_namespace(self, path: Path) -> bool:
        return path in self.spaces

    def keep_namespaces(self, paths: Iterable[Path]) -> None:
        self._kept |= self.spaces & set(paths)

    async def held_again(self) -> Sequence[Path]:
        lost = sorted(self._kept - self.spaces - self.deserted)
        self.spaces |= set(lost)
        return lost

    def port_is_free(self, protocol: str, host_ip: str, port: int) -> bool:
        return (protocol, port) not in self.taken_ports

    def strike(self, change: Callable[[NetState], NetState]) -> None:
        """Change the state as a stranger, and ring."""
        self.state = change(self.state)
        self._ring()

    def _see(self) -> None:
        if self.blind:
            raise CommandFailed(self.blind)

    def _after(self, operation: Operation) -> NetState:
        if isinstance(operation, NftOp) and f" {SERVICE_TABLE}" in operation.script:
            self.services.script(operation.script)
            return self.state
        if isinstance(operation, NftOp):
            return _after_nft(self.state, operation)
        item = operation.item
        if describe(item) in self.refused:
            raise _refused(operation, "as the test wants it")
        if isinstance(item, Link):
            return self._after_link(operation, item)
        if isinstance(item, Sysctl):
            if item.path not in self.state.sysctls:
                raise _refused(operation, "no such switch")
            return _replace(self.state, sysctls={**self.state.sysctls, item.path: item.value})
        if isinstance(item, Admission):
            others = {a for a in self.state.admissions if a.family != item.family}
            stand = others if operation.verb == "remove" else {*others, item}
            return _replace(self.state, admissions=frozenset(stand))
        if isinstance(item, Steering):
            self.unsteered_links.discard(item.link)
            return self.state
        if isinstance(item, Way):
            link = self.state.links.get(item.link)
            if link is None:
                raise _refused(operation, "no such link")
            return _replace(
                self.state, links={**self.state.links, link.name: _replace_link(link, foot=item.foot)}
            )
        return self._after_entry(operation, item)

    def _after_link(self, operation: Op, link: Link) -> NetState:
        if operation.verb == "remove":
            return without_link(self.state, link.name)
        exists = link.name in self.state.links
        if operation.verb == "add" and exists and not self.state.links[link.name].bare:
            raise _refused(operation, "it exists")
        if operation.verb == "change" and not exists:
            raise _refused(operation, "no such link")
        if link.kind in UPPER and link.kind not in self.kinds:
            raise _refused(operation, "Operation not supported")
        if link.below and link.below not in self.nics and link.below not in self.state.links:
            raise _refused(operation, f"no link {link.below}")
        if link.master and link.master not in self.state.links:
            raise _refused(operation, f"no bridge {link.master}")
        if link.foot is not None and Path(link.foot.namespace) not in self.spaces:
            raise _refused(operation, "no such namespace")
        made = link if link.mac else _replace_link(link, mac=_MADE_MAC)
        sysctls = dict(self.state.sysctls)
        for name in _LINK_SYSCTLS:
            for family in ("ipv4", "ipv6"):
                sysctls.setdefault(f"net/{family}/conf/{link.name}/{name}", "0")
        return _replace(self.state, links={**self.state.links, link.name: made}, sysctls=sysctls)

    def _after_entry(self, operation: Op, item: _Entry) -> NetState:
        field = _FIELDS[type(item)]
        have: frozenset[_Entry] = getattr(self.state, field)
        if operation.verb == "remove" and isinstance(item, TunnelPeer):
            return _replace(self.state, tunnel_peers=_without_peer(self.state, item))
        if operation.verb == "remove":
            return _replace(self.state, **{field: have - {item}})
        if isinstance(item, PolicyRule):
            if item in have:
                raise _refused(operation, "it exists")
            return _replace(self.state, **{field: have | {item}})
        link = self.state.links.get(item.link)
        if item.link and link is None and not (isinstance(item, Route) and item.link in self.others):
            raise _refused(operation, f"no link {item.link}")
        if isinstance(item, Route):
            if link is not None and not link.up:
                raise _refused(operation, f"{item.link} is down")
            same = {r for r in self.state.routes if r.place == item.place}
            if same and operation.verb == "add":
                raise _refused(operation, "it exists")
            have = have - same
        if isinstance(item, TunnelPeer):
            have = _without_peer(self.state, item)
        if isinstance(item, Limit):
            have = have - {limit for limit in self.state.limits if limit.link == item.link}
        if isinstance(item, Detour) and item.to not in self.state.links:
            raise _refused(operation, f"no link {item.to}")
        return _replace(self.state, **{field: have | {item}})


def _after_nft(state: NetState, operation: NftOp) -> NetState:
    tables: dict[Family, NftTable] = dict(state.tables)
    if operation.whole:
        tables.pop(operation.family, None)
        if operation.table is not None:
            tables[operation.family] = operation.table
        return _replace(state, tables=tables)
    table = tables.get(operation.family)
    if table is None:
        raise CommandFailed(
            f"nft refused a change of table flota: there is no table {operation.family} flota"
        )
    sets = dict(table.sets)
    for line in operation.script.splitlines():
        match = _ELEMENTS.fullmatch(line)
        assert match is not None, line
        name, elements = match[2], dict(sets[match[2]].elements)
        for word in match[3].split(", "):
            key, _, value = word.partition(" : ")
            if match[1] == "add":
                elements[key] = value
            elif elements.pop(key, None) is None:
                raise CommandFailed(f"nft refused a change of table flota: no element {key} in {name}")
        sets[name] = msgspec.structs.replace(sets[name], elements=elements)
    tables[operation.family] = msgspec.structs.replace(table, sets=sets)
    return _replace(state, tables=tables)


def without_link(state: NetState, name: str) -> NetState:
    """As after its deletion: what stood on it is gone too."""
    for above in [n for n, link in state.links.items() if link.below == name]:
        state = without_link(state, above)
    links = {
        n: _replace_link(link, master="") if link.master == name else link
        for n, link in state.links.items()
        if n != name
    }
    return _replace(
        state,
        links=links,
        addresses=frozenset(a for a in state.addresses if a.link != name),
        neighbours=frozenset(n for n in state.neighbours if n.link != name),
        fdb=frozenset(f for f in state.fdb if f.link != name),
        tunnel_peers=frozenset(p for p in state.tunnel_peers if p.link != name),
        limits=frozenset(limit for limit in state.limits if limit.link != name),
        detours=frozenset(d for d in state.detours if name not in (d.link, d.to)),
        routes=frozenset(r for r in state.routes if r.link != name),
        sysctls={p: v for p, v in state.sysctls.items() if name not in p.split("/")},
    )


def _without_peer(state: NetState, item: TunnelPeer) -> frozenset[TunnelPeer]:
    return frozenset(peer for peer in state.tunnel_peers if peer.whose != item.whose)


def _replace(state: NetState, **changes: object) -> NetState:
    return msgspec.structs.replace(state, **changes)


def _replace_link(link: Link, **changes: object) -> Link:
    return msgspec.structs.replace(link, **changes)


def _refused(operation: Op, reason: str) -> CommandFailed:
    return CommandFailed(f"the kernel refused to {operation.verb} {describe(operation.item)}: {reason}")
