"""Addresses: subnets out of pools, blocks out of subnets, endpoint addresses out of blocks. Pure.

The controller carves blocks, an agent hands out addresses of its own blocks without asking. Invariants:
ranges given never overlap those taken; an address has one holder; one that was given back rests until its
quarantine has passed, so that nobody's stale cache finds a stranger behind it. Which addresses are nobody's
is decided in `net.subnets`: network, broadcast, gateway, and in overlays the host's own.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

import msgspec

from model.errors import Exhausted, InUse, InvalidInput
from model.spec import NetworkSpec, Struct, Subnet
from net.backend import BACKENDS
from net.subnets import Address, Range, edges, gateway, host_address, span, subnet_of

QUARANTINE = 30.0
"""Seconds an address rests: longer than the kernel's neighbour entries stay reachable
(base_reachable_time_ms, 15 to 45 s, then probed) in most cases, and a new holder has a new MAC anyway.
"""
LEAST_BLOCK_BITS, MOST_BLOCK_BITS = 2, 8
RESERVED = tuple(
    ipaddress.ip_network(cidr)
    for cidr in (
        "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4",
        "::/8", "fe80::/10", "ff00::/8",
    )
)  # fmt: skip
"""No network may touch these (RFC 6890); ::/8 holds loopback, unspecified and IPv4-mapped addresses."""


def parse_range(cidr: str) -> Range:
    """A subnet as a user wrote it. Raises InvalidInput: host bits set, leading zeros, zone ids, reserved
    ranges, and /32 or /128, in which there is no room for a gateway and a container."""
    try:
        if "/" not in cidr or "%" in cidr:
            raise ValueError("write it as address/prefix")
        whole = ipaddress.ip_network(cidr)
    except ValueError as error:
        raise InvalidInput(f"invalid subnet {cidr[:60]!r}: {error}") from error
    if any(overlap(whole, other) for other in RESERVED):
        raise InvalidInput(f"subnet {cidr} is reserved", hint="Use a private range, such as 10.20.0.0/16")
    if whole.num_addresses < 2:
        raise InvalidInput(f"subnet {cidr} has no room for a gateway and a container")
    return whole


def overlap(a: Range, b: Range) -> bool:
    if isinstance(a, ipaddress.IPv4Network):
        return isinstance(b, ipaddress.IPv4Network) and a.overlaps(b)
    return isinstance(b, ipaddress.IPv6Network) and a.overlaps(b)


def free_subnet(pools: Sequence[str], prefix: int, avoid: Iterable[Range]) -> Range:
    """The lowest range of that prefix length in the pools that meets nothing of `avoid` (other networks,
    hosts' routes and addresses). Raises Exhausted."""
    taken = tuple(avoid)
    for pool in map(ipaddress.ip_network, pools):
        found = free_range(pool, max(prefix, pool.prefixlen), taken)
        if found is not None:
            return found
    raise Exhausted(
        f"no free /{prefix} in {', '.join(pools)}", hint="Name a subnet yourself, or remove unused networks"
    )


def free_range(within: Range, prefix: int, taken: Iterable[Range]) -> Range | None:
    """The lowest aligned range of that prefix length; taken ranges are jumped over, not stepped through."""
    if prefix < within.prefixlen or prefix > within.max_prefixlen:
        return None
    size = 1 << (within.max_prefixlen - prefix)
    spans = sorted(
        (int(t.network_address), int(t.broadcast_address)) for t in taken if t.version == within.version
    )
    at, end = int(within.network_address), int(within.broadcast_address)
    for first, last in spans:
        if at + size - 1 < first:
            break
        if last >= at:
            at = (last // size + 1) * size
    if at + size - 1 > end:
        return None
    kind = ipaddress.IPv4Network if within.version == 4 else ipaddress.IPv6Network
    return kind((at, prefix))


def block_prefix(whole: Range, hosts: int) -> int:
    """Prefix length of a host's share: twice as many shares as hosts, eight at least, 256 addresses each at
    most; where that leaves less than 4 addresses, one share per host, down to single addresses."""
    bits = whole.max_prefixlen - whole.prefixlen
    spare = bits - max(3, (2 * max(1, hosts) - 1).bit_length())
    tight = bits - (max(1, hosts) - 1).bit_length()
    size = min(MOST_BLOCK_BITS, spare) if spare >= LEAST_BLOCK_BITS else min(LEAST_BLOCK_BITS, tight)
    return whole.max_prefixlen - max(0, size)


def carve(subnet: Subnet, hosts: int, taken: Iterable[Range]) -> Range:
    """A block for one more host, or one more block for a host whose others are full; smaller ones, down to
    single addresses, when the subnet has no whole share left. Raises Exhausted.

    Every block has an address for an endpoint: tiny ones keep off the gateway and the edges."""
    whole = ipaddress.ip_network(subnet.ip_range or subnet.cidr)
    known = tuple(taken)
    kind = ipaddress.IPv4Network if whole.version == 4 else ipaddress.IPv6Network
    nobody = tuple(kind(int(a)) for a in (*edges(ipaddress.ip_network(subnet.cidr)), gateway(subnet)))
    for prefix in range(block_prefix(whole, hosts), whole.max_prefixlen + 1):
        if whole.max_prefixlen - prefix < LEAST_BLOCK_BITS:
            known = (*known, *nobody)
        found = free_range(whole, prefix, known)
        if found is not None:
            return found
    raise Exhausted(f"no addresses left in {whole}", hint="Make a network with a larger subnet")


class Leases(Struct):
    """One network's addresses on one host: who holds which, and which rest until when."""

    held: Mapping[str, str] = {}
    resting: Mapping[str, float] = {}


def allocate(
    spec: NetworkSpec,
    blocks: Sequence[str],
    leases: Leases,
    holder: str,
    *,
    version: int,
    now: float,
    wanted: str = "",
    rest: float = QUARANTINE,
) -> tuple[Leases, str]:
    """An address of that IP version for `holder`, who may ask for a certain one; asking again gives the same.

    Blocks are this host's. Where none is free, one that has rested for `rest` seconds is given. Raises
    InvalidInput (wanted is reserved or in no subnet), InUse (another holds it), Exhausted.
    """
    if wanted:
        return _fixed(spec, blocks, leases, holder, wanted)
    for address, owner in leases.held.items():
        if owner == holder and ipaddress.ip_address(address).version == version:
            return leases, address
    resting = {address: until for address, until in leases.resting.items() if until > now}
    rested: list[tuple[float, str]] = []
    for candidate in _usable(spec, blocks, version):
        text = str(candidate)
        if text not in leases.held and text not in resting:
            return _hold(leases, text, holder, now), text
        if text in resting and usable_at(resting[text], rest) <= now:
            rested.append((resting[text], text))
    if rested:
        _, text = min(rested)
        return _hold(leases, text, holder, now), text
    resting_ = f", {len(resting)} rest after use" if resting else ""
    raise Exhausted(
        f"network {spec.name} has no free IPv{version} address on this host "
        f"({len(leases.held)} are held{resting_})",
        hint="Services try again; a network with a larger subnet has more",
    )


def usable_at(until: float, rest: float) -> float:
    """When an address that rests until then has rested for `rest` seconds."""
    return until - QUARANTINE + rest


def release(
    leases: Leases, holder: str, *, now: float, quarantine: float = QUARANTINE, but: Container[str] = ()
) -> Leases:
    """All addresses of `holder`, but for some, go to rest. Idempotent."""
    gone = {address for address, owner in leases.held.items() if owner == holder and address not in but}
    return Leases(
        held={a: owner for a, owner in leases.held.items() if a not in gone},
        resting={
            **{a: until for a, until in leases.resting.items() if until > now},
            **dict.fromkeys(gone, now + quarantine),
        },
    )


def check_address(spec: NetworkSpec, wanted: str) -> None:
    """Raises InvalidInput for an address that no endpoint of the network can have on any host."""
    if ipaddress.ip_address(wanted) in reserved(spec, ()):
        raise InvalidInput(f"address {wanted} of network {spec.name} is reserved: gateway or network address")
    subnet = subnet_of(spec, wanted)
    if any(first <= int(ipaddress.ip_address(wanted)) <= last for first, last in map(span, subnet.exclude)):
        raise InvalidInput(f"address {wanted} of network {spec.name} is set aside for others (--aux-address)")


def reserved(spec: NetworkSpec, blocks: Sequence[str]) -> frozenset[Address]:
    """Addresses of the network that no endpoint of this host gets."""
    found: set[Address] = set()
    for subnet in spec.subnets:
        whole = ipaddress.ip_network(subnet.cidr)
        found |= {*edges(whole), gateway(subnet)}
        own = host_address(subnet, blocks) if _speaks(spec.driver) else ""
        if own:
            found.add(ipaddress.ip_address(own))
    return frozenset(found)


def _speaks(driver: str) -> bool:
    """Whether hosts have an address of their own in such a network."""
    backend = BACKENDS.get(driver)
    return backend is not None and backend.features.speaks


def room(spec: NetworkSpec, block: str, blocks: Sequence[str]) -> int:
    """How many endpoints can have an address of `block`, one of a host's `blocks`; of an IPv6 block the first
    65536 addresses count."""
    whole = ipaddress.ip_network(block)
    first = int(whole.network_address)
    last = first + min(whole.num_addresses, 1 << 16) - 1
    subnet = subnet_of(spec, str(whole.network_address))
    if subnet.ip_range:
        low, high = span(subnet.ip_range)
        first, last = max(first, low), min(last, high)
    barred = [*map(span, subnet.exclude)]
    barred += [(int(a), int(a)) for a in reserved(spec, blocks) if a.version == whole.version]
    free = 0
    for low, high in sorted(barred):
        if high < first or low > last:
            continue
        free += max(0, low - first)
        first = max(first, high + 1)
    return free + max(0, last - first + 1)


def _fixed(
    spec: NetworkSpec, blocks: Sequence[str], leases: Leases, holder: str, wanted: str
) -> tuple[Leases, str]:
    try:
        address = ipaddress.ip_address(wanted)
    except ValueError as error:
        raise InvalidInput(f"invalid address {wanted[:60]!r}") from error
    subnet_of(spec, wanted)
    if address in reserved(spec, blocks):
        raise InvalidInput(f"address {wanted} of network {spec.name} is reserved: gateway, host or network")
    owner = leases.held.get(str(address))
    if owner is not None and owner != holder:
        raise InUse(f"address {wanted} of network {spec.name} is in use", hint="Choose another address")
    return _hold(leases, str(address), holder, 0.0), str(address)


def _hold(leases: Leases, address: str, holder: str, now: float) -> Leases:
    resting = {a: until for a, until in leases.resting.items() if a != address and until > now}
    return msgspec.structs.replace(leases, held={**leases.held, address: holder}, resting=resting)


def _usable(spec: NetworkSpec, blocks: Sequence[str], version: int) -> Iterator[Address]:
    """Addresses for endpoints, in order; of an IPv6 block the first 65536 at most."""
    nobody = reserved(spec, blocks)
    for subnet in spec.subnets:
        whole = ipaddress.ip_network(subnet.cidr)
        if whole.version != version:
            continue
        limits = ipaddress.ip_network(subnet.ip_range) if subnet.ip_range else whole
        excluded = [span(text) for text in subnet.exclude]
        for block in map(ipaddress.ip_network, blocks):
            if not overlap(block, limits):
                continue
            inner = block if block.prefixlen >= limits.prefixlen else limits
            for index in range(min(inner.num_addresses, 1 << 16)):
                address = inner[index]
                if address not in nobody and not any(a <= int(address) <= b for a, b in excluded):
                    yield address
