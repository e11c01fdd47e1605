"""The blocks of one network as one decision sees them, each found without a walk over all of them. Pure.

Invariant: what has no holder is a share, what has one a single address, by what was put last.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from model.records import Block
from net.spans import Span
from net.subnets import Range


class Held:
    def __init__(self, blocks: Iterable[Block]) -> None:
        self._shares: dict[str, Block] = {}
        self._singles: dict[str, Block] = {}
        self._by_holder: dict[str, set[str]] = {}
        self._ranges: dict[str, Range] = {}
        self._spans: list[tuple[int, int, int, str]] = []
        """Of shares, which don't overlap: family, first and last number."""
        self._numbers: list[tuple[int, int]] = []
        """Of single addresses."""
        for block in blocks:
            self.put(block)

    def __iter__(self) -> Iterator[Block]:
        return chain(self._shares.values(), self._singles.values())

    @property
    def shares(self) -> Mapping[str, Block]:
        """By range."""
        return self._shares

    @property
    def ranges(self) -> Iterable[Range]:
        return self._ranges.values()

    def put(self, block: Block) -> None:
        self._drop(block.cidr)
        if block.cidr not in self._ranges:
            self._ranges[block.cidr] = ipaddress.ip_network(block.cidr)
        version, first, last = self._span(block.cidr)
        if block.holder:
            self._singles[block.cidr] = block
            self._by_holder.setdefault(block.holder, set()).add(block.cidr)
            insort(self._numbers, (version, first))
        else:
            self._shares[block.cidr] = block
            insort(self._spans, (version, first, last, block.cidr))

    def of_holder(self, holder: str) -> list[Block]:
        """The single addresses that are its own."""
        return [self._singles[cidr] for cidr in sorted(self._by_holder.get(holder, ()))]

    def share_around(self, version: int, number: int) -> Block | None:
        """The share in which this address is."""
        at = bisect_right(self._spans, (version, number, 1 << 128, ""))
        family, _, last, cidr = self._spans[at - 1] if at else (0, 0, 0, "")
        return self._shares[cidr] if family == version and number <= last else None

    def has(self, version: int, number: int) -> bool:
        """Whether this address is anybody's."""
        at = bisect_left(self._numbers, (version, number))
        single = at < len(self._numbers) and self._numbers[at] == (version, number)
        return single or self.share_around(version, number) is not None

    def singles_in(self, cidr: str) -> int:
        """How many single addresses lie within that share."""
        version, first, last = self._span(cidr)
        return bisect_right(self._numbers, (version, last)) - bisect_left(self._numbers, (version, first))

    def spans(self, version: int) -> Iterator[Span]:
        """All that is anybody's, of one family."""
        yield from ((first, last) for family, first, last, _ in self._spans if family == version)
        yield from ((number, number) for family, number in self._numbers if family == version)

    def _span(self, cidr: str) -> tuple[int, int, int]:
        whole = self._ranges[cidr]
        return whole.version, int(whole.network_address), int(whole.broadcast_address)

    def _drop(self, cidr: str) -> None:
        share, single = self._shares.pop(cidr, None), self._singles.pop(cidr, None)
        if share is not None:
            self._spans.remove((*self._span(cidr), cidr))
        if single is not None:
            version, first, _ = self._span(cidr)
            self._numbers.remove((version, first))
            self._by_holder[single.holder].discard(cidr)
