"""What passes before connection tracking, unseen by it, as chains of the packet filter. Pure.

Invariant: only what came from our own links, or from a known peer, is kept from being tracked.
"""

from __future__ import annotations

from collections.abc import Mapping

from net import directrules, servicenat
from net.backend.base import Scene, is_ipv6
from net.naming import BRIDGE, OURS, SHIM, SITE_BRIDGE, VXLAN, WIREGUARD
from net.state import Chain, Rule, rule

RAW = -300
"""The priority of netfilter's hooks before connection tracking (nft(8))."""
DNS = "meta l4proto { tcp, udp } th"
"""Where a resolver's port is looked for."""


def chains(
    scene: Scene,
    vnis: list[int],
    tracking: tuple[Rule, ...],
    unsealed: tuple[Rule, ...],
    link: str,
    *,
    shims: bool,
    sited: bool,
) -> Mapping[str, Chain]:
    """What connection tracking never sees: our tunnels, what passes between containers, and questions for
    names, which a container that publishes port 53 would catch by its NAT otherwise. Answers to this
    host's own addresses are tracked, for they may belong to a connection that NAT led here; so is what passes
    between containers of which a policy selects one (`tracking`)."""
    tunnel: tuple[Rule, ...] = ()
    sent: tuple[Rule, ...] = ()
    if vnis:
        ours = f"udp dport {scene.vxlan_port} @th,96,24 {{ {', '.join(map(str, vnis))} }}"
        tunnel = (rule(f"{ours} jump tunnel", "our VXLAN networks"),)
        sent = (rule(f"{ours} notrack", "tunnels need no connection tracking"),)
    inner: tuple[Rule, ...] = (
        rule(f'iifname "{BRIDGE}*" jump from_container', "containers of this host"),
        rule(f'iifname "{VXLAN}*" jump from_tunnel', "containers of other hosts"),
        rule(f'iifname "{WIREGUARD}*" jump from_tunnel', "containers of other hosts"),
    )
    if shims:
        inner = (*inner, rule(f'iifname "{SHIM}*" jump from_shim', "containers on the site's networks"))
    answers = (*_answers(BRIDGE), *(_answers(SHIM) if shims else ()))
    verdict = "goto between" if tracking else "notrack accept"
    return {
        **_sources(tracking, verdict, shims=shims),
        **directrules.chains(link, verdict),
        "tunnel": _tunnel_chain(scene.address),
        "early": Chain(
            type="filter",
            hook="prerouting",
            priority=RAW,
            rules=(*unsealed, *tunnel, *inner, *directrules.arrivals(link), *_strangers(sited=sited)),
        ),
        "early_output": Chain(
            type="filter", hook="output", priority=RAW, rules=(*sent, *answers, *servicenat.ways())
        ),
    }


def _sources(tracking: tuple[Rule, ...], verdict: str, *, shims: bool) -> Mapping[str, Chain]:
    """What came from containers: of this host, of others, and on the site's networks."""
    between = Chain(rules=(*tracking, rule("notrack accept", "between containers")))
    return {
        **({"between": between} if tracking else {}),
        **({"from_shim": Chain(rules=_questions())} if shims else {}),
        "from_container": Chain(
            rules=(
                rule(f"ip daddr @inside4 {verdict}", "between containers"),
                rule(f"ip6 daddr @inside6 {verdict}", "between containers"),
                *_questions(),
                rule("ip daddr 127.0.0.0/8 drop", "loopback is the host's own"),
            )
        ),
        "from_tunnel": Chain(
            rules=(
                rule(f"ip daddr @inside4 ip saddr @inside4 {verdict}", "between containers"),
                rule(f"ip6 daddr @inside6 ip6 saddr @inside6 {verdict}", "between containers"),
                rule("ip daddr 127.0.0.0/8 drop", "loopback is the host's own"),
            )
        ),
    }


def _strangers(*, sited: bool) -> tuple[Rule, ...]:
    """Last in the chain ahead of connection tracking: by a link that is not ours a container's source comes
    only where the way back to it leads there (`net.directrules`). The host itself would believe it."""
    links = (f'iifname != "{OURS}*"', *((f'iifname "{SITE_BRIDGE}*"',) if sited else ()))
    away, why = "fib saddr . iif oif missing", "a container's address does not come from outside"
    return tuple(
        rule(f"{link} {source} {away} counter drop", why)
        for link in links
        for source in ("ip saddr @inside4", "ip6 saddr @inside6")
    )


def _tunnel_chain(own: str) -> Chain:
    """Only peers know what they tunnel to, this host's own underlay address. A container of a peer's can send
    to any other of this host's and leave with its host's address (`_tunnels_apart`); the kernel would take it
    at each."""
    family, digit = ("ip6", "6") if is_ipv6(own) else ("ip", "4")
    return Chain(
        rules=(
            rule(f"{family} daddr {own} {family} saddr @peers{digit} notrack accept", "known peer"),
            rule("counter drop", "not a peer of this fleet, or not sent to a tunnel's end"),
        )
    )


def _questions() -> tuple[Rule, ...]:
    why = "names, whoever publishes their port"
    return (
        rule(f"ip daddr @names4 {DNS} dport 53 notrack accept", why),
        rule(f"ip6 daddr @names6 {DNS} dport 53 notrack accept", why),
    )


def _answers(link: str) -> tuple[Rule, ...]:
    return (
        rule(f'oifname "{link}*" ip saddr @names4 {DNS} sport 53 notrack', "answers of names"),
        rule(f'oifname "{link}*" ip6 saddr @names6 {DNS} sport 53 notrack', "answers of names"),
    )
