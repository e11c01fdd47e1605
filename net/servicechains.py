"""The nft table of service addresses: its sets and chains, and the script that completes it. Pure.

It stands beside the table `flota` because it is read and changed differently: by elements of tens of
thousands, never as a whole, and hosts without services don't have it at all. Chains that pick a member are
made when the first service with that method and number of members comes, and stay. A script only adds and
refills, so a table half there is completed without a gap in what still stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from model.spec import Struct
from net import portchains
from net.hostfirewall import NO_FIREWALL, HostFirewall
from net.loadbalance import LANES
from net.naming import BRIDGE, VXLAN
from net.nftscript import comment
from net.portelements import PREFIX, REFUSED
from net.state import Chain, Rule, rule

TABLE = "flota_services"
CLAIM, DSTNAT, REMEMBER, SOURCE = -301, -100, 90, 95
"""Priorities (nft(8)): ahead of the table `flota`'s notrack, of destination NAT, and of its source NAT."""
REMEMBERED = "3h"
"""For how long a sticky service knows a client that doesn't come back."""
MOST_REMEMBERED = 1 << 18
SEED = "0xf107a"
"""Of source-hash: the same on each host and after each restart."""
OTHER_SEED = "0xf107b"


class Lane(Struct):
    """A network's subnet as it is reached by the underlay's link."""

    link: str
    subnet: str
    own: str
    """This host's own address in it; empty where it has none."""


class Frame(Struct):
    """What the table's fixed chains depend on."""

    ranges: tuple[str, ...] = ()
    """Set aside for virtual addresses."""
    onlink: tuple[str, ...] = ()
    """Bridges whose containers hold their subnet on-link."""
    direct: tuple[Lane, ...] = ()
    """Of networks whose packets pass the underlay's link as they are."""
    ports: bool = False
    """Whether services may publish ports on this host."""
    firewall: HostFirewall = NO_FIREWALL


_SETS: Mapping[str, str] = {
    "map vip4": "type ipv4_addr : verdict;",
    "map vip6": "type ipv6_addr : verdict;",
    "map pick4": "typeof ip daddr . numgen inc mod 2 : ip daddr;",
    "map pick6": "typeof ip6 daddr . numgen inc mod 2 : ip6 daddr;",
    "set sticky4": "type ipv4_addr;",
    "set sticky6": "type ipv6_addr;",
    "map known4": f"type ipv4_addr . ipv4_addr : ipv4_addr; size {MOST_REMEMBERED}; flags dynamic,timeout;",
    "map known6": "typeof numgen inc mod 2 . numgen inc mod 2 . numgen inc mod 2 : ip6 daddr; "
    f"size {MOST_REMEMBERED}; flags dynamic,timeout;",
    "set served4": "type ipv4_addr;",
    "set served6": "type ipv6_addr;",
    "set self4": "type ipv4_addr . ipv4_addr;",
    "set self6": "type ipv6_addr . ipv6_addr;",
    "map inner4": "type ipv4_addr : ipv4_addr;",
    "map inner6": "type ipv6_addr : ipv6_addr;",
    **portchains.SETS,
    **portchains.remembered(MOST_REMEMBERED),
}
"""`known` is filled by packets: virtual address and client → member."""


def base_chains(frame: Frame) -> Mapping[str, Chain]:
    """All chains but those that pick."""
    by_family = {
        "ip": [r for r in frame.ranges if ":" not in r],
        "ip6": [r for r in frame.ranges if ":" in r],
    }
    inside, local = list[Rule](), list[Rule]()
    for family, own in by_family.items():
        if own:
            digit = "4" if family == "ip" else "6"
            match = f"{family} daddr {{ {', '.join(sorted(own))} }} goto balance{digit}"
            inside.append(rule(f'iifname "{BRIDGE}*" {match}', "a container asks a service"))
            local.append(rule(match, "this host asks a service"))
    remembered = _remembering()
    if frame.ports:
        inside += portchains.arrivals(frame.firewall)
        local += portchains.departures()
        remembered += portchains.remembering(frame.ranges, SEED, REMEMBERED)
    return {
        **(portchains.ports(frame.firewall) if frame.ports else {}),
        REFUSED: Chain(
            rules=(
                rule("meta l4proto tcp reject with tcp reset", "no member is ready"),
                rule("reject with icmpx port-unreachable", "no member is ready"),
            )
        ),
        "balance4": Chain(
            rules=(rule("ip daddr vmap @vip4", "by its members' number"), rule("goto refused", "none"))
        ),
        "balance6": Chain(
            rules=(rule("ip6 daddr vmap @vip6", "by its members' number"), rule("goto refused", "none"))
        ),
        "served": Chain(rules=_claiming()),
        "claim": Chain(
            type="filter",
            hook="prerouting",
            priority=CLAIM,
            rules=(
                rule(f'iifname "{BRIDGE}*" jump served', "containers of this host"),
                rule(f'iifname "{VXLAN}*" jump served', "containers of other hosts"),
                *_by_link(frame.direct),
            ),
        ),
        "prerouting": Chain(type="nat", hook="prerouting", priority=DSTNAT, rules=tuple(inside)),
        "output": Chain(type="nat", hook="output", priority=DSTNAT, rules=tuple(local)),
        "remember": Chain(type="nat", hook="postrouting", priority=REMEMBER, rules=remembered),
        "source": Chain(type="nat", hook="postrouting", priority=SOURCE, rules=_sources(by_family)),
        "come": Chain(rules=(*_speaking(frame.direct), *_coming(frame.onlink))),
    }


def pick_chain(name: str) -> Chain:
    """By its name (`net.loadbalance.chain_name`). One counter per family, for each has its own rule."""
    if name.startswith(PREFIX):
        return portchains.pick_chain(name, SEED)
    method, count, *_ = name.split("-")
    rules: list[Rule] = []
    for family, digit in (("ip", "4"), ("ip6", "6")):
        number = portchains.choice(method, family, count, SEED)
        if method == "sticky":
            known = f"dnat {family} to {_acquaintance(family, f'{family} daddr')} map @known{digit}"
            rules.append(rule(known, "where it was before"))
        picked = f"dnat {family} to {family} daddr . {number} map @pick{digit}"
        rules.append(rule(picked, "one of its members"))
    return Chain(rules=tuple(rules))


def comments(chains: Mapping[str, Chain]) -> dict[str, tuple[str, ...]]:
    """How chains look when they are read back: their rules' comments."""
    return {name: tuple(comment(r) for r in chain.rules) for name, chain in chains.items()}


def completing_script(want: Mapping[str, Chain], have: Mapping[str, tuple[str, ...]]) -> str:
    """Makes the table, its sets and every chain that is missing or differs ("" when none does). `have` holds
    rules' comments by chain; chains that only pick and are no longer wanted do no harm and stay."""
    wrong = [name for name, seen in comments(want).items() if have.get(name) != seen]
    if not wrong:
        return ""
    lines = [f"add table inet {TABLE}"]
    lines += [f"add {name.replace(' ', f' inet {TABLE} ')} {{ {words} }}" for name, words in _SETS.items()]
    for name in wrong:
        chain = want[name]
        hook = (
            f" {{ type {chain.type} hook {chain.hook} priority {chain.priority}; policy {chain.policy}; }}"
            if chain.hook
            else ""
        )
        lines += [f"add chain inet {TABLE} {name}{hook}", f"flush chain inet {TABLE} {name}"]
    for name in wrong:
        lines += [f'add rule inet {TABLE} {name} {r.text} comment "{comment(r)}"' for r in want[name].rules]
    return "".join(f"{line}\n" for line in lines)


def removing_script() -> str:
    return f"delete table inet {TABLE}\n"


def _claiming() -> tuple[Rule, ...]:
    """A packet that already carries a conntrack template is passed over by notrack (Linux nft_ct.c,
    nft_notrack_eval), and setting the zone, here to the usual one, gives it a template. Both directions, or a
    member's answer to a direct question would belong to no known connection, which other firewalls drop."""
    why = "a member of a service: its connections are known"
    return tuple(
        rule(f"{family} {side} @served{digit} ct zone set 0", why)
        for family, digit in (("ip", "4"), ("ip6", "6"))
        for side in ("saddr", "daddr")
    )


def _acquaintance(family: str, vip: str) -> str:
    """Key of `known`. The key of an update holds 16 bytes (nft 1.0.6 ends the process that asks for more), so
    for IPv6 it is made of hashes: 64 bits of the virtual address, for two must not meet, 32 of the client."""
    if family == "ip":
        return f"{vip} . ip saddr"
    hashed = ((vip, SEED), (vip, OTHER_SEED), ("ip6 saddr", SEED))
    return " . ".join(f"jhash {what} mod 0xffffffff seed {seed}" for what, seed in hashed)


def _remembering() -> tuple[Rule, ...]:
    """Where the connection goes is known once it was translated; the source is still the client's."""
    return tuple(
        rule(
            f"ct status dnat ct original {family} daddr @sticky{digit} update @known{digit} "
            f"{{ {_acquaintance(family, f'ct original {family} daddr')} "
            f"timeout {REMEMBERED} : {family} daddr }}",
            "sticky: the client comes back here",
        )
        for family, digit in (("ip", "4"), ("ip6", "6"))
    )


def _sources(by_family: Mapping[str, Sequence[str]]) -> tuple[Rule, ...]:
    """Members see the client's own address, but where answers would not come by us or not by this network."""
    return tuple(
        rule(
            f"ct status dnat ct original {family} daddr {{ {', '.join(sorted(own))} }} goto come",
            "came by a service's address",
        )
        for family, own in by_family.items()
        if own
    )


def _by_link(lanes: Iterable[Lane]) -> tuple[Rule, ...]:
    return tuple(
        rule(
            f'iifname "{lane.link}" {_family(lane)} saddr {lane.subnet} jump served',
            "containers of other hosts, by the hosts' link",
        )
        for lane in lanes
    )


def _speaking(lanes: Iterable[Lane]) -> tuple[Rule, ...]:
    """A tunnel has this host's address in its network; the underlay's link has others."""
    return tuple(
        rule(
            f'oifname "{lane.link}" {_family(lane)} daddr {lane.subnet} fib saddr type local '
            f"snat {_family(lane)} to {lane.own}",
            "this host: by its address in that network",
        )
        for lane in lanes
        if lane.own
    )


def _family(lane: Lane) -> str:
    return "ip6" if ":" in lane.subnet else "ip"


def _coming(onlink: Sequence[str]) -> tuple[Rule, ...]:
    rules = [
        rule("fib saddr type local masquerade", "this host: by its address in that network"),
        rule("ip saddr . ip daddr @self4 masquerade", "hairpin: a member asks its own service"),
        rule("ip6 saddr . ip6 daddr @self6 masquerade", "hairpin: a member asks its own service"),
    ]
    if onlink:
        names = ", ".join(f'"{name}"' for name in sorted(onlink))
        rules.append(rule(f"oifname {{ {names} }} masquerade", "on-link: answers would not come by us"))
    return tuple(rules)


def all_chains(frame: Frame, picks: Iterable[str]) -> dict[str, Chain]:
    return {**{name: pick_chain(name) for name in sorted(picks)}, **base_chains(frame)}


assert LANES <= 256, "a lane is taken from the last byte of an address"
