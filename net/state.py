"""A host's network as a value: what should be there, and what was seen there. Pure.

Every object has a key (what it is) and a content (how it is). Desired states come from `net.plan`, observed
ones from a Kernel, which reports only objects of ours; both compare with `==`. Links are named, never
numbered: interface indexes are the kernel driver's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from model.spec import Struct

PROTOCOL = 0xF7
"""Our number in rtm_protocol (rtnetlink(7); iproute2's rt_protos leaves 0xF7 free): marks our routes."""
NO_MAC = "00:00:00:00:00:00"
"""In a VXLAN device's FDB: where frames without a known place go (head-end replication)."""

LinkKind = Literal["bridge", "vxlan", "wireguard", "veth", "ifb", "macvlan", "ipvlan", "vlan"]
UPPER = frozenset({"macvlan", "ipvlan", "vlan"})
"""Kinds that stand on another link."""


class Vxlan(Struct):
    """What can't be changed on a VXLAN device once it is made (RFC 7348; ip-link(8))."""

    vni: int
    local: str
    """Source address of what it sends; always set, or the kernel chooses one that peers refuse."""
    port: int
    learning: bool = False
    source_ports: tuple[int, int] = (0, 0)
    """First and last; zeros: the kernel's choice."""
    checksums: bool = True
    """Those of what it carries are left to the network card. This alone can be changed."""


class WireGuard(Struct):
    """A WireGuard device's own end, whoever drives it: the kernel, or a process of ours by a TUN device."""

    key: str
    """Public, in base64; its private half never is in any state."""
    port: int


class LocalEnd(Struct):
    """This host's end of an encrypted network's tunnels, of one generation of keys."""

    generation: int
    key: str
    port: int
    key_file: str
    """Where the private key is, in base64."""


class Foot(Struct):
    """The far end of an endpoint's veth, inside the container's namespace."""

    namespace: str
    """Path of the namespace."""
    ifname: str
    mac: str
    addresses: tuple[str, ...]
    """With prefix length."""
    gateways: tuple[str, ...] = ()
    defaults: tuple[str, ...] = ()
    """Those gateways that are also the way to everywhere else."""
    ranges: tuple[str, ...] = ()
    """What else lies behind the gateways, where they are not the way to everywhere."""
    sysctls: Mapping[str, str] = {}
    """Of this interface, by path below /proc/sys."""
    onlink: bool = False
    """The gateway is in the addresses' own subnet: no route to it is needed."""
    beside: Mapping[str, str] = {}
    """Addresses that are reached by another one on the link: the host's own, by its shim."""
    table: int = 0
    """What has these addresses as its source leaves by this link, by routes of this table; 0: by the main
    one."""
    replies_only: bool = False
    """What has these addresses as its source leaves by the gateways, all else by `defaults` alone."""


class Link(Struct):
    name: str
    kind: LinkKind
    alias: str
    mtu: int
    mac: str = ""
    """Empty: the kernel's choice, not compared."""
    master: str = ""
    up: bool = True
    vxlan: Vxlan | None = None
    wireguard: WireGuard | None = None
    key_file: str = ""
    """Of a WireGuard device: where its private key is. Never observed, never compared."""
    multicast_snooping: bool = False
    """Of a bridge."""
    steered: bool = False
    """What arrives on it is worked on by all processors, one per flow (receive packet steering, Linux
    networking/scaling). Set when the link is made; observed and compared apart, for that costs a file each
    (see `Steering`)."""
    peer: str = ""
    """Of a veth whose ends are both here: the name of the other. Never observed, never compared."""
    foot: Foot | None = None
    """Of a veth: how to make its far end; of a link that stands in a container: where, and how it is there.
    Never observed, never compared."""
    below: str = ""
    """Of macvlan, ipvlan and VLAN links: the link of the host that they stand on."""
    mode: str = ""
    """Of macvlan and ipvlan (ip-link(8)); of ipvlan with its flag: `l2 bridge`."""
    bare: bool = False
    """Of a link that stands in a container: up, without addresses as yet. Never observed, never compared."""
    vlan: int = 0
    """Of a VLAN link (IEEE 802.1Q): its number."""


class Way(Struct):
    """The routes of an endpoint inside its namespace, to be set anew. Never observed."""

    link: str
    """The endpoint's, on the host's side."""
    foot: Foot
    anew: bool = False
    """Its IPv4 addresses too: those that it has no longer go."""


class Address(Struct):
    link: str
    cidr: str


class Neighbour(Struct):
    """A permanent ARP or ND entry."""

    link: str
    address: str
    mac: str


class Fdb(Struct):
    """A static entry of a VXLAN device: frames to `mac` go to the host at `remote`."""

    link: str
    mac: str
    remote: str


class TunnelPeer(Struct):
    """Another host's end, as a WireGuard device of ours knows it. What comes from it has a source in
    `allowed`, or is dropped; what goes there is encrypted for `key`."""

    link: str
    key: str
    """Public, in base64."""
    allowed: tuple[str, ...]
    """Sorted."""
    endpoint: str = ""
    """ADDRESS:PORT. Empty: it has to speak first; then the device has learned it, as when it moved."""
    keepalive: int = 0
    """Seconds between packets that keep a translator's memory of us; 0: none."""

    @property
    def whose(self) -> tuple[str, str]:
        """What two of them can't both have."""
        return self.link, self.key


Place = tuple[int, str]
"""Table and destination of a route."""


class Route(Struct):
    """Of our protocol. Without a link: `unreachable`."""

    destination: str
    link: str = ""
    via: str = ""
    """Next hop, taken as on-link; may be IPv6 for an IPv4 destination (RFC 5549)."""
    source: str = ""
    """Preferred source address of the host's own packets."""
    table: int = 0
    """0: the main one."""
    metric: int = 0
    """0: the kernel's choice; a larger one gives way to others to the same destination."""

    @property
    def place(self) -> Place:
        """What two routes can't both have."""
        return self.table, self.destination


class PolicyRule(Struct):
    """What has `mark` under `mask` is routed by `table` (ip-rule(8)); of our protocol."""

    version: Literal[4, 6]
    mark: int
    mask: int
    table: int
    priority: int


class Limit(Struct):
    """What leaves a link is held back to `rate` bytes a second (tc-tbf(8)), in place of whatever is at its
    root."""

    link: str
    rate: int


class Detour(Struct):
    """All that a link receives is first sent out of another, which is there to hold it back (ifb)."""

    link: str
    to: str


AdmissionFamily = Literal["ip", "ip6"]


class Admission(Struct):
    """Our rules in Docker's chain for rules of others (`net.dockeruser`)."""

    family: AdmissionFamily
    past: tuple[str, ...] = ()
    """Docker's own bridges, about which we say nothing."""
    sound: bool = True
    """Whether they stand as and where they should."""


class Sysctl(Struct):
    """`path` below /proc/sys, with slashes."""

    path: str
    value: str


class Steering(Struct):
    """Of what arrives on a link, see `Link.steered`: to be set anew."""

    link: str
    kind: LinkKind


class Rule(Struct):
    """One nft rule. `why` becomes its comment, which is also how it is recognised when read back."""

    text: str
    why: str


class Chain(Struct):
    """`hook` empty: a chain that others jump to."""

    rules: tuple[Rule, ...] = ()
    type: str = ""
    hook: str = ""
    priority: int = 0
    policy: str = "accept"
    """Of a chain with a hook. Ours accept; another is a stranger's doing."""
    device: str = ""
    """Of family netdev: the link on which it is. nft's listings as JSON leave it out, so it is part of such a
    chain's name."""


class ElementSet(Struct):
    """An nft set, or a map if `data` names a type. Elements in nft's own notation, value "" in a set."""

    type: str
    data: str = ""
    interval: bool = False
    elements: Mapping[str, str] = {}
    declared: str = ""
    """How it is declared where its type alone does not say; never compared."""
    filled: str = ""
    """How a set that packets fill is declared; its elements are never compared, and of a listed one this is
    only some word."""


def rule(text: str, why: str) -> Rule:
    return Rule(text=text, why=why)


def element_set(type_: str, names: Iterable[str], *, interval: bool = False) -> ElementSet:
    return ElementSet(type=type_, interval=interval, elements=dict.fromkeys(names, ""))


class NftTable(Struct):
    chains: Mapping[str, Chain] = {}
    sets: Mapping[str, ElementSet] = {}
    dormant: bool = False
    """Switched off as a whole, which ours never are."""


Family = Literal["inet", "bridge", "netdev"]


class NetState(Struct):
    """All of one host's network that is ours."""

    links: Mapping[str, Link] = {}
    addresses: frozenset[Address] = frozenset()
    neighbours: frozenset[Neighbour] = frozenset()
    fdb: frozenset[Fdb] = frozenset()
    tunnel_peers: frozenset[TunnelPeer] = frozenset()
    routes: frozenset[Route] = frozenset()
    limits: frozenset[Limit] = frozenset()
    detours: frozenset[Detour] = frozenset()
    rules: frozenset[PolicyRule] = frozenset()
    admissions: frozenset[Admission] = frozenset()
    sysctls: Mapping[str, str] = {}
    tables: Mapping[Family, NftTable] = {}
    """Our table (named `flota`) of each family."""
