"""How fast an endpoint may send and be sent to, as objects of the host's kernel. Pure.

What goes to the container is held back as it leaves the host's end of its veth, by a token bucket
(tc-tbf(8)). What comes from it is led to a link of its own (ifb) and held back there: on the host's side,
where the container can't change it. Invariant: an endpoint without limits has nothing of this.
"""

from __future__ import annotations

from net.diff import Operation, diff
from net.host import EndpointRequest
from net.naming import limit_alias, limit_name, veth_name
from net.state import Detour, Limit, Link, NetState

NOTHING = NetState()
MTU = 65535
"""Of the link that only holds back: no packet is too big for it."""


def limits_of(request: EndpointRequest | None) -> NetState:
    """Its limits, and what they need besides the veth; of no endpoint: nothing."""
    if request is None or not (request.bandwidth_in or request.bandwidth_out):
        return NOTHING
    veth, aside = (name(request.instance, request.network) for name in (veth_name, limit_name))
    limits = [Limit(link=veth, rate=request.bandwidth_in)] if request.bandwidth_in else []
    if not request.bandwidth_out:
        return NetState(limits=frozenset(limits))
    alias = limit_alias(request.instance, request.network)
    return NetState(
        links={aside: Link(name=aside, kind="ifb", alias=alias, mtu=MTU)},
        limits=frozenset([*limits, Limit(link=aside, rate=request.bandwidth_out)]),
        detours=frozenset([Detour(link=veth, to=aside)]),
    )


def limit_changes(before: EndpointRequest | None, after: EndpointRequest | None) -> tuple[Operation, ...]:
    """What a change of an endpoint means for its limits; a rate changes without a gap."""
    return diff(limits_of(after), limits_of(before))
