"""Chains of services' published ports in the table of services: what comes here goes to a member. Pure.

The destination alone is changed: members see the client's own address (`net.returnpath` brings their answers
back). A client that an allow-list leaves out meets no port of ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from net import hostfirewall
from net.host import INGRESS
from net.hostfirewall import NO_FIREWALL, HostFirewall
from net.naming import vxlan_name
from net.portelements import PREFIX
from net.state import Chain, Rule, rule

_PORT = "meta l4proto . th dport"
_KINDS = "meta l4proto { tcp, udp, sctp }"  # nft 1.0 wants it said for sets of intervals
_FAMILIES = (("ip", "4", "ipv4"), ("ip6", "6", "ipv6"))

SETS: Mapping[str, str] = {
    "map port4": "type inet_proto . inet_service : verdict;",
    "map port6": "type inet_proto . inet_service : verdict;",
    "map portpick4": f"typeof {_PORT} . numgen inc mod 2 : ip daddr;",
    "map portpick6": f"typeof {_PORT} . numgen inc mod 2 : ip6 daddr;",
    "map target": "type inet_proto . inet_service : inet_service;",
    "set limited": "type inet_proto . inet_service;",
    "set clients4": "type inet_proto . inet_service . ipv4_addr; flags interval;",
    "set clients6": "type inet_proto . inet_service . ipv6_addr; flags interval;",
    "set portsticky": "type inet_proto . inet_service;",
}


def remembered(most: int) -> Mapping[str, str]:
    """Maps that packets fill: protocol, port and client → member. Of an IPv6 client a hash, for an update's
    key has 16 bytes (see `net.servicechains`)."""
    flags = f"size {most}; flags dynamic,timeout;"
    return {
        "map portknown4": f"type inet_proto . inet_service . ipv4_addr : ipv4_addr; {flags}",
        "map portknown6": f"typeof {_PORT} . numgen inc mod 2 : ip6 daddr; {flags}",
    }


def arrivals(firewall: HostFirewall = NO_FIREWALL) -> tuple[Rule, ...]:
    """For the hook before routing. Loopback is the host's own, and no tunnel carries link-local addresses.
    What an entry sends to a member is translated once more, to the address with which the member answers."""
    came = f'iifname "{vxlan_name(INGRESS)}"'
    entry = hostfirewall.OUTSIDE if firewall.chains else "ports"
    return (
        rule(f"{came} dnat ip to ip daddr map @inner4", "to a member of this host"),
        rule(f"{came} dnat ip6 to ip6 daddr map @inner6", "to a member of this host"),
        rule(f"ip daddr != 127.0.0.0/8 fib daddr type local jump {entry}", "to this host"),
        rule(f"ip6 daddr != ::1 ip6 saddr != fe80::/10 fib daddr type local jump {entry}", "to this host"),
    )


def departures() -> tuple[Rule, ...]:
    """For the hook of what this host itself sends."""
    return (
        rule("meta nfproto ipv4 fib daddr type local jump ports", "from this host to itself"),
        rule("ip6 daddr != ::1 fib daddr type local jump ports", "::1 would get no answer"),
    )


def ports(firewall: HostFirewall = NO_FIREWALL) -> Mapping[str, Chain]:
    """The chain `ports`, and those by which strangers come there where the host's firewall has a say."""
    listed = rule(f"{_PORT} @limited goto ports", "an allow list decides")
    return {"ports": _ports(), **hostfirewall.gate(firewall, "ports", (listed,))}


def _ports() -> Chain:
    strangers = (
        rule(
            f"{_PORT} @limited {_KINDS} {_PORT} . {family} saddr != @clients{digit} return",
            "published for others",
        )
        for family, digit, _ in _FAMILIES
    )
    chosen = (
        rule(f"meta nfproto {name} {_PORT} vmap @port{digit}", "by its members' number")
        for _, digit, name in _FAMILIES
    )
    return Chain(rules=(*strangers, *chosen))


def choice(method: str, family: str, count: str, seed: str) -> str:
    """The expression by which a method, in a chain's words, chooses one of so many."""
    chosen = {
        "rr": f"numgen inc mod {count}",
        "hash": f"jhash {family} saddr mod {count} seed {seed}",
    }
    return chosen.get(method, f"numgen random mod {count}")


def pick_chain(name: str, seed: str) -> Chain:
    """By its name: as a virtual address's chain is called, after `PREFIX`."""
    method, count, *_ = name.removeprefix(PREFIX).split("-")
    found: list[Rule] = []
    for family, digit, _ in _FAMILIES:
        number = choice(method, family, count, seed)
        ways = [(f"{number} map @portpick{digit}", "one of its members")]
        if method == "sticky":
            ways.insert(0, (f"{_client(family, seed)} map @portknown{digit}", "where it was before"))
        found += [rule(f"dnat {family} to {_PORT} . {way} : {_PORT} map @target", why) for way, why in ways]
    return Chain(rules=tuple(found))


def remembering(ranges: Iterable[str], seed: str, timeout: str) -> tuple[Rule, ...]:
    """For the hook behind translation. `ranges` are those of virtual addresses, which may be asked for a port
    of the same number."""
    known = sorted(ranges)
    found: list[Rule] = []
    for family, digit, name in _FAMILIES:
        own = [r for r in known if (":" in r) == (digit == "6")]
        other = f"ct original {family} daddr != {{ {', '.join(own)} }}" if own else f"meta nfproto {name}"
        for protocol in ("tcp", "udp", "sctp"):
            at = f"meta l4proto {protocol} meta l4proto . ct original proto-dst"
            client = f"meta l4proto . ct original proto-dst . {_client(family, seed)}"
            update = f"update @portknown{digit} {{ {client} timeout {timeout} : {family} daddr }}"
            text = f"ct status dnat {other} {at} @portsticky {update}"
            found.append(rule(text, "sticky: the client comes back here"))
    return tuple(found)


def _client(family: str, seed: str) -> str:
    return "ip saddr" if family == "ip" else f"jhash ip6 saddr mod 0xffffffff seed {seed}"
