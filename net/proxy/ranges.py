"""Ranges of addresses that are asked often: sorted once, then a look-up each. Pure."""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from collections.abc import Iterable


class Ranges:
    """Of prefixes, single addresses and `FIRST-LAST`, both included. Raises ValueError."""

    def __init__(self, texts: Iterable[str]) -> None:
        found: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
        for text in texts:
            version, span = _span(text)
            found[version].append(span)
        self._spans = {version: _merged(spans) for version, spans in found.items()}

    def __contains__(self, address: object) -> bool:
        number = ipaddress.ip_address(str(address))
        firsts, lasts = self._spans[number.version]
        at = bisect_right(firsts, int(number)) - 1
        return at >= 0 and int(number) <= lasts[at]


def _span(text: str) -> tuple[int, tuple[int, int]]:
    first, dash, last = text.partition("-")
    if not dash:
        network = ipaddress.ip_network(text)
        return network.version, (int(network[0]), int(network[-1]))
    low, high = ipaddress.ip_address(first), ipaddress.ip_address(last)
    if low.version != high.version or int(low) > int(high):
        raise ValueError(f"{text} is no range")
    return low.version, (int(low), int(high))


def _merged(spans: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Beginnings and ends, apart from each other."""
    firsts, lasts = list[int](), list[int]()
    for low, high in sorted(spans):
        if lasts and low <= lasts[-1] + 1:
            lasts[-1] = max(lasts[-1], high)
        else:
            firsts.append(low)
            lasts.append(high)
    return firsts, lasts
