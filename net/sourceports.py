"""Published ports as source ports: nobody leaves from another's. Pure.

To go out with the host's address, a connection keeps the port that it began with, if that is free. From the
number of a published port, whoever it was sent to would answer it by all that it sends to that port: a
container's late datagram, its client just forgotten, would hold that client fast, and a stranger's datagram
would take it. Invariant: what a container begins leaves from a published port only if that port is its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from net.host import PublishRequest
from net.state import ElementSet, Rule, element_set, rule

_PORT = "inet_proto . inet_service"
_FROM = "meta l4proto . th sport"
_ELSEWHERE = "masquerade to :32768-60999 fully-random"
"""Where Linux takes the ports of connections from (ip-sysctl, ip_local_port_range). Without being told to
choose, it would keep one that is among them."""


def sets(requests: Iterable[PublishRequest]) -> Mapping[str, ElementSet]:
    """taken: what is published. kept: containers' ports that have the same number on the host; they stay
    theirs in what they begin, too (WireGuard's, say, or SIP's)."""
    ports = [(request, port) for request in requests for port in request.ports]
    same = [(request, port) for request, port in ports if port.target == port.published]
    kept4 = (f"{r.ipv4} . {p.protocol} . {p.target}" for r, p in same if r.ipv4)
    kept6 = (f"{r.ipv6} . {p.protocol} . {p.target}" for r, p in same if r.ipv6)
    return {
        "taken": element_set(_PORT, {f"{p.protocol} . {p.published}" for _, p in ports}),
        "kept4": element_set(f"ipv4_addr . {_PORT}", kept4),
        "kept6": element_set(f"ipv6_addr . {_PORT}", kept6),
    }


def rules() -> tuple[Rule, ...]:
    """For the chain of source NAT, ahead of what lets all containers out."""
    taken = f"meta l4proto {{ tcp, udp, sctp }} {_FROM} @taken"  # nft 1.0 wants it said for a range of ports
    return (
        rule(f"ip saddr . {_FROM} @kept4 ip saddr @out4 masquerade", "from its own published port"),
        rule(f"ip6 saddr . {_FROM} @kept6 ip6 saddr @out6 masquerade", "from its own published port"),
        rule(f"{taken} ip saddr @out4 {_ELSEWHERE}", "a published port is its container's"),
        rule(f"{taken} ip6 saddr @out6 {_ELSEWHERE}", "a published port is its container's"),
    )
