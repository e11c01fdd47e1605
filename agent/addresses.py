"""An address for an endpoint out of the blocks that the controller leased to this host. Pure.

Addresses go round: the one given longest ago comes last, so that caches of the last holder have died when an
address is used again; within `QUARANTINE` seconds of its release it is not given at all.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from model.errors import Exhausted
from model.view import NetworkView
from net.subnets import Address, edges, gateway

QUARANTINE = 30.0


class Taken:
    """What is held or lately was on one network: address → 0 while held, else when it was released."""

    def __init__(self, held: Mapping[str, float] | None = None) -> None:
        self._times: dict[Address, float] = {ipaddress.ip_address(a): t for a, t in (held or {}).items()}
        self._last: dict[str, int] = {}

    def hold(self, address: str) -> None:
        self._times[ipaddress.ip_address(address)] = 0.0

    def release(self, address: str, now: float) -> None:
        self._times[ipaddress.ip_address(address)] = now

    def choose(self, network: NetworkView, version: int, now: float) -> str:
        """The next free address of that family in the network's blocks; empty when it has no such block.
        Raises Exhausted, naming the network."""
        blocks = [b for b in map(ipaddress.ip_network, network.blocks) if b.version == version]
        if not blocks:
            return ""
        never = _reserved(network)
        for block in blocks:
            start, size = int(block.network_address), block.num_addresses
            first = self._last.get(str(block), start - 1) + 1 - start
            for offset in range(min(size, 1 << 17)):
                address = block[(first + offset) % size]
                if address not in never and self._free(address, now):
                    self._last[str(block)] = int(address)
                    return str(address)
        raise Exhausted(
            f"no free address on network {network.spec.name} ({', '.join(network.blocks)})",
            hint="Remove containers, or wait until released addresses may be used again",
        )

    def _free(self, address: Address, now: float) -> bool:
        released = self._times.get(address)
        return released is None or (released > 0 and now - released >= QUARANTINE)


def _reserved(network: NetworkView) -> set[Address]:
    never: set[Address] = set()
    for subnet in network.spec.subnets:
        never |= {gateway(subnet), *edges(ipaddress.ip_network(subnet.cidr))}
        never |= {ipaddress.ip_address(text) for text in subnet.exclude if "/" not in text}
    return never
