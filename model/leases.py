"""What a host's journal says of addresses, and what that makes of a network's figures. Pure.

A leaked address is held by somebody whom the host does not know any more. It is given back when the agent
starts and finds that out, never on doubt.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from model.api import BlockUsage
from model.factrules import address_fault
from model.ids import NetworkId
from model.spec import Struct


class NetworkLeases(Struct):
    """Of one network on one host."""

    held: int = 0
    resting: tuple[str, ...] = ()
    """Given back so lately that nobody gets them yet."""
    leaked: tuple[str, ...] = ()


class HostLeases(Struct):
    networks: Mapping[NetworkId, NetworkLeases] = {}


def counted(usage: Sequence[BlockUsage], told: Mapping[str, NetworkLeases]) -> tuple[BlockUsage, ...]:
    """The figures with what hosts told, by their names; of others it is said that they did not."""
    return tuple(_counted(block, told.get(block.host)) for block in usage)


def _counted(block: BlockUsage, told: NetworkLeases | None) -> BlockUsage:
    if told is None:
        return replace(block, untold=True)
    resting, leaked = _inside(block.cidr, told.resting), _inside(block.cidr, told.leaked)
    return replace(block, resting=resting, leaked=leaked, free=max(0, block.free - resting - leaked))


def _inside(cidr: str, addresses: Iterable[str]) -> int:
    whole = ipaddress.ip_network(cidr)
    return sum(ipaddress.ip_address(text) in whole for text in addresses if not address_fault(text))
