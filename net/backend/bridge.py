"""Bridge networks: one host, the subnet on-link, NAT to the outside, as Docker's bridge driver. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from model.errors import Problem
from model.ids import HostId
from model.view import NetworkView
from net.backend.base import (
    MOST_MTU,
    Features,
    Scene,
    Traits,
    bridge_sysctls,
    gateways,
    is_ipv6,
    mtu_problems,
    option_int,
    subnet_problems,
)
from net.naming import bridge_name, gateway_mac, network_alias
from net.state import Address, Link, NetState

LEAST_MTU = 68
"""RFC 791: every IPv4 module can forward 68 bytes."""


class BridgeBackend:
    features = Features(spans_hosts=False, speaks=False)

    def validate(self, view: NetworkView, scene: Scene) -> Iterable[Problem]:
        yield from subnet_problems(view)
        yield from mtu_problems(view, least=LEAST_MTU)

    def traits(self, view: NetworkView, scene: Scene) -> Traits:
        return Traits(
            mtu=option_int(view, "mtu", LEAST_MTU, MOST_MTU) or scene.mtu,
            onlink=True,
            inner=(bridge_name(view.id),),
            own_ranges=tuple(subnet.cidr for subnet in view.spec.subnets),
            here=gateways(view),
        )

    def overhead(self, options: Mapping[str, str], address: str) -> int:
        return 0

    def unreached(self, view: NetworkView, scene: Scene) -> Mapping[HostId, str]:
        return {}

    def fragment(self, view: NetworkView, scene: Scene) -> NetState:
        name = bridge_name(view.id)
        mtu = self.traits(view, scene).mtu
        pairs = zip(gateways(view), view.spec.subnets, strict=True)
        return NetState(
            links={
                name: Link(
                    name=name,
                    kind="bridge",
                    alias=network_alias(view.id),
                    mtu=mtu,
                    mac=gateway_mac(f"{scene.host}/{view.id}"),
                )
            },
            addresses=frozenset(
                Address(link=name, cidr=f"{gate}/{ipaddress.ip_network(subnet.cidr).prefixlen}")
                for gate, subnet in pairs
            ),
            sysctls=bridge_sysctls(view.id, ipv6=any(is_ipv6(s.cidr) for s in view.spec.subnets)),
        )
