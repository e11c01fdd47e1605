"""The kernel's hash, by values that a kernel gave."""

from __future__ import annotations

import ipaddress

from net.jhash import nft_jhash


def test_jhash_of_an_address_is_the_kernels() -> None:
    """Linux 6.18 found this element for the target of a neighbour advertisement."""
    assert nft_jhash(ipaddress.IPv6Address("fd00:1::102").packed, 0xF107D) == 3468329525


def test_jhash_differs_by_seed_and_byte() -> None:
    one = ipaddress.IPv6Address("fd00:1::102").packed
    assert len({nft_jhash(one, 1), nft_jhash(one, 2), nft_jhash(one[:-1] + b"\x03", 1)}) == 3
