"""Ways past most of the host's network stack for packets between containers of two hosts. Pure.

A packet that a container sends to a peer's block leaves by its network's link as it comes off the bridge, and
one of TCP's that comes by that link to a container here goes to its bridge at once: no connection tracking,
no route and no rule is asked on the way (the `fwd` statement of nft(8), in chains of family netdev). What the
filter would say of such packets is known beforehand: the bridge's guard has judged the source already, what
leads to a peer's block is of the same network, and what may come is listed by source and destination. All
else takes the usual way, as does everything where a policy judges one of the network's containers here, or
where anybody else on this host filters what passes: his word counts. So do packets to whom nobody has here,
whose senders are told so, and to and from members of services, whose connections are tracked (`served`): one
that was translated must not come back by another way. `net.serving` keeps them in here for as long as they
are tracked, before they are and until they no longer are. Invariant: a packet takes a shortcut only if the
rules of `net.firewall` would let it pass, untracked, to the same place.
"""

from __future__ import annotations

import ipaddress
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from model.netoptions import apart
from model.view import NetworkView
from net.backend.base import Member, full_prefix, is_ipv6
from net.diff import NftOp
from net.host import INGRESS, EndpointRequest
from net.naming import bridge_name
from net.nftscript import TABLE
from net.policy import HostPolicies
from net.spans import address_span, is_single, lies_in, punched, span_of
from net.state import Chain, ElementSet, NetState, NftTable, Route, Rule, rule

PRIORITY = 0
REMOVAL = NftOp(
    family="netdev", script=f"add table netdev {TABLE}\ndelete table netdev {TABLE}\n", whole=True
)
"""Of all that this module makes, be it there or not."""
_FAMILIES = (("ip", "4", "ip", "ip ttl"), ("ip6", "6", "ip6", "ip6 hoplimit"))
"""nft's word, our digit, and how nft names the Ethernet type and what counts the hops."""
_OURS = "meta pkttype host"
"""Sent to this host's MAC; a router takes nothing else, whoever else looks at the link."""
_SOURCES = {"ip": "ip saddr != 0.0.0.0", "ip6": "ip6 saddr != :: ip6 saddr != fe80::/10"}
"""What the guard lets a container send beside its own address is for its link alone (RFC 1122, 3.2.1.3;
RFC 4291, 2.5.6)."""
MOST_ALONE = 9216
"""Of network cards' usual limits the highest. What is larger of TCP's was put together by the kernel on
arrival and is cut again; what is not may be larger than its way on, and its sender must hear of that."""


def judged(policies: HostPolicies) -> frozenset[str]:
    """Ids of networks with a container here that a policy selects: the same while the classes are."""
    return frozenset(key.partition("/")[2] for key in policies.endpoints)


def table(
    made: Sequence[tuple[Member, NetState]],
    policies: HostPolicies,
    feet: Iterable[EndpointRequest] = (),
    served: Iterable[bytes] = (),
) -> NftTable | None:
    """Of these networks with what their backends make here; None where there is no way to shorten. A peer, a
    block or an endpoint of this host's (`feet`) more or less is an element more or less, so is a member of a
    service (`served`, packed)."""
    chains: dict[str, Chain] = {}
    sets: dict[str, ElementSet] = {}
    states = {member.view.id: state for member, state in made}
    found = _shortened((member for member, _ in made), policies)
    for member in found:
        bridge, links = bridge_name(member.view.id), _links(member)
        ways = _ways(links, _placed(states[member.view.id].routes, member.traits.here))
        chains[f"leave-{bridge}"] = _chain(bridge, _leaving(bridge, ways, member.traits.mtu))
        for link, gates in ways.items():
            way = _way(bridge, link)
            chains[f"enter-{_word(link)}"] = _chain(link, _entering(link))
            chains[f"in-{way}"] = Chain(rules=tuple(_arriving(bridge, way, member.traits.mtu)))
            sets |= _by_family("gates", way, gates, data="ipv{}_addr")
            sets |= _by_family("from", way, dict.fromkeys(gates, ""))
    sets |= _homes(found, tuple(feet))
    return NftTable(chains=chains, sets={**sets, **_served(served)}) if chains else None


def elements(members: Iterable[Member], policies: HostPolicies, feet: Iterable[EndpointRequest]) -> NftTable:
    """What these endpoints alone put into the table, whose sets these members are."""
    return NftTable(sets=_homes(_shortened(members, policies), tuple(feet)))


def _shortened(members: Iterable[Member], policies: HostPolicies) -> list[Member]:
    closed = judged(policies)
    return [m for m in members if _links(m) and _open(m) and m.view.id not in closed]


def _open(member: Member) -> bool:
    """Whether all of its containers may speak with each other, each as it is."""
    traits = member.traits
    kept = traits.onlink or traits.sealed or traits.upper is not None or member.view.id == INGRESS
    return not kept and not apart(member.view.spec.options) and on(member.view)


def _homes(members: Iterable[Member], feet: tuple[EndpointRequest, ...]) -> Mapping[str, ElementSet]:
    """Who is reached here, by the link that packets come by."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for member in members:
        known = [foot for foot in feet if foot.network == member.view.id]
        here = tuple(_placed_here(member, known)) if known else ()
        for link in _links(member):
            found[link] |= dict.fromkeys(here, f"jump in-{_way(bridge_name(member.view.id), link)}")
    return {
        name: homes
        for link, elements in found.items()
        for name, homes in _by_family("homes", _word(link), elements, data="verdict", interval=False).items()
    }


def _placed_here(member: Member, feet: Iterable[EndpointRequest]) -> Iterator[str]:
    """Addresses of endpoints to which this host's own routes lead: none that has gone to a peer already."""
    own = [span_of(block) for block in member.view.held]
    away = {block for peer in member.view.peers for block in peer.blocks}
    for text in (text for foot in feet for text in (foot.ipv4, foot.ipv6) if text):
        address = str(ipaddress.ip_address(text))
        lost = full_prefix(address) in away or address in member.traits.here
        if not lost and lies_in(address_span(address), own):
            yield address


def on(view: NetworkView) -> bool:
    return view.spec.options.get("shortcuts", "on") == "on"


def _links(member: Member) -> tuple[str, ...]:
    """By which its packets come from other hosts. One that is called like a number is told from a lost one by
    nobody."""
    links = (*member.traits.inner[1:], member.traits.direct)
    return tuple(link for link in links if link and not link.isdigit())


def _placed(routes: Iterable[Route], here: Iterable[str]) -> Iterator[tuple[str, Route]]:
    """What each route is the way to, in nft's notation. An address that has a route of its own lies in
    another's range, maybe, and so do this host's own (a gateway's is the same on each host): sets of ranges
    know no longest prefix, so they are cut out."""
    known = [route for route in routes if route.link and not route.table]
    own = _numbers(here)
    alone = _numbers((*here, *(r.destination.split("/")[0] for r in known if is_single(r.destination))))
    for route in known:
        holes = own if is_single(route.destination) else alone
        yield from ((span, route) for span in punched(route.destination, holes))


def _numbers(addresses: Iterable[str]) -> Mapping[int, list[int]]:
    """By family, in order."""
    found: dict[int, set[int]] = {4: set(), 6: set()}
    for address in addresses:
        version, (number, _) = span_of(address)
        found[version].add(number)
    return {version: sorted(numbers) for version, numbers in found.items()}


def _way(bridge: str, link: str) -> str:
    return f"{bridge}-{_word(link)}"


def _ways(links: Iterable[str], placed: Iterable[tuple[str, Route]]) -> Mapping[str, Mapping[str, str]]:
    """By link: what lies behind it, and next hops of the same family."""
    found: dict[str, dict[str, str]] = {link: {} for link in links}
    for span, route in placed:
        if route.link in found and route.via and is_ipv6(route.via) == is_ipv6(route.destination):
            found[route.link][span] = route.via
    return found


def tracked(members: Iterable[bytes]) -> Mapping[str, Mapping[str, str]]:
    """Sets of members of services and their elements."""
    found: dict[str, dict[str, str]] = {"served4": {}, "served6": {}}
    for packed in members:
        found[set_of(packed)][str(ipaddress.ip_address(packed))] = ""
    return found


def set_of(member: bytes) -> str:
    """The set in which a member is."""
    return "served4" if len(member) == 4 else "served6"


def _served(members: Iterable[bytes]) -> Mapping[str, ElementSet]:
    return {
        name: ElementSet(type=f"ipv{name[-1]}_addr", elements=elements)
        for name, elements in tracked(members).items()
    }


def _by_family(
    kind: str, name: str, elements: Mapping[str, str], *, data: str = "", interval: bool = True
) -> Mapping[str, ElementSet]:
    return {
        f"{kind}{digit}-{name}": ElementSet(
            type=f"ipv{digit}_addr",
            data=data.format(digit),
            interval=interval,
            elements={key: value for key, value in elements.items() if is_ipv6(key) == (digit == "6")},
        )
        for _, digit, _, _ in _FAMILIES
    }


def _untracked(family: str, digit: str) -> str:
    return f"{family} saddr != @served{digit} {family} daddr != @served{digit}"


def _leaving(bridge: str, links: Iterable[str], mtu: int) -> Iterator[Rule]:
    """What TCP sends as one is cut again; what a bridge has put together of fragments is cut by routing."""
    yield rule(f"meta length > {mtu} meta l4proto != tcp accept", "of fragments")
    for link in links:
        for family, digit, ether, hops in _FAMILIES:
            to = f"{family} daddr map @gates{digit}-{_way(bridge, link)}"
            passes = f"{_OURS} ether type {ether} {hops} > 1 {_SOURCES[family]} {_untracked(family, digit)}"
            yield rule(f'{passes} fwd {family} to {to} device "{link}"', "to a peer's block")


def _entering(link: str) -> Iterator[Rule]:
    for family, digit, ether, hops in _FAMILIES:
        yield rule(
            f"{_OURS} ether type {ether} {hops} > 1 {family} daddr vmap @homes{digit}-{_word(link)}",
            "to a container of this host's",
        )


def _arriving(bridge: str, way: str, mtu: int) -> Iterator[Rule]:
    """Of a packet whose tunnel had a checksum the kernel knows the sum. Routing drops it, `fwd` goes on with
    one that the change of headers made wrong: TCP sums again then, a datagram is lost. And peers' links may
    carry more than ours do."""
    yield rule("meta l4proto != tcp accept", "sums of datagrams")
    if mtu < MOST_ALONE:
        yield rule(f"meta length {mtu + 1}-{MOST_ALONE} accept", "maybe more than goes on")
    for family, digit, _, _ in _FAMILIES:
        passes = f"{family} saddr @from{digit}-{way} {_untracked(family, digit)}"
        yield rule(f'{passes} fwd {family} to {family} daddr device "{bridge}"', "from a peer's block")


def _chain(link: str, rules: Iterable[Rule]) -> Chain:
    return Chain(type="filter", hook="ingress", device=link, priority=PRIORITY, rules=tuple(rules))


def _word(link: str) -> str:
    """A link as part of our names."""
    return re.sub(r"[^0-9A-Za-z_-]", "_", link)
